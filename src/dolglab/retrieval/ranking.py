"""Rankings of a gallery, exact or found by an index: the first images of each, and the ranks of some images.

torch, which makes the products of an exact one, is imported only where they are made.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float32, Float64
from numpy.typing import NDArray

from dolglab.concurrency import prefetch_map
from dolglab.contracts import BoolArray, FloatArray, IntArray, Ranked
from dolglab.errors import UserError
from dolglab.measures import check_distinct, ranks_in
from dolglab.retrieval.index import Index
from dolglab.retrieval.large_arrays import memory_map_of, take_rows

Part = TypeVar("Part")
Result = TypeVar("Result")
# Gallery values in work at a time: 2 MB stay near a processor core.
VALUES_AT_ONCE = 2**18
# A query's list: gallery positions, best first, and their scores, (n,) each.
RankedList = tuple[IntArray, FloatArray]


class ChunkSizes(NamedTuple):
    """What a ranking works on at a time: they decide memory and speed, and change no result.

    Attributes:
        queries: queries for which the gallery is read once.
        images: most gallery images compared together.
        first_images: the first few of them, since all of these are candidates for the head; each time twice as many.
        scores: most scores held together.
        values: gallery values in one matrix product.
    """

    queries: int = 512
    images: int = 16_384
    first_images: int = 256
    scores: int = 2**21
    values: int = VALUES_AT_ONCE


def gallery_ranking(
    gallery: NDArray[np.floating],
    queries: FloatArray,
    ground_truth_ids: Sequence[IntArray],
    top: int,
    available: BoolArray,
    query_available: BoolArray,
    index: Index,
) -> Ranked:
    """Rank a gallery for the queries that are there, (Q,); the others find nothing.

    An approximate index is built over the `available` images, (N,), and ranks as far as it finds; an exact one need not
    be. The rest is as for `exact_ranking`.
    """
    rows = np.flatnonzero(query_available)
    wanted = [ground_truth_ids[query] for query in rows.tolist()]
    if index.exact:
        found = exact_ranking(gallery, take_rows(queries, rows), wanted, top, available)
    else:
        present = np.flatnonzero(available)
        index.build(take_rows(gallery, present))
        found = index_ranking(index, take_rows(queries, rows), wanted, top, index.depth or len(present), present)
    top_k, scores = _empty_top_k(len(queries), top)
    top_k[rows], scores[rows] = found.top_k, found.scores
    ranks = [np.full(len(positions), -1) for positions in ground_truth_ids]
    for query, own in zip(rows.tolist(), found.ranks, strict=True):
        ranks[query] = own
    return Ranked(top_k, scores, tuple(ground_truth_ids), tuple(ranks))


def exact_ranking(
    gallery: NDArray[np.floating],
    queries: FloatArray,
    ground_truth_ids: Sequence[IntArray],
    top: int,
    available: BoolArray | None = None,
    chunks: ChunkSizes = ChunkSizes(),  # noqa: B008
) -> Ranked:
    """Rank a gallery by inner product, equal ones in gallery order, as a stable sort of all products would.

    The gallery is read in parts, once for every 512 queries and not as a whole into memory; neither all products nor a
    sort of them are held. Products are those of `InnerProducts`: equal descriptors tie, and the number of threads and
    the machine change nothing.

    Args:
        gallery: (N, D), in memory or mapped from a file.
        queries: (Q, D).
        ground_truth_ids: for each query the gallery positions whose ranks are wanted.
        top: how many first images of each ranking are kept.
        available: (N,) which gallery images there are; the others are in no ranking.
        chunks: what is worked on at a time.

    Raises:
        UserError: NaN or infinity in a descriptor, descriptors of different sizes, ground truth or `available` of
            another number of queries or images, ground truth outside the gallery.
    """
    _check(gallery, queries, ground_truth_ids, available)
    present = np.arange(len(gallery)) if available is None else np.flatnonzero(available)
    products = InnerProducts(gallery, chunks.values)
    top_k, scores = _empty_top_k(len(queries), top)
    ranks: list[IntArray] = []
    for start in range(0, len(queries), chunks.queries):
        chunk = slice(start, start + chunks.queries)
        wanted = [_places(present, positions) for positions in ground_truth_ids[chunk]]
        best = _TopK(top_k[chunk], scores[chunk])
        ranks += _rank(products, exact_queries(queries[chunk]), present, best, wanted, chunks)
    return Ranked(top_k, scores, tuple(ground_truth_ids), tuple(ranks))


def index_ranking(
    index: Index,
    queries: FloatArray,
    ground_truth_ids: Sequence[IntArray],
    top: int,
    depth: int,
    present: IntArray | None = None,
    queries_at_once: int = ChunkSizes().queries,
) -> Ranked:
    """Rankings as far as an index finds them: its first `depth` answers, behind which nothing is found.

    Args:
        index: built over the gallery, or over its images at the positions `present`, (n,).
        queries: (Q, D).
        ground_truth_ids, top: as for `exact_ranking`.
        depth: how many answers are asked for, at least 1.
        queries_at_once: queries that the index is asked together.
    """

    def lists() -> Iterator[RankedList]:
        for start in range(0, len(queries), queries_at_once):
            scores, found = index.search(queries[start : start + queries_at_once], depth)
            yield from zip(found if present is None else np.where(found < 0, -1, present[found]), scores, strict=True)

    return listed_ranking(lists(), ground_truth_ids, top)


def listed_ranking(lists: Iterable[RankedList], ground_truth_ids: Sequence[IntArray], top: int) -> Ranked:
    """Rankings that are there as lists, whole or not, one a query; a position of -1 is no image.

    `ground_truth_ids` and `top` are as for `exact_ranking`. Raises UserError for an image named twice.
    """
    top_k, scores = _empty_top_k(len(ground_truth_ids), top)
    ranks = []
    for query, ((positions, values), wanted) in enumerate(zip(lists, ground_truth_ids, strict=True)):
        check_distinct(positions, query)
        count = min(top, len(positions))
        top_k[query, :count] = positions[:count]
        scores[query, :count] = np.where(positions[:count] >= 0, values[:count], -np.inf)
        ranks.append(ranks_in(positions, wanted))
    return Ranked(top_k, scores, tuple(ground_truth_ids), tuple(ranks))


def reranked(ranked: Ranked, orders: Mapping[int, IntArray]) -> Ranked:
    """Rankings with the first m images of some queries in a new order, and the ranks that change with it.

    `orders` gives, by query, permutations of 0..m-1, best first. Scores move with their images.
    Raises ValueError for what is no permutation of images in the head.
    """
    top_k, scores, ranks = ranked.top_k.copy(), ranked.scores.copy(), list(ranked.ranks)
    for query, order in orders.items():
        count = len(order)
        if not np.array_equal(np.sort(order), np.arange(count)) or -1 in ranked.top_k[query, :count]:
            raise ValueError(f"no new order of the first images of query {query}: {order}")
        top_k[query, :count] = ranked.top_k[query, order]
        scores[query, :count] = ranked.scores[query, order]
        moved = (ranks[query] >= 0) & (ranks[query] < count)
        ranks[query] = np.where(moved, ranks_in(order, ranks[query]), ranks[query])
    return replace(ranked, top_k=top_k, scores=scores, ranks=tuple(ranks))


def _check(
    gallery: NDArray[np.floating],
    queries: FloatArray,
    ground_truth_ids: Sequence[IntArray],
    available: BoolArray | None,
) -> None:
    if gallery.shape[1] != queries.shape[1]:
        raise UserError(f"query descriptors have {queries.shape[1]} values, those of the gallery {gallery.shape[1]}")
    if len(ground_truth_ids) != len(queries):
        raise UserError(f"ground truth of {len(ground_truth_ids)} queries for descriptors of {len(queries)}")
    if available is not None and len(available) != len(gallery):
        raise UserError(f"{len(available)} marks of what is known for a gallery of {len(gallery)} images")
    for query, positions in enumerate(ground_truth_ids):
        outside = positions[(positions < 0) | (positions >= len(gallery))]
        if len(outside):
            raise UserError(
                f"ground truth of query {query} names image {outside[0]} (from 0), but the gallery has {len(gallery)}"
            )


def _empty_top_k(queries: int, top: int) -> tuple[IntArray, FloatArray]:
    return np.full((queries, top), -1, np.int64), np.full((queries, top), -np.inf, np.float32)


def _places(present: IntArray, positions: IntArray) -> IntArray:
    """Where positions stand in the ascending `present`; -1 for those that do not."""
    places = np.searchsorted(present, positions)
    places[places == len(present)] = 0
    return np.where(present[places] == positions, places, -1) if len(present) else np.full(len(positions), -1)


def _rank(
    products: InnerProducts,
    queries: Float64[np.ndarray, "q d"],
    present: IntArray,
    top_k: _TopK,
    wanted: Sequence[IntArray],
    chunks: ChunkSizes,
) -> list[IntArray]:
    """Take the present images into the best of some queries, and give the ranks of those at the wanted places."""
    counters = []
    for query, places in enumerate(wanted):
        found = places[places >= 0]
        counters.append(_RankCounter(found, products(queries[query : query + 1], present[found])[0]))
    tiles = list(_tiles(len(present), chunks.first_images, min(chunks.images, chunks.scores // len(queries))))
    for tile, scores in zip(tiles, parallel_map(lambda tile: products(queries, present[tile]), tiles), strict=True):
        top_k.take(scores, present[tile])
        for row, counter in zip(scores, counters, strict=True):
            counter.take(row, tile.start)
    ranks = [places.copy() for places in wanted]
    for own, counter in zip(ranks, counters, strict=True):
        own[own >= 0] = counter.before
    return ranks


def _tiles(count: int, size: int, largest: int) -> Iterator[slice]:
    start = 0
    while start < count:
        yield slice(start, min(start + size, count))
        start, size = start + size, min(2 * size, largest)


@dataclass
class _TopK:
    """The best images so far: positions and scores, (Q, k), by falling score, equal ones in gallery order."""

    positions: IntArray
    scores: FloatArray

    def take(self, scores: FloatArray, positions: IntArray) -> None:
        """Take further images, (Q, n) scores; `positions`, (n,), are behind all that were taken before."""
        top = self.scores.shape[1]
        # An image that only equals the last of a full head stands behind it.
        rows, columns = np.nonzero(scores > self.scores[:, -1:])
        counts = np.bincount(rows, minlength=len(scores))
        touched = np.flatnonzero(counts)
        if not len(touched):
            return
        new = (np.cumsum(counts > 0) - 1)[rows], top + np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
        shape = len(touched), top + counts.max()
        candidates, places = np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
        candidates[:, :top], places[:, :top] = self.scores[touched], self.positions[touched]
        candidates[new], places[new] = scores[rows, columns], positions[columns]
        order = np.argsort(-candidates, axis=1, kind="stable")[:, :top]
        self.scores[touched] = np.take_along_axis(candidates, order, 1)
        self.positions[touched] = np.take_along_axis(places, order, 1)


class _RankCounter:
    """How many images stand before each of some images of a query, counted while the gallery passes by.

    Args:
        places: (n,) where the images stand in the gallery.
        scores: (n,) theirs.

    `before` are the counts so far, (n,).
    """

    def __init__(self, places: IntArray, scores: FloatArray) -> None:
        self.places, self.scores = places, scores
        self.above = np.nextafter(scores, np.float32(np.inf))
        self.before = np.zeros(len(places), np.int64)

    def take(self, scores: FloatArray, start: int) -> None:
        """Take the scores, (m,), of the images from place `start` on; they are left sorted."""
        if not len(self.places):
            return
        stop = start + len(scores)
        for own in np.flatnonzero((self.places >= start) & (self.places < stop)).tolist():
            self.before[own] += np.count_nonzero(scores[: self.places[own] - start] == self.scores[own])
        scores.sort()
        # Of images with a labelled one's score, those stand before it that come before it in the gallery.
        bounds = np.where(self.places >= stop, self.scores, self.above)
        self.before += len(scores) - scores.searchsorted(bounds)


class InnerProducts:
    """Inner products with the rows of a gallery, without rounding until they are made float32.

    A BLAS adds in an order that depends on where a row stands and on the number of threads (of MKL's AVX2 kernels, two
    equal columns of one product differ), so that equal descriptors would not tie. Here values are first put on a grid
    (`round_to_grid`), where float64 holds every sum of products and any order of adding gives the same: scores depend
    on the two descriptors, and on nothing else.

    Args:
        gallery: (N, D), any floating type; of a memory-mapped file, pages are held for as long as they are read.
        values_at_once: gallery values that are read together.
    """

    def __init__(self, gallery: NDArray[np.floating], values_at_once: int = VALUES_AT_ONCE) -> None:
        self.gallery = gallery
        self.rows_at_once = max(1, values_at_once // max(1, gallery.shape[1]))
        self._mapping = memory_map_of(gallery)

    def __call__(self, queries: Float64[np.ndarray, "q d"], positions: IntArray) -> Float32[np.ndarray, "q n"]:
        """Products of `exact_queries` with the gallery's rows at n positions; several threads may ask at once.

        Raises UserError for a gallery row with NaN or infinity.
        """
        import torch

        asked = torch.from_numpy(queries)
        buffer = np.empty((min(len(positions), self.rows_at_once), queries.shape[1]))
        products = torch.empty(len(queries), len(positions))
        for start in range(0, len(positions), self.rows_at_once):
            part = positions[start : start + self.rows_at_once]
            rows = buffer[: len(part)]
            rows[:] = take_rows(self.gallery, part)
            if self._mapping is not None:
                self._mapping.madvise(mmap.MADV_DONTNEED)
            products[:, start : start + len(part)] = asked @ torch.from_numpy(round_to_grid(rows)).T
        # One value that is not finite leaves no finite product, and no finite sum.
        if not torch.isfinite(products.sum()):
            raise UserError("a gallery descriptor is not finite: the network gave NaN or infinity")
        return products.numpy()


def exact_queries(queries: FloatArray) -> Float64[np.ndarray, "q d"]:
    """Queries as `InnerProducts` takes them. Raises UserError for NaN or infinite values."""
    if not np.isfinite(queries).all():
        raise UserError("a query descriptor is not finite: the network gave NaN or infinity")
    return round_to_grid(queries.astype(np.float64))


def round_to_grid(rows: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Round rows, in place, so that no sum of products of two of them rounds.

    Each becomes multiples of a power of two, its own step, of which its length is less than 2^27 / 1.5: so the products
    of two rows are multiples of both steps, and by Cauchy and Schwarz no sum of them exceeds 2^53. Of an L2-normalised
    row the step is 2^-26, and a cosine moves by less than in a product in float32.
    """
    import torch

    values = torch.from_numpy(rows)
    # The factor keeps lengths of 1, give or take a rounding, away from where the step doubles.
    exponents = np.frexp(1.5 * torch.linalg.vector_norm(values, dim=1).numpy())[1]
    # A float64 has 53 bits: beside this number there is no room for what is finer than the step.
    ballast = torch.from_numpy(np.ldexp(1.5, exponents + 25))[:, None]
    values.add_(ballast).sub_(ballast)
    return rows


def parallel_map(work: Callable[[Part], Result], parts: Iterable[Part]) -> Generator[Result]:
    """The results of the parts in their order, of which few are there at a time; torch has one thread for each.

    Small products and element by element work leave most cores idle when one call after another is spread over them;
    here each thread computes its own part by itself.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        results = prefetch_map(work, parts, threads, threads, partial(torch.set_num_threads, 1))
        with closing(results):  # pyright: ignore[reportArgumentType]
            for _, result in results:
                yield result
    finally:
        # MKL knows one number for all threads.
        torch.set_num_threads(threads)
