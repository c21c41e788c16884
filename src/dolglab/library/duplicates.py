"""Near-duplicates in a library: photos whose descriptors are nearly the same, and what hangs together by them.

Of many photos not each is compared with each: k-means parts them into cells, and those of a cell are compared with all
that have it among their nearest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError, pluralize
from dolglab.library.contents import Keys
from dolglab.library.library import Library
from dolglab.library.maintenance import write_table
from dolglab.progress import Advance, progress

ROUNDING = 1e-6
HEADER = ("cluster", "photo", "cosine")


class BlockSizes(NamedTuple):
    """`rows` descriptors are compared with `columns` others at a time; `pairs` of near ones wait to be joined.

    From `cells_from` photos on they are parted into cells.
    """

    rows: int = 512
    columns: int = 8192
    pairs: int = 1 << 20
    cells_from: int = 20_000


BLOCKS = BlockSizes()
# Cells in which a photo looks for near ones, and the cosine below which these may lie in others.
LOOKED_INTO, CELLS_COSINE = 6, 0.8
# Of k-means: photos a cell that it learns from, and rounds.
ROWS_PER_CELL, ITERATIONS = 40, 10


def write_duplicates(
    library: Library, out: str | Path, min_cosine: float, exact: bool = False, blocks: BlockSizes = BLOCKS
) -> None:
    """Write the clusters of photos that hang together by cosines of at least `min_cosine`.

    In a cluster, which photos of one scene form too, the photo with the most pixels comes first, and every one has its
    cosine to that one. Prints how many there are. With `exact`, each photo is compared with each, however many there
    are. Raises UserError for a cosine that is none.
    """
    if not 0 < min_cosine <= 1:
        raise UserError(f"--least is a cosine above 0, at most 1, not {min_cosine}")
    # Meanwhile nobody gives the descriptors other keys.
    with library.writing():
        keys = library.keys()
        in_cells = not exact and len(keys) >= blocks.cells_from and min_cosine >= CELLS_COSINE
        find = cell_pairs if in_cells else near_pairs
        with progress("comparing", len(keys), "photos") as advance:
            pairs = find(library, keys, min_cosine, blocks, advance)
            members, clusters = find_clusters(pairs, len(keys), blocks.pairs)
        order = np.lexsort((members, -_pixel_counts(library, keys[members], blocks.columns), clusters))
        members, clusters = members[order], clusters[order]
        write_table(Path(out), HEADER, _table_rows(library, keys[members], clusters, blocks.rows))
        count = len(np.unique(clusters))
    near = f"{len(members)} in {pluralize(count, 'cluster')} that hang together by cosines of {min_cosine:g} or more"
    how = "compared within cells (--exact compares each with each)" if in_cells else "compared"
    print(f"{pluralize(len(keys), 'photo')} {how}: {near}, in {out}")


def find_clusters(
    near: Iterable[NDArray[np.int64]], count: int, limit: int = BLOCKS.pairs
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What hangs together by pairs of places, (p, 2) each, below `count`; `limit` pairs wait to be joined.

    Returns (m,) places that are in a cluster of at least two, and (m,) the cluster of each, from 1.
    """
    roots = np.arange(count)
    waiting: list[NDArray[np.int64]] = []
    for pairs in near:
        waiting.append(np.unique(np.sort(roots[pairs], axis=1), axis=0))
        if sum(map(len, waiting)) > limit:
            roots, waiting = _join_clusters(roots, waiting), []
    roots = _join_clusters(roots, waiting)
    counts = np.bincount(roots, minlength=count)
    members = np.flatnonzero(counts[roots] > 1)
    _, clusters = np.unique(roots[members], return_inverse=True)
    return members, clusters + 1


def near_pairs(
    library: Library, keys: Keys, min_cosine: float, blocks: BlockSizes, advance: Advance = lambda count: None
) -> Iterator[NDArray[np.int64]]:
    """(p, 2) places in `keys` of two descriptors whose cosine is at least that, block by block, each with each.

    `advance` is told how many photos are done.
    """
    for top in range(0, len(keys), blocks.rows):
        own = library.descriptors(keys[top : top + blocks.rows])
        for left in range(top, len(keys), blocks.columns):
            # The cosine of equal descriptors is 1 but for the last digits.
            others = library.descriptors(keys[left : left + blocks.columns])
            near = own @ others.T >= min_cosine - ROUNDING
            if left == top:
                # Each pair once, and no photo with itself.
                near[:, : len(own)] &= np.tri(len(own), k=-1, dtype=np.bool_).T
            pairs = np.argwhere(near)
            if len(pairs):
                yield pairs + np.array([top, left])
        advance(len(own))


