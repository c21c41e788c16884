"""Images read out of what `task=pack` wrote: LitData's chunks on a local disk, at random."""

from __future__ import annotations

import json
from pathlib import Path

from src.contracts import InputError
from src.data.archive_source import ArchiveSource, Table, open_table

# In `root/packed/SPLIT`: LitData's own list of its chunks, and our table of the images in them, which comes last.
LIST, TABLE = "index.json", ".table"


def packed_folder(root: Path, split: str) -> Path:
    """Where the packed images of a split lie."""
    return root / "packed" / split


class PackedSource(ArchiveSource):
    """Images of `root/packed/SPLIT`, packed by `pack_gldv2`; the same ids in the same order as unpacked.

    `orientation` is how they were packed, "exif" or "ignore".
    """

    advice = "pack them again, or list only images that are there"

    def open_files(self) -> tuple[Path, list[str], Table]:
        """Raises InputError where nothing was packed, or where chunks are missing or of another size than written."""
        folder = packed_folder(self.root, self.split)
        how = f"`python -m src.prepare task=pack root={self.root}`"
        try:
            listed = json.loads((folder / LIST).read_text())
            chunks, self.orientation = listed["chunks"], str(listed["packed"]["orientation"])
            table = open_table(folder / TABLE)
            files = {str(chunk["filename"]): int(chunk["chunk_bytes"]) for chunk in chunks}
            wrong = [name for name, size in files.items() if (folder / name).stat().st_size != size]
        except FileNotFoundError as error:
            raise InputError(f"{error.filename} is missing: {how} packs the images") from None
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            raise InputError(f"what is packed in {folder} cannot be read: {how} does it anew") from None
        if wrong:
            raise InputError(f"{folder / wrong[0]} is not as it was packed: {how} does it anew")
        return folder, list(files), table
