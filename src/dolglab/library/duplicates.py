"""Near-duplicates in a library: photos whose descriptors are nearly the same, and what hangs together by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dolglab.errors import UserError, pluralize
from dolglab.library.command_options import write_table
from dolglab.library.library import Library

# Photos compared with so many others at a time: 4 million cosines.
ROWS, COLUMNS = 512, 8192
# Pairs that are kept before they are joined.
PAIRS = 1 << 20
ROUNDING = 1e-6
HEADER = ("cluster", "photo", "cosine")

Read = Callable[[NDArray[np.int64]], NDArray[np.float32]]


def write_duplicates(library: Library, out: str | Path, least: float) -> None:
    """Write the clusters of photos that hang together by cosines of at least `least`, compared each with each.

    In a cluster, which photos of one scene form too, the photo with the most pixels comes first, and every one has its
    cosine to that one. Prints how many there are. Raises UserError for a cosine that is none.
    """
    if not 0 < least <= 1:
        raise UserError(f"--least is a cosine above 0, at most 1, not {least}")
    # Meanwhile nobody gives the descriptors other keys.
    with library.writing():
        keys = library.keys()
        members, clusters = clusters_of(library.descriptors, keys, least)
        order = np.lexsort((members, -_pixels(library, keys[members]), clusters))
        members, clusters = members[order], clusters[order]
        write_table(Path(out), HEADER, _rows(library, keys[members], clusters))
        count = len(np.unique(clusters))
    near = f"{len(members)} in {pluralize(count, 'cluster')} that hang together by cosines of {least:g} or more"
    print(f"{pluralize(len(keys), 'photo')} compared: {near}, in {out}")


def clusters_of(read: Read, keys: NDArray[np.int64], least: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(m,) places in `keys` of what is in a cluster of at least two, and (m,) its cluster, from 1.

    `read` gives the descriptors of some keys. A few blocks of them are in memory at a time.
    """
    roots = np.arange(len(keys))
    waiting: list[NDArray[np.int64]] = []
    for pairs in _pairs(read, keys, least):
        waiting.append(np.unique(np.sort(roots[pairs], axis=1), axis=0))
        if sum(map(len, waiting)) > PAIRS:
            roots, waiting = _joined(roots, waiting), []
    roots = _joined(roots, waiting)
    counts = np.bincount(roots, minlength=len(keys))
    members = np.flatnonzero(counts[roots] > 1)
    _, clusters = np.unique(roots[members], return_inverse=True)
    return members, clusters + 1


def _pairs(read: Read, keys: NDArray[np.int64], least: float) -> Iterator[NDArray[np.int64]]:
    """(p, 2) places of two descriptors that are near, block by block."""
    for top in range(0, len(keys), ROWS):
        own = read(keys[top : top + ROWS])
        for left in range(top, len(keys), COLUMNS):
            # The cosine of equal descriptors is 1 but for the last digits.
            near = own @ read(keys[left : left + COLUMNS]).T >= least - ROUNDING
            if left == top:
                # Each pair once, and no photo with itself.
                near[:, : len(own)] &= np.tri(len(own), k=-1, dtype=np.bool_).T
            pairs = np.argwhere(near)
            if len(pairs):
                yield pairs + np.array([top, left])


def _joined(roots: NDArray[np.int64], pairs: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Which cluster each place is in, once the clusters of each pair are one."""
    if not pairs:
        return roots
    first, second = np.concatenate(pairs).T
    graph = coo_array((np.ones(len(first), np.bool_), (first, second)), shape=(len(roots), len(roots)))
    return connected_components(graph, directed=False)[1].astype(np.int64)[roots]


def _pixels(library: Library, keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many pixels each photo has; 0 of one that is gone."""
    pixels = np.zeros(len(keys), np.int64)
    for start in range(0, len(keys), COLUMNS):
        wanted = keys[start : start + COLUMNS].tolist()
        photos = library.catalogue.photos(wanted)
        shapes = [photos[key].shape if key in photos else None for key in wanted]
        pixels[start : start + COLUMNS] = [0 if shape is None else shape[0] * shape[1] for shape in shapes]
    return pixels


def _rows(library: Library, keys: NDArray[np.int64], clusters: NDArray[np.int64]) -> Iterator[tuple[int, str, str]]:
    firsts = keys[np.searchsorted(clusters, clusters)]
    for start in range(0, len(keys), ROWS):
        part = slice(start, start + ROWS)
        cosines = np.einsum("nd,nd->n", library.descriptors(keys[part]), library.descriptors(firsts[part]))
        photos = library.catalogue.photos(keys[part].tolist())
        for key, cluster, cosine in zip(keys[part].tolist(), clusters[part].tolist(), cosines.tolist(), strict=True):
            if key in photos:
                yield cluster, photos[key].name, f"{cosine:.4f}"
