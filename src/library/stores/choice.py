"""Where a person wants a library's descriptors: in faiss's files, in Milvus Lite's, or in a Milvus cluster."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from src.contracts import InputError
from src.library.stores.segments import KINDS, SegmentStore
from src.library.stores.store import Store

LITE = "milvus"


def store_options(store: str | None) -> dict[str, Any]:
    """What a new library keeps about its store.

    Args:
        store: flat, ivf_pq or hnsw: faiss, with that index over many descriptors; milvus: Milvus Lite, one file in the
            library's folder; the address of a Milvus server, http://HOST:PORT. None is flat.

    Raises InputError for anything else.
    """
    store = store or "flat"
    if store in KINDS:
        return {"kind": store}
    if store == LITE or "://" in store:
        return {"kind": "milvus", "uri": store, "collection": f"dolg_{uuid.uuid4().hex}"}
    raise InputError(f"--store is {', '.join(KINDS)}, {LITE} or the address of a Milvus server, not {store}")


def check_store(options: dict[str, Any], asked: str | None, folder: Path) -> None:
    """Raise InputError where a library keeps its descriptors elsewhere than was asked for.

    Another index over faiss's files is no other place: see `Library.use_index`.
    """
    there = options.get("uri", options["kind"])
    if asked not in (None, there) and not (asked in KINDS and there in KINDS):
        raise InputError(f"{folder} keeps its descriptors in {there}, not {asked}: leave --store out, or name another")


def open_store(folder: Path, dim: int, options: dict[str, Any]) -> Store:
    """The store that a library's options speak of. Raises InputError where it cannot be opened."""
    if options["kind"] != "milvus":
        return SegmentStore(folder, dim, options["kind"])
    from src.library.stores.milvus import MilvusStore

    uri = str(folder / "milvus.db") if options["uri"] == LITE else options["uri"]
    return MilvusStore(uri, options["collection"], dim)
