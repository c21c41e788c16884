"""Near-duplicates in a library: photos whose descriptors are nearly the same, and what hangs together by them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError, pluralize
from dolglab.library.contents import Keys
from dolglab.library.library import Library
from dolglab.library.maintenance import write_table

ROUNDING = 1e-6
HEADER = ("cluster", "photo", "cosine")


class BlockSizes(NamedTuple):
    """`rows` descriptors are compared with `columns` others at a time; `pairs` of near ones wait to be joined."""

    rows: int = 512
    columns: int = 8192
    pairs: int = 1 << 20


BLOCKS = BlockSizes()


def write_duplicates(library: Library, out: str | Path, min_cosine: float, blocks: BlockSizes = BLOCKS) -> None:
    """Write the clusters of photos that hang together by cosines of at least `min_cosine`, compared each with each.

    In a cluster, which photos of one scene form too, the photo with the most pixels comes first, and every one has its
    cosine to that one. Prints how many there are. Raises UserError for a cosine that is none.
    """
    if not 0 < min_cosine <= 1:
        raise UserError(f"--least is a cosine above 0, at most 1, not {min_cosine}")
    # Meanwhile nobody gives the descriptors other keys.
    with library.writing():
        keys = library.keys()
        members, clusters = find_clusters(library, keys, min_cosine, blocks)
        order = np.lexsort((members, -_pixel_counts(library, keys[members], blocks.columns), clusters))
        members, clusters = members[order], clusters[order]
        write_table(Path(out), HEADER, _table_rows(library, keys[members], clusters, blocks.rows))
        count = len(np.unique(clusters))
    near = f"{len(members)} in {pluralize(count, 'cluster')} that hang together by cosines of {min_cosine:g} or more"
    print(f"{pluralize(len(keys), 'photo')} compared: {near}, in {out}")


def find_clusters(
    library: Library, keys: Keys, min_cosine: float, blocks: BlockSizes
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(m,) places in `keys` of what is in a cluster of at least two, and (m,) its cluster, from 1.

    A few blocks of descriptors are in memory at a time.
    """
    roots = np.arange(len(keys))
    waiting: list[NDArray[np.int64]] = []
    for pairs in _near_pairs(library, keys, min_cosine, blocks):
        waiting.append(np.unique(np.sort(roots[pairs], axis=1), axis=0))
        if sum(map(len, waiting)) > blocks.pairs:
            roots, waiting = _join_clusters(roots, waiting), []
    roots = _join_clusters(roots, waiting)
    counts = np.bincount(roots, minlength=len(keys))
    members = np.flatnonzero(counts[roots] > 1)
    _, clusters = np.unique(roots[members], return_inverse=True)
    return members, clusters + 1


def _near_pairs(library: Library, keys: Keys, min_cosine: float, blocks: BlockSizes) -> Iterator[NDArray[np.int64]]:
    """(p, 2) places of two descriptors that are near, block by block."""
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
