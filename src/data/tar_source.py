"""Images read out of GLDv2's tar archives where they lie: nothing is unpacked."""

from __future__ import annotations

import json
from pathlib import Path

from src.contracts import InputError
from src.data.archive_source import ArchiveSource, Table, open_table
from src.data.preparation.tar_index import CURRENT, FOLDER, FORMAT, archive_stamps


class TarSource(ArchiveSource):
    """Images of `root/SPLIT/*.tar`, indexed by `index_archives`."""

    advice = "fetch the other archives and index them (mode=index), or list only images that are there"

    def open_files(self) -> tuple[Path, list[str], Table]:
        """Raises InputError where there is no index, or one of other archives than are there."""
        folder = self.root / self.split
        how = f"`python -m src.prepare task=gldv2 root={self.root} split={self.split} mode=index` makes it"
        try:
            about = json.loads((folder / FOLDER / CURRENT).read_text())
            if about["format"] != FORMAT:
                raise ValueError
            table = open_table(folder / FOLDER / about["tag"])
            archives = [str(name) for name, _, _ in about["archives"]]
            same = about["archives"] == archive_stamps([folder / name for name in archives])
        except FileNotFoundError:
            raise InputError(f"the archives of {folder} have no index, or are gone: {how}") from None
        except OSError as error:
            raise InputError(f"the index of {folder} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, EOFError):
            raise InputError(f"the index of {folder} is damaged: {how} anew") from None
        # What a scan that goes on compares.
        self.stamp = str(about["tag"]) if same else None
        if not same:
            raise InputError(f"the archives of {folder} are not those that were indexed: {how} anew")
        return folder, archives, table
