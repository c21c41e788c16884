"""Indexes of synthetic descriptors of 512 values: build time, memory, speed and recall, compared with exact answers.

    PYTHONPATH=. python experiments/benchmarks/index.py [--images N] [--small N] [--queries N]

Descriptors are clustered, 50 per centre, and vary along 512 directions of decreasing variance that are not the axes;
a query is another sample near one of them. `flat`, `ivf_flat`, `ivf_pq` and `rabitq` index `--images` descriptors,
`hnsw` and `opq_pq` index `--small`. Plain numpy (a product and a partial sort for each part of the gallery) gives the
exact answers, 100 per query. Queries are searched in one batch, and some of them one by one. `lists None` is the
square root of the number of images. Files are in the system's temporary folder and are removed at the end (about 5 GB
for a million).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from dolglab.retrieval.faiss_indexes import HNSWIndex, IVFFlatIndex, IVFPQIndex, OPQIndex
from dolglab.retrieval.index import FlatIndex, Index, recall
from dolglab.retrieval.rabitq import RaBitQIndex

Table = NDArray[np.float32]
SEED, DIM, K = 0, 512, 100
PER_CENTRE = 50
# Distances of members from their centre, and of queries from a member, relative to those between centres.
SPREAD, DISTANCE = 0.7, 0.7
ROWS = 65_536
ALONE = 20
WIDTHS = (10, 8, 9, 8, 15, 10, 9, 8, 8)

# An index, and the search setting that is varied, with its values.
Kind = tuple[Callable[[], Index], str, tuple[int, ...]]
LARGE: tuple[Kind, ...] = (
    (FlatIndex, "", (0,)),
    (IVFFlatIndex, "probes", (8, 32, 128)),
    (IVFPQIndex, "probes", (8, 32, 128)),
    (RaBitQIndex, "", (0,)),
)
SMALL: tuple[Kind, ...] = ((FlatIndex, "", (0,)), (HNSWIndex, "ef_search", (128, 512)), (OPQIndex, "", (0,)))


def main() -> None:
    """Make the data, index, search, print."""
    parser = argparse.ArgumentParser(description="Indexes of made-up descriptors.")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        print(
            f"{DIM} values, {options.queries:,} queries, {ALONE} of them one by one, "
            f"{faiss.omp_get_max_threads()} threads, faiss {faiss.__version__}\n"
        )
        print(row("", "images", "build", "bytes a", "mapped", "", "queries", "one by", "recall", "recall"))
        print(row("", "", "s", "vector", "in ms", "", "a second", "one", "@10", "@100"))
        for kinds, images in ((LARGE, options.images), (SMALL, options.small)):
            compare(kinds, *make(Path(folder), images, options.queries), Path(folder))
    print(f"\ntotal: {since(start):.0f} s")


def compare(kinds: tuple[Kind, ...], gallery: Table, queries: Table, folder: Path) -> None:
    """Print rows for each kind and setting; numpy's exact answers first."""
    exact = plain(gallery, queries)
    images = f"{len(gallery):,}"
    speeds = a_second(lambda asked: plain(gallery, asked), queries)
    print(row("numpy", images, "", f"{4 * DIM:,}", "", "", *speeds, "1.000", "1.000"), flush=True)
    for make_index, varied, values in kinds:
        index = make_index()
        path = folder / index.kind
        start = time.perf_counter()
        index.build(gallery)
        built = since(start)
        index.save(path)
        start = time.perf_counter()
        make_index().load(path, mmap=True)
        mapped = 1000 * since(start)
        first = (index.kind, images, f"{built:.1f}", f"{index.bytes_per_vector:,.1f}", f"{mapped:.1f}")
        for value in values:
            if varied:
                setattr(index, varied, value)
            speeds = a_second(lambda asked, index=index: index.search(asked, K), queries)
            found = index.search(queries, K)[1]
            way = f"{varied} {value}" if varied else ""
            print(row(*first, way, *speeds, *(f"{recall(found, exact, k):.3f}" for k in (10, K))), flush=True)
            first = ("",) * len(first)
        if index.settings:
            print("          " + ", ".join(f"{name} {value}" for name, value in index.settings.items()))
        path.unlink()


def a_second(search: Callable[[Table], object], queries: Table) -> tuple[str, str]:
    """Queries per second: all in one batch, and some one by one."""
    start = time.perf_counter()
    search(queries)
    together = since(start)
    start = time.perf_counter()
    for query in queries[:ALONE]:
        search(query[None])
    return f"{len(queries) / together:,.1f}", f"{len(queries[:ALONE]) / since(start):,.1f}"


def row(*cells: str) -> str:
    """A line of the table."""
    return f"{cells[0]:<9}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells[1:], WIDTHS, strict=True))


def make(folder: Path, images: int, count: int) -> tuple[Table, Table]:
    """The gallery, memory-mapped, and the queries; L2-normalised."""
    rng = np.random.default_rng(SEED)
    turned = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    directions = (turned * (1 + np.arange(DIM))[:, None] ** -0.5).astype(np.float32)
    middles = drawn(rng, max(1, images // PER_CENTRE), directions)
    gallery = np.lib.format.open_memmap(folder / "gallery.npy", "w+", np.float32, (images, DIM))
    asked = rng.choice(images, count, replace=False)
    queries = np.empty((count, DIM), np.float32)
    for start in range(0, images, ROWS):
        rows = min(ROWS, images - start)
        members = middles[rng.integers(0, len(middles), rows)] + SPREAD * drawn(rng, rows, directions)
        gallery[start : start + rows] = normalised(members)
        here = np.flatnonzero((asked >= start) & (asked < start + rows))
        queries[here] = members[asked[here] - start] + DISTANCE * drawn(rng, len(here), directions)
    return gallery, normalised(queries)


def drawn(rng: np.random.Generator, rows: int, directions: Table) -> Table:
    """Normal samples along the directions, scaled by their strengths."""
    return rng.standard_normal((rows, DIM), np.float32) @ directions


def normalised(table: NDArray[np.floating]) -> Table:
    """Rows of length 1."""
    return (table / np.linalg.norm(table, axis=1, keepdims=True)).astype(np.float32, copy=False)


def plain(gallery: Table, queries: Table) -> NDArray[np.int64]:
    """The first K answers of every query, by numpy alone."""
    best = np.empty((len(queries), 0), np.float32)
    places = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(gallery), ROWS):
        scores = queries @ gallery[start : start + ROWS].T
        top = np.argpartition(-scores, min(K, scores.shape[1]) - 1, axis=1)[:, :K]
        best = np.concatenate([best, np.take_along_axis(scores, top, 1)], 1)
        places = np.concatenate([places, top + start], 1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :K]
        best, places = np.take_along_axis(best, order, 1), np.take_along_axis(places, order, 1)
    return places


def since(start: float) -> float:
    """Seconds since a time."""
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