def cell_pairs(
    library: Library, keys: Keys, min_cosine: float, blocks: BlockSizes, advance: Advance = lambda count: None
) -> Iterator[NDArray[np.int64]]:
    """As `near_pairs`, but for those of which neither has the other's cell among its nearest; some come twice."""
    cells = _nearest_cells(library, keys, blocks.columns)
    # Who looks into a cell, cell by cell; who is in it looks into it first.
    order = np.argsort(cells, axis=None, kind="stable")
    bounds = np.searchsorted(cells.ravel()[order], np.arange(cells.max() + 2))
    for first, last in pairwise(bounds.tolist()):
        places, ranks = np.divmod(order[first:last], cells.shape[1])
        own = places[ranks == 0]
        for members in (own[start : start + blocks.columns] for start in range(0, len(own), blocks.columns)):
            there = library.descriptors(keys[members])
            for looking in (places[start : start + blocks.rows] for start in range(0, len(places), blocks.rows)):
                near = np.argwhere(library.descriptors(keys[looking]) @ there.T >= min_cosine - ROUNDING)
                pairs = np.stack([looking[near[:, 0]], members[near[:, 1]]], 1)
                pairs = pairs[pairs[:, 0] != pairs[:, 1]]
                if len(pairs):
                    yield pairs
        advance(len(own))


def _nearest_cells(library: Library, keys: Keys, block: int) -> NDArray[np.int32]:
    """The nearest cells of each descriptor, (n, LOOKED_INTO), its own first."""
    import faiss

    count = round(math.sqrt(len(keys)))
    sample = np.random.default_rng(0).choice(len(keys), min(len(keys), ROWS_PER_CELL * count), replace=False)
    kmeans = faiss.Kmeans(
        library.identity["dim"],
        count,
        niter=ITERATIONS,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=ROWS_PER_CELL,
    )
    kmeans.train(library.descriptors(keys[np.sort(sample)]))
    parts = (library.descriptors(keys[start : start + block]) for start in range(0, len(keys), block))
    return np.concatenate([kmeans.index.search(part, min(LOOKED_INTO, count))[1].astype(np.int32) for part in parts])


def _join_clusters(roots: NDArray[np.int64], pairs: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Which cluster each place is in, once the clusters of each pair are one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return roots
    first, second = np.concatenate(pairs).T
    graph = coo_array((np.ones(len(first), np.bool_), (first, second)), shape=(len(roots), len(roots)))
    return connected_components(graph, directed=False)[1].astype(np.int64)[roots]


def _pixel_counts(library: Library, keys: Keys, block: int) -> NDArray[np.int64]:
    """How many pixels each photo has; 0 of one that is gone."""
    pixels = np.zeros(len(keys), np.int64)
    for start in range(0, len(keys), block):
        wanted = keys[start : start + block].tolist()
        photos = library.catalogue.photos(wanted)
        shapes = [photos[key].shape if key in photos else None for key in wanted]
        pixels[start : start + block] = [0 if shape is None else shape[0] * shape[1] for shape in shapes]
    return pixels


def _table_rows(
    library: Library, keys: Keys, clusters: NDArray[np.int64], block: int
) -> Iterator[tuple[int, str, str]]:
    firsts = keys[np.searchsorted(clusters, clusters)]
    for start in range(0, len(keys), block):
        part = slice(start, start + block)
        cosines = np.einsum("nd,nd->n", library.descriptors(keys[part]), library.descriptors(firsts[part]))
        photos = library.catalogue.photos(keys[part].tolist())
        for key, cluster, cosine in zip(keys[part].tolist(), clusters[part].tolist(), cosines.tolist(), strict=True):
            if key in photos:
                yield cluster, photos[key].name, f"{cosine:.4f}"
