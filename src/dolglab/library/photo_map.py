"""A map of a library: two coordinates a photo, kept beside the catalogue in `map.safetensors`.

The file has three tensors of n rows: `ids`, the photos' numbers, ascending, and `changed`, when each one's file had
been changed, both int64; `coordinates`, (n, 2) float32. Its metadata have one key, `map`, whose value is JSON:
`method`, `explained` (the share of the variance that each axis has, or nothing) and `identity` (what had described the
photos, see `LoadedExtractor`).

A library changes, its map does not: what is shown are the photos that are as they were.
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
from dolglab.library.catalogue import Described
from dolglab.library.library import IDENTITY, Library

FILE = "map.safetensors"
ABOUT = "map"
# Tensors, with the type of their values.
TENSORS = {"ids": np.int64, "changed": np.int64, "coordinates": np.float32}
# Photos' numbers are handed out as uint32.
MAX_ID = 2**32 - 1


@dataclass(frozen=True, eq=False)
class PhotoMap:
    """Photos and where they are.

    Attributes:
        ids: their numbers in the library, (n,), ascending.
        changed: when their files had been changed, in nanoseconds since 1970, (n,).
        coordinates: (n, 2) float32; what is alike is near.
        method: what made it, a name in `map_making.METHODS`.
        explained: the share of the descriptors' variance that each axis has; nothing where axes are not linear.
        identity: of what had described the photos.
    """

    ids: NDArray[np.int64]
    changed: NDArray[np.int64]
    coordinates: NDArray[np.float32]
    method: str
    explained: tuple[float, ...]
    identity: Mapping[str, Any]

    def shown(self, described: Described) -> NDArray[np.int64]:
        """Rows of the photos that are still there and as they were, (m,), ascending."""
        _, mine, theirs = np.intersect1d(self.ids, described.ids, assume_unique=True, return_indices=True)
        return mine[self.changed[mine] == described.changed[theirs]]

    def is_current(self, library: Library) -> bool:
        """Whether the library's photos are described as they were: the same network, size and adapter."""
        return library.differs_in(self.identity) is None


def write_map(folder: Path, made: PhotoMap) -> Path:
    """Write a library's map in one step. Raises UserError for numbers of photos that do not fit."""
    from safetensors.numpy import save

    if len(made.ids) and made.ids[-1] > MAX_ID:
        raise UserError(f"a photo has the number {made.ids[-1]}, and a map takes those up to {MAX_ID}: embed them anew")
    tensors = {name: np.ascontiguousarray(getattr(made, name), kind) for name, kind in TENSORS.items()}
    identity = {key: made.identity.get(key) for key in IDENTITY}
    about = json.dumps({"method": made.method, "explained": made.explained, "identity": identity})
    # Under one key: safetensors writes several in an order of chance.
    return write_bytes(folder / FILE, save(tensors, {ABOUT: about}))


def read_map(folder: Path) -> PhotoMap | None:
    """A library's map; None where it has none. Raises UserError for a file that `write_map` did not write."""
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
    return UserError(f"{path} is damaged, or no map: dolglab library map makes it anew")
