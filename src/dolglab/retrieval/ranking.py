"""Rankings of a gallery, exact or found by an index, of which heads and the ranks of some images are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from dolglab.contracts import Ranked
from dolglab.errors import UserError
from dolglab.measures import ranks_in
from dolglab.retrieval.exact_dot import InnerProducts, exact_queries, rows_at, side_by_side
from dolglab.retrieval.index import Index

QUERIES_AT_ONCE = 512
# Gallery images compared at a time, and scores; the first few, since all of them are candidates for the head.
TILE, SCORES, FIRST_TILE = 16_384, 2**21, 256


def gallery_ranking(
    gallery: NDArray[np.floating],
    queries: NDArray[np.float32],
    labelled: Sequence[NDArray[np.int64]],
    top: int,
    known: NDArray[np.bool_],
    asked: NDArray[np.bool_],
    index: Index,
) -> Ranked:
    """Rank a gallery for the queries that are `asked`, (Q,); the others find nothing.

    An approximate index is built over the `known` images, (N,), and ranks as far as it finds; an exact one need not be.
    The rest is as for `exact_ranking`.
    """
    rows = np.flatnonzero(asked)
    wanted = [labelled[query] for query in rows.tolist()]
    if index.exact:
        found = exact_ranking(gallery, rows_at(queries, rows), wanted, top, known)
    else:
        present = np.flatnonzero(known)
        index.build(rows_at(gallery, present))
        found = index_ranking(index, rows_at(queries, rows), wanted, top, index.depth or len(present), present)
    return _spread(found, rows, labelled)


def _spread(ranked: Ranked, asked: NDArray[np.int64], labelled: Sequence[NDArray[np.int64]]) -> Ranked:
    """Rankings of all queries from those of the `asked` ones."""
    nothing = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(labelled)
    whole = listed_ranking(nothing, labelled, ranked.heads.shape[1])
    whole.heads[asked], whole.scores[asked] = ranked.heads, ranked.scores
    ranks = list(whole.ranks)
    for query, own in zip(asked.tolist(), ranked.ranks, strict=True):
        ranks[query] = own
    return replace(whole, ranks=tuple(ranks))


def exact_ranking(
    gallery: NDArray[np.floating],
    queries: NDArray[np.float32],
    labelled: Sequence[NDArray[np.int64]],
    top: int,
    known: NDArray[np.bool_] | None = None,
) -> Ranked:
    """Rank a gallery by inner product, equal ones in gallery order, as a stable sort of all products would.

    The gallery is read in parts, once for every 512 queries and not as a whole into memory; neither all products nor a
    sort of them are held. Products are those of `InnerProducts`: equal descriptors tie, and the number of threads and
    the machine change nothing.

    Args:
        gallery: (N, D), in memory or mapped from a file.
        queries: (Q, D).
        labelled: for each query the gallery positions whose ranks are wanted.
        top: how many first images of each ranking are kept.
        known: (N,) which gallery images there are; the others are in no ranking.

    Raises:
        UserError: NaN or infinity in a descriptor, descriptors of different sizes, labels or `known` of another number
            of queries or images, a labelled image outside the gallery.
    """
    _check(gallery, queries, labelled, known)
    present = np.arange(len(gallery)) if known is None else np.flatnonzero(known)
    products = InnerProducts(gallery)
    heads, scores = _no_heads(len(queries), top)
    ranks: list[NDArray[np.int64]] = []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        chunk = slice(start, start + QUERIES_AT_ONCE)
        wanted = [_places(present, positions) for positions in labelled[chunk]]
        ranks += _rank(products, exact_queries(queries[chunk]), present, _Heads(heads[chunk], scores[chunk]), wanted)
    return Ranked(heads, scores, tuple(labelled), tuple(ranks))


def _check(
    gallery: NDArray[np.floating],
    queries: NDArray[np.float32],
    labelled: Sequence[NDArray[np.int64]],
    known: NDArray[np.bool_] | None,
) -> None:
    if gallery.shape[1] != queries.shape[1]:
        raise UserError(f"query descriptors have {queries.shape[1]} values, those of the gallery {gallery.shape[1]}")
    if len(labelled) != len(queries):
        raise UserError(f"ground truth of {len(labelled)} queries for descriptors of {len(queries)}")
    if known is not None and len(known) != len(gallery):
        raise UserError(f"{len(known)} marks of what is known for a gallery of {len(gallery)} images")
    for query, positions in enumerate(labelled):
        outside = positions[(positions < 0) | (positions >= len(gallery))]
        if len(outside):
            raise UserError(
                f"ground truth of query {query} names image {outside[0]} (from 0), but the gallery has {len(gallery)}"
            )


def index_ranking(
    index: Index,
    queries: NDArray[np.float32],
    labelled: Sequence[NDArray[np.int64]],
    top: int,
    depth: int,
    present: NDArray[np.int64] | None = None,
) -> Ranked:
    """Rankings as far as an index finds them: its first `depth` answers, behind which nothing is found.

    Args:
        index: built over the gallery, or over its images at the positions `present`, (n,).
        queries: (Q, D).
        labelled, top: as for `exact_ranking`.
        depth: how many answers are asked for, at least 1.
    """

    def lists() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            scores, found = index.search(queries[start : start + QUERIES_AT_ONCE], depth)
            yield from zip(found if present is None else np.where(found < 0, -1, present[found]), scores, strict=True)

    return listed_ranking(lists(), labelled, top)


def listed_ranking(
    lists: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]], labelled: Sequence[NDArray[np.int64]], top: int
) -> Ranked:
    """Rankings that are there as lists, whole or not, one a query: gallery positions, best first, and their scores.

    A position of -1 is no image. `labelled` and `top` are as for `exact_ranking`.
    """
    heads, scores = _no_heads(len(labelled), top)
    ranks = []
    for query, ((positions, values), wanted) in enumerate(zip(lists, labelled, strict=True)):
        count = min(top, len(positions))
        heads[query, :count] = positions[:count]
        scores[query, :count] = np.where(positions[:count] >= 0, values[:count], -np.inf)
        ranks.append(ranks_in(positions, wanted))
    return Ranked(heads, scores, tuple(labelled), tuple(ranks))


def reranked(ranked: Ranked, orders: Mapping[int, NDArray[np.int64]]) -> Ranked:
    """Rankings with the first m images of some queries in a new order, and the ranks that change with it.

    `orders` gives, by query, permutations of 0..m-1, best first. Scores move with their images.
    Raises ValueError for what is no permutation of images in the head.
    """
    heads, scores, ranks = ranked.heads.copy(), ranked.scores.copy(), list(ranked.ranks)
    for query, order in orders.items():
        if not np.array_equal(np.sort(order), np.arange(len(order))) or -1 in ranked.heads[query, : len(order)]:
            raise ValueError(f"no new order of the first images of query {query}: {order}")
        heads[query, : len(order)] = ranked.heads[query, order]
        scores[query, : len(order)] = ranked.scores[query, order]
        ranks[query] = np.where(
            (ranks[query] >= 0) & (ranks[query] < len(order)), ranks_in(order, ranks[query]), ranks[query]
        )
    return replace(ranked, heads=heads, scores=scores, ranks=tuple(ranks))


def _no_heads(queries: int, top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return np.full((queries, top), -1, np.int64), np.full((queries, top), -np.inf, np.float32)


def _places(present: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where positions stand in the ascending `present`; -1 for those that do not."""
    places = np.searchsorted(present, positions)
    places[places == len(present)] = 0
    return np.where(present[places] == positions, places, -1) if len(present) else np.full(len(positions), -1)


