"""Rankings of a gallery, exact or by an index: the first images of each ranking, and the ranks of selected images.

torch is imported only for the products of exact rankings.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from dolglab.concurrency import prefetch_map
from dolglab.contracts import BoolArray, FloatArray, IntArray, Ranked
from dolglab.errors import UserError
from dolglab.measures import check_distinct, ranks_in
from dolglab.retrieval.index import Index
from dolglab.retrieval.inner_products import BLOCK, BLOCK_OF_HEADS, VALUES_AT_ONCE, InnerProducts, Queries
from dolglab.retrieval.large_arrays import take_rows

Part = TypeVar("Part")
Result = TypeVar("Result")
# Bins of scores: more bins take longer to count, fewer leave more images for single comparisons.
BINS = 8192
# A query's list: gallery positions, best first, and their scores, (n,) each.
RankedList = tuple[IntArray, FloatArray]
# Images that may be among the best of a query: queries, gallery positions and scores, (n,) each.
Heads = tuple[IntArray, IntArray, FloatArray]


class ChunkSizes(NamedTuple):
    """Sizes of the parts of a ranking: they affect memory and speed, but not the result.

    Attributes:
        queries: number of queries per reading of the gallery.
        images: largest number of gallery images per comparison.
        first_images: number in the first comparison, all of which are candidates for the head; it then doubles each
            time, with a similar number of candidates each time.
        scores: largest number of scores in memory.
        values: gallery values in one matrix product.
        pair_cost: number of products in a matrix product that take as long as a single one.
    """

    queries: int = 512
    images: int = 16_384
    first_images: int = 256
    scores: int = 2**21
    values: int = VALUES_AT_ONCE
    pair_cost: int = 64


def gallery_ranking(
    gallery: NDArray[np.floating],
    queries: FloatArray,
    ground_truth_ids: Sequence[IntArray],
    top: int,
    available: BoolArray,
    query_available: BoolArray,
    index: Index,
) -> Ranked:
    """Rank a gallery for the available queries, (Q,); the other queries have no answers.

    An approximate index is built over the `available` images, (N,), and ranks only the images that it finds; an exact
    one is not built. The other arguments are those of `exact_ranking`.
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
    """Rank a gallery by inner product, with ties in gallery order, like a stable sort of all products.

    The gallery is read in parts, once for every 512 queries; neither the whole gallery nor all products are in memory.
    Scores are those of `InnerProducts.exact`: equal descriptors tie, and the result does not depend on the number of
    threads or the machine.

    Args:
        gallery: (N, D), in memory or mapped from a file.
        queries: (Q, D).
        ground_truth_ids: for each query the gallery positions whose ranks are computed.
        top: number of first images of each ranking to return.
        available: (N,) which gallery images exist; the others are in no ranking.
        chunks: sizes of the parts.

    Raises:
        UserError: NaN or infinity in a descriptor, descriptors of different sizes, ground truth or `available` for
            another number of queries or images, or ground truth outside the gallery.
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
        asked = Queries.of(queries[chunk], BLOCK if any(map(len, wanted)) else BLOCK_OF_HEADS)
        ranks += _rank(products, asked, present, best, wanted, chunks)
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
    """Rankings of the first `depth` answers of an index; all other images are not found.

    Args:
        index: built over the gallery, or over its images at the positions `present`, (n,).
        queries: (Q, D).
        ground_truth_ids, top: see `exact_ranking`.
        depth: number of answers to request, at least 1.
        queries_at_once: number of queries per search.
    """

    def lists() -> Iterator[RankedList]:
        for start in range(0, len(queries), queries_at_once):
            scores, found = index.search(queries[start : start + queries_at_once], depth)
            yield from zip(found if present is None else np.where(found < 0, -1, present[found]), scores, strict=True)

    return listed_ranking(lists(), ground_truth_ids, top)


def listed_ranking(lists: Iterable[RankedList], ground_truth_ids: Sequence[IntArray], top: int) -> Ranked:
    """Rankings from lists, complete or not, one per query; a position of -1 is no image.

    See `exact_ranking` for `ground_truth_ids` and `top`. Raises UserError for an image that is listed twice.
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
    """Rankings with the first m images of some queries reordered, and their ranks updated.

    `orders` maps queries to permutations of 0..m-1, best first. Scores move with their images.
    Raises ValueError for an order that is not a permutation of images in the head.
    """
    top_k, scores, ranks = ranked.top_k.copy(), ranked.scores.copy(), list(ranked.ranks)
    for query, order in orders.items():
        count = len(order)
        if not np.array_equal(np.sort(order), np.arange(count)) or -1 in ranked.top_k[query, :count]:
            raise ValueError(f"not a permutation of the first images of query {query}: {order}")
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
        raise UserError(f"query descriptors have {queries.shape[1]} values, gallery descriptors {gallery.shape[1]}")
    if len(ground_truth_ids) != len(queries):
        raise UserError(f"ground truth for {len(ground_truth_ids)} queries, but descriptors of {len(queries)}")
    if available is not None and len(available) != len(gallery):
        raise UserError(f"`available` has {len(available)} values for a gallery of {len(gallery)} images")
    for query, positions in enumerate(ground_truth_ids):
        outside = positions[(positions < 0) | (positions >= len(gallery))]
        if len(outside):
            raise UserError(
                f"ground truth of query {query} has image {outside[0]} (0-based), but the gallery has {len(gallery)}"
            )


