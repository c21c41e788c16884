"""A library's one-bit codes, compared with a full scan and with other approximate indexes: time, memory, recall.

    OMP_NUM_THREADS=1 PYTHONPATH=. python experiments/benchmarks/one_bit_codes.py --photos DIR [--images N]
        [--queries N] [--scans N] [--peers N]

Descriptors have 512 values: synthetic ones around centres, as in index.py, and with `--photos` real ones
(EfficientNet-Lite0, GeM, of photos and parts of them, at 512 and 256 pixels, projected to 512 values by PCA),
extended to the same number by random steps along the directions in which they vary. They are in segments of a
library, mapped from files. Each query is searched by codes and, for `--scans` of them, by a full scan in turn; times
are processor times, medians; recall refers to the exact first answers, which all queries get in one scan. For at most
a million descriptors, product codes (`ivf_pq`, which libraries used before) are trained and searched too; and
`--peers` descriptors are indexed in the same run by other libraries that are installed (usearch with int8, hnswlib,
ScaNN). Files are in the system's temporary folder (2.2 GB for a million) and are removed at the end.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from experiments.benchmarks.index import DIM, PER_CENTRE, ROWS, SEED, SPREAD, Table, drawn, normalised

from dolglab.data.colour import Pixels
from dolglab.data.image_reading import shrink
from dolglab.data.photos import photo_pixels
from dolglab.library.contents import ROW_BITS, Contents, Segment
from dolglab.library.listing import find_photos
from dolglab.library.stores import LIMITS, SegmentStore
from dolglab.retrieval.faiss_indexes import IVFPQIndex
from dolglab.retrieval.index import recall
from dolglab.retrieval.rabitq import FastScanCodes, RaBitQCodes
from dolglab.sharing.loading import load_extractor

QUERIES, TOP = 100, 20
# Parts of each photo that are described, their sizes, and the length of the steps that make more descriptors.
PARTS, SHARE, STEP = 4, 0.7, 0.5
# Most descriptors per segment, and most on which product codes are trained.
SEGMENT, MOST = LIMITS.merged_bytes // (4 * DIM), 1_000_000
WIDTHS = (34, 10, 10, 11, 10, 11, 12)


def main() -> None:
    """Make the descriptors, write segments, search, and print."""
    parser = argparse.ArgumentParser(description="One-bit codes and a full scan.")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--scans", type=int, default=100, help="queries for which a full scan is timed")
    parser.add_argument("--photos", help="a folder of photographs")
    parser.add_argument("--peers", type=int, default=0, help="descriptors that other libraries index")
    options = parser.parse_args()
    print(
        f"faiss {faiss.__version__}, {faiss.omp_get_max_threads()} thread, {options.images:,} x {DIM}, {TOP} answers\n"
    )
    sets = [("made up", lambda: made_up(options.images, options.queries))]
    if options.photos:
        sets.append(("of photos", lambda: expanded(options.photos, options.images, options.queries)))
    for name, source in sets:
        with tempfile.TemporaryDirectory() as folder:
            queries, parts = source()
            print(row(name, "build, s", "bytes", "ms a query", "less by", "recall@10", "recall@100"))
            store, exact = library(Path(folder), queries, parts, options.scans)
            gallery = whole(store, min(options.images, MOST))
            if options.images <= MOST:
                ivf_pq(gallery, queries, exact)
            if options.peers:
                peers(gallery[: options.peers], queries)


def whole(store: SegmentStore, images: int) -> Table:
    """The descriptors of all segments."""
    starts = enumerate(range(0, images, SEGMENT), 1)
    parts = [store.rows(number, np.arange(min(SEGMENT, images - start))) for number, start in starts]
    return np.concatenate(parts).astype("f4")


def library(folder: Path, queries: Table, parts: Iterator[Table], scans: int) -> tuple[SegmentStore, np.ndarray]:
    """A library's segments, and the exact answers."""
    (folder / "segments").mkdir()
    store, segments = SegmentStore(folder, DIM, LIMITS), dict[int, Segment]()
    built, in_memory, count = 0.0, 0.0, 0
    for number, part in enumerate(parts, 1):
        segments[number] = Segment(len(part), store.write(number, part))
        seconds, codes = spent(lambda part=part: build_codes(part))
        built, in_memory, count = built + seconds, in_memory + codes.bytes_per_vector * len(part), count + len(part)
    contents = Contents(segments, np.empty(0, np.int64))

    def ask(query: Table, k: int, exact: bool) -> np.ndarray:
        _, keys, _ = store.search(query, k, contents, exact=exact)
        return (keys >> ROW_BITS) * SEGMENT - SEGMENT + (keys & (1 << ROW_BITS) - 1)

    opened = spent(lambda: SegmentStore(folder, DIM, LIMITS).search(queries[:1], TOP, contents))[0]
    answers = ask(queries, 100, True)
    whole, codes, ten, hundred = [], [], [], []
    for n in range(len(queries)):
        query, exact = queries[n : n + 1], answers[n : n + 1]
        if n < scans:
            whole.append(spent(lambda query=query: ask(query, TOP, True))[0])
        seconds, found = spent(lambda query=query: ask(query, TOP, False))
        codes.append(seconds)
        ten.append(recall(found, exact, 10))
        hundred.append(recall(ask(query, 100, False), exact, 100))
    plain = float(np.median(whole))
    print(row("everything, exact", "", f"{4 * DIM}", f"{1e3 * plain:.1f}", "1.0", "1.000", "1.000"))
    fast = float(np.median(codes))
    measured = f"{1e3 * fast:.1f}", f"{plain / fast:.1f}", f"{np.mean(ten):.4f}", f"{np.mean(hundred):.4f}"
    print(row("codes, then exact cosines", f"{built:.1f}", f"{in_memory / count:.0f}", *measured))
    print(f"  opened, and the first answer: {1e3 * opened:.0f} ms; {len(segments)} segments", flush=True)
    return store, answers


