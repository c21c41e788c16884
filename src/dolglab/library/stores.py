"""Where a person wants a library's descriptors: in faiss's files, in Milvus Lite's, or in a Milvus cluster."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.library.catalogue import Contents
from dolglab.library.faiss_store import KINDS, LIMITS, SegmentLimits


class Store(Protocol):
    """Keeps descriptors by key: see `Contents`.

    Its class has `open(folder, dim, options, limits)` besides, which `open_store` calls with its own arguments.
    """

    def write(self, number: int, descriptors: NDArray[np.float32]) -> str:
        """Keep descriptors, (n, dim), as the segment of that number; the kind of index over it.

        They are on disk when this returns, and count for nothing until the catalogue knows the segment.
        """
        ...

    def search(
        self, queries: NDArray[np.float32], k: int, contents: Contents, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines and keys, (Q, k) each, best first; -inf and -1 where there are fewer.

        Only `allowed` keys, ascending, are looked at, where that is given.
        """
        ...

    def rows(self, number: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Descriptors of those rows of a segment, (n, dim), in their order."""
        ...

    def damaged(self, contents: Contents) -> list[int]:
        """Numbers of the segments that cannot be read."""
        ...

    def outdated(self, contents: Contents) -> bool:
        """Whether a segment has another index over it than this store gives to those of its size."""
        ...

    def sweep(self, contents: Contents) -> None:
        """Delete whatever the contents do not speak of."""
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...


LITE = "milvus"
# The class behind each name that `--store` takes and the catalogue keeps; it is imported where a library needs it.
STORES: dict[str, str] = {
    **dict.fromkeys(KINDS, "dolglab.library.faiss_store.SegmentStore"),
    LITE: "dolglab.library.milvus_store.MilvusStore",
}


def store_options(store: str | None) -> dict[str, Any]:
    """What a new library keeps about its store.

    Args:
        store: a name in `STORES` (flat, ivf_pq or hnsw: faiss, with that index over many descriptors; milvus: Milvus
            Lite, one file in the library's folder), or the address of a Milvus server, http://HOST:PORT. None is flat.

    Raises UserError for anything else.
    """
    store = store or "flat"
    if store == LITE or "://" in store:
        return {"kind": LITE, "uri": store, "collection": f"dolg_{uuid.uuid4().hex}"}
    if store in STORES:
        return {"kind": store}
    raise UserError(f"--store is {', '.join(STORES)} or the address of a Milvus server, not {store}")


def check_store(options: dict[str, Any], store: str | None, folder: Path) -> None:
    """Raise UserError where a library keeps its descriptors elsewhere than was asked for.

    Another index over faiss's files is no other place: see `Library.use_index`.
    """
    there = options.get("uri", options["kind"])
    if store not in (None, there) and not (store in KINDS and there in KINDS):
        raise UserError(f"{folder} keeps its descriptors in {there}, not {store}: leave --store out, or name another")


def open_store(folder: Path, dim: int, options: Mapping[str, Any], limits: SegmentLimits = LIMITS) -> Store:
    """The store of a library.

    Args:
        folder: the library's.
        dim: length of its descriptors.
        options: what the library keeps about its store: see `store_options`.
        limits: when segments are indexed.

    Raises UserError where it cannot be opened.
    """
    kind = options["kind"]
    if kind not in STORES:
        raise UserError(f"{folder} keeps its descriptors in {kind}, which is none of {', '.join(STORES)} here")
    module, _, name = STORES[kind].rpartition(".")
    return getattr(importlib.import_module(module), name).open(folder, dim, options, limits)
