"""Images read out of GLDv2's tar archives where they lie: nothing is unpacked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.contracts import InputError
from src.data.preparation.tar_index import CURRENT, FOLDER, FORMAT, archive_stamps, open_table
from src.data.sources import gldv2_name


class TarSource:
    """Images of a split by their ids, read at random from indexed archives.

    The index is memory-mapped, so that all processes share it. An archive is opened for each read: that costs
    microseconds, and no process holds hundreds of files, or one that has gone stale.

    Args:
        root: holds `SPLIT/*.tar`, indexed by `index_archives`.
        split: train, index or test.
        ids: the images, in the order of their positions.

    Raises:
        InputError: no index, one of other archives than are there, or ids that lie in no archive.
    """

    def __init__(self, root: str | Path, split: str, ids: NDArray[np.uint64]) -> None:
        self.root = Path(root)
        self.split = split
        self.ids = ids
        self._archives, self._table = _open_index(self.root, split)
        known = self._table["id"]
        self._rows = np.searchsorted(known, ids)
        there = known[np.minimum(self._rows, len(known) - 1)] == ids if len(known) else np.zeros(len(ids), np.bool_)
        if not there.all():
            missing = np.flatnonzero(~there)
            raise InputError(
                f"{len(missing):,} of {len(ids):,} listed images lie in none of the {len(self._archives)} archives of "
                f"{self.root / split}, the first is {int(ids[missing[0]]):016x}: fetch the other archives and "
                "index them (mode=index), or list only images that are there"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, position: int) -> str:
        """`split/a/b/c/ID.jpg`, as unpacked."""
        return gldv2_name(self.split, int(self.ids[position]))

    def size(self, position: int) -> int:
        """Bytes of the image."""
        return int(self._table["size"][self._rows[position]])

    def read(self, position: int) -> bytes:
        """The image's bytes. Raises OSError where the archive ends before it."""
        row = self._rows[position]
        size, offset = self.size(position), int(self._table["offset"][row])
        archive = self._archives[int(self._table["archive"][row])]
        file = os.open(self.root / self.split / archive, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(file, size, offset)
        finally:
            os.close(file)
        if len(data) != size:
            raise OSError(f"{archive} ends before {self.name(position)}")
        return data

    def take(self, rows: NDArray[np.int64]) -> TarSource:
        """Some of the images, in that order."""
        return TarSource(self.root, self.split, self.ids[rows])

    def __getstate__(self) -> dict[str, Any]:
        """To another process go the names: mapped memory does not."""
        return {"root": self.root, "split": self.split, "ids": self.ids}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)


def _open_index(root: Path, split: str) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """The archives' names and the table's columns."""
    folder = root / split
    how = f"`python -m src.prepare task=gldv2 root={root} split={split} mode=index` makes it"
    try:
        about = json.loads((folder / FOLDER / CURRENT).read_text())
        if about["format"] != FORMAT:
            raise ValueError
        table = open_table(folder / FOLDER / about["tag"])
        archives = [str(name) for name, _, _ in about["archives"]]
        same = about["archives"] == archive_stamps([folder / name for name in archives])
    except FileNotFoundError:
        raise InputError(f"the archives of {folder} have no index, or are gone: {how}") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        raise InputError(f"the index of {folder} cannot be read: {how} anew") from None
    if not same:
        raise InputError(f"the archives of {folder} are not those that were indexed: {how} anew")
    return archives, table