def build_codes(part: Table) -> FastScanCodes:
    """Both forms of the codes, and the bytes in memory for a full scan."""
    codes = RaBitQCodes()
    codes.build(part)
    return FastScanCodes.pack(codes)


def ivf_pq(gallery: Table, queries: Table, exact: np.ndarray) -> None:
    """The former codes of libraries: product codes in inverted lists, ten times the answers re-ranked."""
    index = IVFPQIndex()
    built, _ = spent(lambda: index.build(gallery))
    seconds, answers = [], []
    for query in (queries[n : n + 1] for n in range(len(queries))):

        def ask(k: int, query: Table = query) -> np.ndarray:
            proposed = index.search(query, max(200, 10 * k))[1][0]
            proposed = proposed[proposed >= 0]
            return proposed[np.argsort(-(gallery[proposed] @ query[0]), kind="stable")[:k]]

        seconds.append(spent(lambda ask=ask: ask(TOP))[0])
        answers.append(np.resize(ask(100), 100))
    found = np.stack(answers)
    shares = f"{recall(found, exact, 10):.4f}", f"{recall(found, exact, 100):.4f}"
    name = f"ivf_pq, {index.probes} lists, re-ranked"
    print(row(name, f"{built:.1f}", f"{index.bytes_per_vector:.0f}", f"{1e3 * np.median(seconds):.1f}", "", *shares))


def peers(gallery: Table, queries: Table) -> None:
    """Other libraries, if installed, with the first settings in their documentation."""
    exact = np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :100]
    print(f"  of {len(gallery):,}:")
    for name, made in (("usearch", usearch), ("hnswlib", hnswlib), ("scann", scann)):
        if importlib.util.find_spec(name) is None:
            print(f"  {name} is not installed")
            continue
        for label, built, size, ask in made(gallery):
            seconds = [spent(lambda query=query[None], ask=ask: ask(query, TOP))[0] for query in queries]
            found = np.full(exact.shape, -1)
            for line, query in zip(found, queries, strict=True):
                answers = np.ravel(ask(query[None], 100))
                line[: len(answers)] = answers
            shares = f"{recall(found, exact, 10):.4f}", f"{recall(found, exact, 100):.4f}"
            print(row(label, f"{built:.1f}", size, f"{1e3 * np.median(seconds):.2f}", "", *shares), flush=True)


# Name, seconds to build, bytes per vector, and a search.
Peer = Iterator[tuple[str, float, str, Callable[[Table, int], Any]]]


def usearch(gallery: Table) -> Peer:
    from usearch.index import Index  # pyright: ignore[reportMissingImports]

    index = Index(ndim=DIM, metric="ip", dtype="i8")
    built, _ = spent(lambda: index.add(np.arange(len(gallery)), gallery, threads=1))
    size = f"{index.memory_usage / len(gallery):.0f}"
    yield "usearch, int8", built, size, lambda query, k: index.search(query[0], k).keys.astype(np.int64)