def _rank(
    products: InnerProducts,
    queries: Float64[Tensor, "q d"],
    present: NDArray[np.int64],
    heads: _Heads,
    wanted: Sequence[NDArray[np.int64]],
) -> list[NDArray[np.int64]]:
    """Take the present images into the heads of some queries, and give the ranks of those at the wanted places."""
    standings = []
    for query, places in enumerate(wanted):
        found = places[places >= 0]
        standings.append(_Standing(found, products(queries[query : query + 1], present[found])[0].numpy()))

    def scores_of(tile: slice) -> NDArray[np.float32]:
        return products(queries, present[tile]).numpy()

    tiles = list(_tiles(len(present), min(TILE, SCORES // len(queries))))
    for tile, scores in zip(tiles, side_by_side(scores_of, tiles), strict=True):
        _compare(scores, present[tile], tile.start, heads, standings)
    ranks = [places.copy() for places in wanted]
    for own, standing in zip(ranks, standings, strict=True):
        own[own >= 0] = standing.before
    return ranks


def _compare(
    scores: NDArray[np.float32],
    positions: NDArray[np.int64],
    start: int,
    heads: _Heads,
    standings: Sequence[_Standing],
) -> None:
    """Take the scores, (q, n), of the images from place `start` on."""
    heads.take(scores, positions)
    for row, standing in zip(scores, standings, strict=True):
        standing.take(row, start)


def _tiles(count: int, largest: int) -> Iterator[slice]:
    start, size = 0, FIRST_TILE
    while start < count:
        yield slice(start, min(start + size, count))
        start, size = start + size, min(2 * size, largest)


@dataclass
class _Heads:
    """The best images so far: positions and scores, (Q, k), by falling score, equal ones in gallery order."""

    positions: NDArray[np.int64]
    scores: NDArray[np.float32]

    def take(self, scores: NDArray[np.float32], positions: NDArray[np.int64]) -> None:
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


class _Standing:
    """How many images stand before each labelled one of a query, counted while the gallery passes by.

    Args:
        places: (n,) where the labelled images stand in the gallery.
        scores: (n,) theirs.

    `before` are the counts so far, (n,).
    """

    def __init__(self, places: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        self.places, self.scores = places, scores
        self.above = np.nextafter(scores, np.float32(np.inf))
        self.before = np.zeros(len(places), np.int64)

    def take(self, scores: NDArray[np.float32], start: int) -> None:
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