def _empty_top_k(queries: int, top: int) -> tuple[IntArray, FloatArray]:
    return np.full((queries, top), -1, np.int64), np.full((queries, top), -np.inf, np.float32)


def _places(present: IntArray, positions: IntArray) -> IntArray:
    """Indices of positions in the ascending `present`, -1 if missing."""
    places = np.searchsorted(present, positions)
    places[places == len(present)] = 0
    return np.where(present[places] == positions, places, -1) if len(present) else np.full(len(positions), -1)


def _rank(
    products: InnerProducts,
    queries: Queries,
    present: IntArray,
    top_k: _TopK,
    wanted: Sequence[IntArray],
    chunks: ChunkSizes,
) -> list[IntArray]:
    """Update the best images of some queries with the present ones, and return the ranks of the wanted places."""
    counters = {}
    for query, places in enumerate(wanted):
        found = places[places >= 0]
        if len(found):
            scores = products.exact_pairs(queries, np.full(len(found), query), present[found])
            counters[query] = _RankCounter(found, scores)
    compare = partial(_compare, products, queries, present, counters, chunks.pair_cost)
    for tiles in _waves(len(present), chunks.first_images, min(chunks.images, chunks.scores // len(queries))):
        # Of the first images, so many are candidates that exact products of all are faster.
        exact = tiles[0].start < chunks.pair_cost * top_k.scores.shape[1]
        for before, heads in parallel_map(partial(compare, top_k.scores[:, -1].copy(), exact), tiles):
            top_k.take(*heads)
            for counter, more in zip(counters.values(), before, strict=True):
                counter.before += more
    ranks = [places.copy() for places in wanted]
    for query, counter in counters.items():
        ranks[query][ranks[query] >= 0] = counter.before
    return ranks


def _compare(
    products: InnerProducts,
    queries: Queries,
    present: IntArray,
    counters: Mapping[int, _RankCounter],
    pair_cost: int,
    floors: FloatArray,
    exact: bool,
    tile: slice,
) -> tuple[list[IntArray], Heads]:
    """Count a tile's images that rank before those of each counter, and find those that may exceed the floors, (Q,).

    Scores come from a quick product; those whose error could change the result are recomputed exactly.
    """
    positions = present[tile]
    if exact:
        scores, errors = products.exact(queries, positions), np.zeros(len(floors))
    else:
        scores, errors = products.quick(queries, positions)
    lowest = np.nextafter((floors - errors).astype(np.float32), np.float32(-np.inf))
    heads = np.flatnonzero(scores >= lowest[:, None])
    counts, left = [], []
    for query, counter in counters.items():
        count, columns = counter.decided(scores[query], errors[query])
        counts.append(count)
        left.append(columns)
    if errors.any():
        open_pairs = [query * len(positions) + columns for query, columns in zip(counters, left, strict=True)]
        asked, columns = np.divmod(np.concatenate([heads, *open_pairs]), len(positions))
        if len(asked) * pair_cost > scores.size:
            scores = products.exact(queries, positions)
        else:
            scores[asked, columns] = products.exact_pairs(queries, asked, positions[columns])
    for (query, counter), count, columns in zip(counters.items(), counts, left, strict=True):
        count += counter.compared(scores[query, columns], columns, tile)
    asked, columns = np.divmod(heads, len(positions))
    return counts, (asked, positions[columns], scores[asked, columns])


def _waves(count: int, first: int, largest: int) -> Iterator[list[slice]]:
    """Consecutive tiles of at most `largest` images, in waves that double the number of images so far."""
    start, stop = 0, min(first, count)
    while start < stop:
        yield [slice(begin, min(begin + largest, stop)) for begin in range(start, stop, largest)]
        start, stop = stop, min(2 * stop, count)


@dataclass
class _TopK:
    """The best images so far: positions and scores, (Q, k), by descending score, ties in gallery order."""

    positions: IntArray
    scores: FloatArray

    def take(self, rows: IntArray, positions: IntArray, scores: FloatArray) -> None:
        """Add images, (n,) each: row by row, in gallery order, and after all earlier ones in the gallery."""
        top = self.scores.shape[1]
        # An image that ties with the last of a full head ranks after it.
        better = scores > self.scores[rows, -1]
        rows, positions, scores = rows[better], positions[better], scores[better]
        counts = np.bincount(rows, minlength=len(self.scores))
        touched = np.flatnonzero(counts)
        if not len(touched):
            return
        new = (np.cumsum(counts > 0) - 1)[rows], top + np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
        shape = len(touched), top + counts.max()
        candidates, places = np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
        candidates[:, :top], places[:, :top] = self.scores[touched], self.positions[touched]
        candidates[new], places[new] = scores, positions
        order = np.argsort(-candidates, axis=1, kind="stable")[:, :top]
        self.scores[touched] = np.take_along_axis(candidates, order, 1)
        self.positions[touched] = np.take_along_axis(places, order, 1)


class _RankCounter:
    """Counts the images of a tile that rank before each of some images of a query.

    Args:
        places: (n,) gallery positions of these images.
        scores: (n,) their exact scores.

    `before` has the counts of all tiles so far, (n,).
    """

    def __init__(self, places: IntArray, scores: FloatArray) -> None:
        self.places, self.scores, self.before = places, scores, np.zeros(len(places), np.int64)
        self.above = np.nextafter(scores, np.float32(np.inf))
        ascending = np.sort(scores)
        self.position = ascending.searchsorted(scores)
        self.ends = np.append(ascending, np.inf).astype(np.float64)

    def decided(self, scores: FloatArray, error: float) -> tuple[IntArray, IntArray]:
        """How many of a tile's images certainly score above each image, (n,), and the columns of undecided ones.

        Args:
            scores: (m,), with an error of at most `error`.
            error: if it is 0, all columns are undecided.
        """
        if not error:
            return np.zeros(len(self.places), np.int64), np.arange(len(scores))
        # Most scores are far from those of all images, and are counted in bins.
        low, high = ((self.scores + side).astype(np.float32) for side in (-error, error))
        low, high = np.nextafter(low, np.float32(-np.inf)), np.nextafter(high, np.float32(np.inf))
        # With margins at both ends, and bins so wide that those of `low` and `high` are equal or adjacent.
        width = max((float(high.max()) - float(low.min())) / (BINS - 4), 2 * float((high - low).max()))
        start, scale = np.float32(low.min() - 2 * width), np.float32(1 / width)
        bin_of, first, last = (_bins(values, start, scale) for values in (scores, low, high))
        mixed = np.zeros(BINS, np.bool_)
        mixed[first] = mixed[last] = True
        sizes = np.bincount(bin_of, minlength=BINS)
        sizes[mixed] = 0
        # The others are compared with the one image that they may rank before or after.
        near = np.flatnonzero(mixed[bin_of])
        below = self.ends.searchsorted(scores[near] - error)
        certain = scores[near] + error < self.ends[below]
        up_to, further = sizes.cumsum(), np.bincount(below[certain], minlength=len(self.ends)).cumsum()
        return up_to[-1] - up_to[last] + further[-1] - further[self.position], near[~certain]

    def compared(self, scores: FloatArray, columns: IntArray, tile: slice) -> IntArray:
        """How many images, at ascending columns of a tile and with exact scores, rank before each image, (n,)."""
        before = np.zeros(len(self.places), np.int64)
        for own in np.flatnonzero((self.places >= tile.start) & (self.places < tile.stop)).tolist():
            earlier = scores[: columns.searchsorted(self.places[own] - tile.start)]
            before[own] = np.count_nonzero(earlier == self.scores[own])
        # Ties rank before an image if they are earlier in the gallery.
        bounds = np.where(self.places >= tile.stop, self.scores, self.above)
        return before + len(scores) - np.sort(scores).searchsorted(bounds)


def _bins(scores: FloatArray, start: np.float32, scale: np.float32) -> IntArray:
    """Indices of equal bins, (n,), from 0 to `BINS` - 1, monotonic in the score in spite of rounding."""
    # A bin is at least as wide as the rounding of any score, so that indices fit into 32 bits before clipping.
    return ((scores - start) * scale).astype(np.int32).clip(0, BINS - 1).astype(np.int64)


def parallel_map(work: Callable[[Part], Result], parts: Iterable[Part]) -> Generator[Result]:
    """The results of the parts in order, few of them at a time, each computed with one torch thread.

    If small products and element-wise operations are distributed over the cores one by one, most cores idle; here
    each thread computes its own part.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        results = prefetch_map(work, parts, threads, threads, partial(torch.set_num_threads, 1))
        with closing(results):  # pyright: ignore[reportArgumentType]
            for _, result in results:
                yield result
    finally:
        # MKL has one setting for all threads.
        torch.set_num_threads(threads)
