"""A map of a library: two coordinates per photo, stored beside the catalogue in `map.safetensors`.

The file has three tensors of n rows: `ids`, the photos' numbers, ascending, and `changed`, the modification times of
their files, both int64; and `coordinates`, (n, 2) float32. Its metadata have one key, `map`, whose value is JSON:
`method`, `explained` (the share of the variance that each axis explains; may be empty) and `identity` (of the model
that described the photos, see `LoadedExtractor`).

Changes of the library do not change its map, of which only unchanged photos are shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.io import write_bytes
from dolglab.library.catalogue import DescribedPhotos
from dolglab.library.library import IDENTITY, Library

FILE = "map.safetensors"
ABOUT = "map"
# Tensors and their types.
TENSORS = {"ids": np.int64, "changed": np.int64, "coordinates": np.float32}
# The server sends photos' numbers as uint32.
MAX_ID = 2**32 - 1


@dataclass(frozen=True, eq=False)
class PhotoMap:
    """Photos and their places on a map.

    Attributes:
        ids: numbers of the photos in the library, (n,), ascending.
        changed: modification times of their files in nanoseconds since 1970, (n,).
        coordinates: (n, 2) float32; similar photos are close together.
        method: a name in `map_making.METHODS`.
        explained: share of the descriptors' variance that each axis explains; empty if the axes are not linear.
        identity: identity of the model that described the photos.
    """

    ids: NDArray[np.int64]
    changed: NDArray[np.int64]
    coordinates: NDArray[np.float32]
    method: str
    explained: tuple[float, ...]
    identity: Mapping[str, Any]

    def shown(self, described: DescribedPhotos) -> NDArray[np.int64]:
        """Rows of the photos that are still in the library and unchanged, (m,), ascending."""
        _, mine, theirs = np.intersect1d(self.ids, described.ids, assume_unique=True, return_indices=True)
        return mine[self.changed[mine] == described.changed[theirs]]

    def is_current(self, library: Library) -> bool:
        """Whether the library's photos are still described by the same network, size and adapter."""
        return library.differs_in(self.identity) is None


def write_map(folder: Path, made: PhotoMap) -> Path:
    """Write a library's map atomically. Raises UserError for a photo with a number above `MAX_ID`."""
    from safetensors.numpy import save

    if len(made.ids) and made.ids[-1] > MAX_ID:
        raise UserError(f"photo number {made.ids[-1]} is above {MAX_ID}, the limit of a map: embed a new library")
    tensors = {name: np.ascontiguousarray(getattr(made, name), kind) for name, kind in TENSORS.items()}
    identity = {key: made.identity.get(key) for key in IDENTITY}
    about = json.dumps({"method": made.method, "explained": made.explained, "identity": identity})
    # Under one key, because safetensors writes several keys in random order.
    return write_bytes(folder / FILE, save(tensors, {ABOUT: about}))


def read_map(folder: Path) -> PhotoMap | None:
    """A library's map, or None if it has none. Raises UserError for a file that `write_map` did not write."""
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})[ABOUT])
            tensors = {name: file.get_tensor(name) for name in TENSORS}
        method, explained, identity = str(about["method"]), tuple(map(float, about["explained"])), about["identity"]
        made = PhotoMap(**tensors, method=method, explained=explained, identity=identity)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, OSError) as error:
        raise _damaged(path) from error
    rows = made.coordinates.shape[:1]
    shapes = made.ids.shape == made.changed.shape == rows and made.coordinates.shape == (*rows, 2)
    kinds = all(tensors[name].dtype == kind for name, kind in TENSORS.items())
    if not (shapes and kinds and isinstance(identity, dict) and np.isfinite(made.coordinates).all()):
        raise _damaged(path)
    if len(made.ids) and not (made.ids[0] > 0 and (np.diff(made.ids) > 0).all() and made.ids[-1] <= MAX_ID):
        raise _damaged(path)
    return made


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged, or not a map: dolglab library map makes it again")
