"""Images read at random out of larger files on a local disk, such as the LitData chunks that `task=pack` wrote."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dolglab.data.sources import GLDv2Source
from dolglab.errors import UserError

# Of each image, by ascending id: its id, the position of its file, and where it starts and how long it is, in bytes.
COLUMNS = {"id": np.uint64, "archive": np.uint16, "offset": np.int64, "size": np.int64}
Table = dict[str, NDArray[Any]]

# In `root/packed/SPLIT`: LitData's own list of its chunks, and our table of the images in them, which comes last.
LITDATA_INDEX, TABLE = "index.json", ".table"


class ArchiveSource(GLDv2Source):
    """Images out of larger files, which `open_files` knows.

    The table is memory-mapped, so that all processes share it. A file is opened for each read: that costs
    microseconds, and no process holds hundreds of files, or one that has gone stale.
    Raises UserError as `open_files`, and for ids that lie in no file.
    """

    # What helps where an image lies in none of the files.
    advice = "list only images that are there"

    def __init__(self, root: str | Path, split: str, ids: NDArray[np.uint64]) -> None:
        super().__init__(root, split, ids)
        self.folder, self._files, self._table = self.open_files()
        available = self._table["id"]
        self._rows = np.searchsorted(available, ids)
        # Not np.isin, which would read all of the mapped table for the few images of a worker's part.
        found = np.zeros(len(ids), np.bool_)
        if len(available):
            found = available[np.minimum(self._rows, len(available) - 1)] == ids
        if not found.all():
            missing = np.flatnonzero(~found)
            raise UserError(
                f"{len(missing):,} of {len(ids):,} listed images lie in none of the {len(self._files)} files of "
                f"{self.folder}, the first is {int(ids[missing[0]]):016x}: {self.advice}"
            )

    @abstractmethod
    def open_files(self) -> tuple[Path, list[str], Table]:
        """The folder, the files' names, and the table. Raises UserError where they are not there or do not fit."""

    def size(self, position: int) -> int:
        """Bytes of the image."""
        return int(self._table["size"][self._rows[position]])

    def read(self, position: int) -> bytes:
        """The image's bytes. Raises OSError where the file ends before it."""
        row = self._rows[position]
        size, offset = self.size(position), int(self._table["offset"][row])
        name = self._files[int(self._table["archive"][row])]
        file = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(file, size, offset)
        finally:
            os.close(file)
        if len(data) != size:
            raise OSError(f"{name} ends before {self.name(position)}")
        return data

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Some of the images, in that order; table and files are shared."""
        part = type(self).__new__(type(self))
        vars(part).update(vars(self), ids=self.ids[rows], _rows=self._rows[rows])
        return part

    def __getstate__(self) -> dict[str, Any]:
        """What another process opens anew: mapped memory does not travel."""
        return {"root": self.root, "split": self.split, "ids": self.ids}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)


def open_table(home: Path) -> Table:
    """A table's columns, memory-mapped. Raises OSError or ValueError where they are damaged."""
    table = {name: np.load(home / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in COLUMNS}
    if len({len(column) for column in table.values()}) != 1:
        raise ValueError("columns of several lengths")
    return table


def save_table(home: Path, table: Table) -> None:
    """Write a table's columns into a folder. Raises OSError."""
    for name, kind in COLUMNS.items():
        np.save(home / f"{name}.npy", table[name].astype(kind))


def packed_folder(root: Path, split: str) -> Path:
    """Where the packed images of a split lie."""
    return root / "packed" / split


class PackedSource(ArchiveSource):
    """Images of `root/packed/SPLIT`, packed by `pack_gldv2`; the same ids in the same order as unpacked.

    `orientation` is how they were packed, "exif" or "ignore".
    """

    advice = "pack them again, or list only images that are there"

    def open_files(self) -> tuple[Path, list[str], Table]:
        """Raises UserError where nothing was packed, or where chunks are missing or of another size than written."""
        folder = packed_folder(self.root, self.split)
        how = f"`dolglab prepare task=pack root={self.root}`"
        try:
            listed = json.loads((folder / LITDATA_INDEX).read_text())
            chunks, self.orientation = listed["chunks"], str(listed["packed"]["orientation"])
            table = open_table(folder / TABLE)
            files = {str(chunk["filename"]): int(chunk["chunk_bytes"]) for chunk in chunks}
            wrong = [name for name, size in files.items() if (folder / name).stat().st_size != size]
        except FileNotFoundError as error:
            raise UserError(f"{error.filename} is missing: {how} packs the images") from None
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            raise UserError(f"what is packed in {folder} cannot be read: {how} does it anew") from None
        if wrong:
            raise UserError(f"{folder / wrong[0]} is not as it was packed: {how} does it anew")
        return folder, list(files), table