def hnswlib(gallery: Table) -> Peer:
    import hnswlib as library  # pyright: ignore[reportMissingModuleSource]

    index = library.Index(space="ip", dim=DIM)
    index.init_index(max_elements=len(gallery), M=16, ef_construction=200)
    built, _ = spent(lambda: index.add_items(gallery, num_threads=1))
    for ef in (128, 512):

        def ask(query: Table, k: int, ef: int = ef) -> Any:
            index.set_ef(max(ef, k))
            return index.knn_query(query, k, num_threads=1)[0].astype(np.int64)

        yield f"hnswlib, M 16, ef {ef}", built, f"{4 * DIM + 2 * 16 * 4}", ask


def scann(gallery: Table) -> Peer:
    import scann as library  # pyright: ignore[reportMissingImports]

    leaves = round(len(gallery) ** 0.5)
    builder = library.scann_ops_pybind.builder(gallery, 100, "dot_product")
    tree = builder.tree(leaves, max(1, leaves // 20), training_sample_size=min(len(gallery), 250_000))
    built, searcher = spent(lambda: tree.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(1000).build())
    yield (
        "ScaNN, a twentieth of its lists",
        built,
        "",
        lambda query, k: searcher.search(query[0], k)[0].astype(np.int64),
    )


def made_up(images: int, queries: int = QUERIES) -> tuple[Table, Iterator[Table]]:
    """Queries, and parts of a gallery, around centres of 50 descriptors: see index.py."""
    rng = np.random.default_rng(SEED)
    turned = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    directions = (turned * (1 + np.arange(DIM))[:, None] ** -0.5).astype(np.float32)
    middles = drawn(rng, max(1, images // PER_CENTRE), directions)
    asked = middles[rng.integers(0, len(middles), queries)] + SPREAD * drawn(rng, queries, directions)

    def part(rows: int) -> Table:
        return normalised(middles[rng.integers(0, len(middles), rows)] + SPREAD * drawn(rng, rows, directions))

    return normalised(asked), in_parts(images, part)


def in_parts(images: int, make: Callable[[int], Table]) -> Iterator[Table]:
    """Segments of descriptors, made in small blocks."""
    for start in range(0, images, SEGMENT):
        rows = min(SEGMENT, images - start)
        whole = np.empty((rows, DIM), np.float32)
        for first in range(0, rows, ROWS):
            whole[first : first + ROWS] = make(min(ROWS, rows - first))
        yield whole


def expanded(photos: str, images: int, count: int = QUERIES) -> tuple[Table, Iterator[Table]]:
    """Queries (whole photos), and blocks of a gallery made of the other photos and of parts of all."""
    loaded, rng = load_extractor("efficientnet_lite0", max_side=512), np.random.default_rng(0)

    def describe(pixels: Pixels) -> Table:
        return np.concatenate([loaded.describe([shrink(pixels, side)])[0] for side in (512, 256)])

    whole: list[Table] = []
    parts: list[Table] = []
    for file in find_photos([photos]):
        pixels = photo_pixels(file.name, 512)
        whole.append(describe(pixels))
        height, width = (int(SHARE * side) for side in pixels.shape[:2])
        corners = rng.random((PARTS, 2)) * (np.array(pixels.shape[:2]) - (height, width))
        cut = [pixels[y : y + height, x : x + width] for y, x in corners.astype(int)]
        parts.extend(describe(part) for part in cut)
    asked = rng.permutation(len(whole))[:count]
    kept = np.setdiff1d(np.arange(len(whole)), asked)
    real = np.concatenate([np.stack(whole)[kept], np.stack(parts)])
    mean = real.mean(0)
    strengths, directions = np.linalg.eigh(np.cov((real - mean).T))
    project = directions[:, -DIM:].astype(np.float32)
    base, queries = (normalised((each - mean) @ project) for each in (real, np.stack(whole)[asked]))
    spread = (
        STEP * np.sqrt(np.maximum(strengths[-DIM:], 0)).astype(np.float32) / np.linalg.norm(real - mean, axis=1).mean()
    )
    print(f"{len(real):,} descriptors of photos and parts of them, of {len(whole)} photos")

    def part(rows: int) -> Table:
        return normalised(
            base[rng.integers(0, len(base), rows)] + rng.standard_normal((rows, DIM), np.float32) * spread
        )

    return queries, in_parts(images, part)


def spent(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of `work`, and its result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def row(*cells: str) -> str:
    """A line of the table."""
    return f"{cells[0]:<{WIDTHS[0]}}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells[1:], WIDTHS[1:], strict=True)
    )


if __name__ == "__main__":
    main()
