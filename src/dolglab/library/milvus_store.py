"""Descriptors in Milvus: Milvus Lite, embedded in one folder, or a server, which can use several machines.

Only descriptors in the library's catalogue count, as with faiss's files. Those of an interrupted addition are in Milvus
but not in the catalogue, and the next process that writes deletes them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolglab.data.addresses import NotAllowedError, is_users_place
from dolglab.errors import UserError
from dolglab.library.contents import ROW_BITS, Contents, Descriptors, Keys, key_of
from dolglab.library.stores import Found, Store

# Number of rows in one request, whose size servers limit.
BATCH = 1000
# Milvus's limit of answers, and how many more than needed are requested because some may be deleted.
MAX_ANSWERS, SPARE = 16_384, 16
# If up to this many photos pass a filter, the request names them; otherwise answers are requested until enough pass.
MAX_NAMED = 2000
SERVER_LOGS = ("milvus_lite", "pymilvus")
# Milvus Lite only says that the folder could not be opened.
LITE_HINT = " (another process has it open, or it is damaged: Milvus Lite is for one process at a time)"


class MilvusStore(Store):
    """A collection in Milvus.

    Args:
        uri: a folder, for Milvus Lite, or a server's address, to which MILVUS_TOKEN of the environment is sent.
        collection: name of the collection; created with the first descriptors.
        dim: length of the descriptors.

    Raises UserError if pymilvus is not installed, the server cannot be reached, or another process has the folder open.
    """

    def __init__(self, uri: str, collection: str, dim: int) -> None:
        self.uri = uri
        self.collection = collection
        self.dim = dim
        try:
            from pymilvus import MilvusClient
        except ImportError:
            raise UserError("descriptors in Milvus need pymilvus: pip install 'dolglab[milvus]'") from None
        with _milvus_errors(uri, "" if "://" in uri else LITE_HINT):
            self._client = MilvusClient(uri, token=os.environ.get("MILVUS_TOKEN", ""))
        with _milvus_errors(uri):
            # A collection that another process made is not loaded yet.
            if self._client.has_collection(collection):
                self._client.load_collection(collection)

    @classmethod
    def open(cls, folder: Path, dim: int, options: Mapping[str, Any], limits: object) -> MilvusStore:
        """As `open_store`; Milvus Lite is in the library's folder."""
        if {"uri", "collection"} - options.keys():
            raise UserError(f"{folder} is damaged: it does not name the Milvus with its descriptors")
        uri = options["uri"]
        if "://" in uri and not is_users_place(uri):
            # Allowing its scheme is not enough, because the server gets a token.
            raise NotAllowedError(f"{uri} has these descriptors; only the library names it: --allow {uri} to connect")
        return cls(uri if "://" in uri else str(folder / "milvus.db"), options["collection"], dim)

    def close(self) -> None:
        """As `Store.close`; other processes can open Milvus Lite's folder after this one has ended."""
        self._client.close()

    def write(self, number: int, descriptors: Descriptors) -> str:
        with _milvus_errors(self.uri):
            if not self._client.has_collection(self.collection):
                self._make_collection()
            for start in range(0, len(descriptors), BATCH):
                part = descriptors[start : start + BATCH]
                rows = [{"key": key_of(number, start + row), "vector": vector} for row, vector in enumerate(part)]
                self._client.upsert(self.collection, rows)
            self._client.flush(self.collection)
        return "milvus"

    def search(
        self, queries: Descriptors, k: int, contents: Contents, allowed: Keys | None = None, exact: bool = False
    ) -> Found:
        """As `Store.search`. Raises UserError for an exact search, because Milvus always uses its index."""
        if exact:
            raise UserError(f"{self.uri} always uses its own index: omit the exact search")
        named = "" if allowed is None or len(allowed) > MAX_NAMED else f"key in {allowed.tolist()}"
        width = min(MAX_ANSWERS, k + SPARE)
        while True:
            with _milvus_errors(self.uri):
                result: Any = self._client.search(
                    self.collection, data=list(queries), limit=width, filter=named, output_fields=["key"]
                )
            # Keys and cosines of each query's answers, best first.
            answers = [[(hit["key"], hit["distance"]) for hit in hits] for hits in result]
            found = [[hit for hit in hits if _counts(hit[0], contents, allowed)][:k] for hits in answers]
            enough = all(len(kept) == k or len(hits) < width for kept, hits in zip(found, answers, strict=True))
            if enough or width == MAX_ANSWERS:
                break
            width = min(MAX_ANSWERS, 4 * width)
        scores, keys = np.full((len(found), k), -np.inf, np.float32), np.full((len(found), k), -1, np.int64)
        for row, hits in enumerate(found):
            keys[row, : len(hits)] = [key for key, _ in hits]
            scores[row, : len(hits)] = [cosine for _, cosine in hits]
        return Found(scores, keys, exact=False)

    def rows(self, number: int, rows: NDArray[np.int64]) -> Descriptors:
        """As `Store.rows`. Raises UserError if some are missing."""
        keys = [key_of(number, row) for row in rows.tolist()]
        found = {hit["key"]: hit["vector"] for hit in self._get(keys, ["key", "vector"])}
        if len(found) < len(keys):
            raise UserError(f"{self.uri} has lost {len(keys) - len(found)} descriptors: embed the photos again")
        return np.array([found[key] for key in keys], np.float32).reshape(-1, self.dim)

    def damaged(self, contents: Contents) -> list[int]:
        """As `Store.damaged`: the segments whose last row is missing."""
        with _milvus_errors(self.uri):
            if not self._client.has_collection(self.collection):
                return list(contents.segments)
        keys = {number: key_of(number, segment.size - 1) for number, segment in contents.segments.items()}
        lasts = {key: number for number, key in keys.items() if key not in contents.dead}
        there = {hit["key"] for hit in self._get(list(lasts), ["key"])}
        return [number for key, number in lasts.items() if key not in there]

    def sweep(self, contents: Contents) -> None:
        """Delete everything from Milvus that is not in the contents."""
        numbers = [0, *sorted(contents.segments)]
        gaps = [f"(key >= {key_of(a + 1)} and key < {key_of(b)})" for a, b in pairwise(numbers) if b > a + 1]
        gaps.append(f"key >= {key_of(numbers[-1] + 1)}")
        dead = contents.dead.tolist()
        with _milvus_errors(self.uri):
            if not self._client.has_collection(self.collection):
                return
            for gap in gaps:
                self._client.delete(self.collection, filter=gap)
            for start in range(0, len(dead), BATCH):
                self._client.delete(self.collection, ids=dead[start : start + BATCH])

    def _get(self, keys: list[int], fields: list[str]) -> list[dict[str, Any]]:
        """These fields of the rows with these keys, as far as they exist."""
        hits: list[dict[str, Any]] = []
        with _milvus_errors(self.uri):
            for start in range(0, len(keys), BATCH):
                hits += self._client.get(self.collection, keys[start : start + BATCH], output_fields=fields)
        return hits

    def _make_collection(self) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False)
        schema.add_field("key", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.dim)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="AUTOINDEX", metric_type="IP")
        self._client.create_collection(self.collection, schema=schema, index_params=index, consistency_level="Strong")


@contextmanager
def _milvus_errors(uri: str, hint: str = "") -> Iterator[None]:
    """Convert Milvus's errors to a UserError of one line, and suppress its own tracebacks.

    `hint` is appended to the line.
    """
    from pymilvus.exceptions import MilvusException

    loggers = [logging.getLogger(name) for name in SERVER_LOGS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except MilvusException as error:
        raise UserError(f"{uri}: Milvus reports: {' '.join(error.message.split())}{hint}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _counts(key: int, contents: Contents, allowed: Keys | None) -> bool:
    there = key >> ROW_BITS in contents.segments and not _among(key, contents.dead)
    return there and (allowed is None or _among(key, allowed))


def _among(key: int, keys: Keys) -> bool:
    """Whether a key is among these, which are ascending."""
    place = np.searchsorted(keys, key)
    return bool(place < len(keys) and keys[place] == key)
