"""Near-duplicates in a library: clusters of photos that are connected by high cosine similarity.

A large library is not compared pair by pair: k-means divides it into cells, and the photos of a cell are compared with
all photos that have this cell among their nearest.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError, pluralize
from dolglab.io import write_bytes
from dolglab.library.contents import Keys, Photo
from dolglab.library.library import Library
from dolglab.library.maintenance import write_table
from dolglab.progress import Advance, progress

ROUNDING = 1e-6
# Columns of the table; width and height are those of the file, empty if unknown.
HEADER = ("cluster", "photo", "cosine", "keep", "width", "height", "bytes")
# Number of clusters whose photos are looked up together.
CLUSTERS_AT_ONCE = 1000


class BlockSizes(NamedTuple):
    """How much is compared at a time.

    Attributes:
        rows, columns: descriptors that are compared with each other in one matrix product.
        pairs: pairs that are collected before clusters are joined.
        cells_from: number of photos from which cells are used.
    """

    rows: int = 512
    columns: int = 8192
    pairs: int = 1 << 20
    cells_from: int = 20_000


BLOCKS = BlockSizes()
# Number of cells in which each photo is searched for, and the smallest cosine for which that is enough.
LOOKED_INTO, CELLS_COSINE = 6, 0.8
# k-means: training photos per cell, and iterations.
ROWS_PER_CELL, ITERATIONS = 40, 10


class Duplicates(NamedTuple):
    """Clusters of near-duplicates, the most similar first; the photo to keep is the first of its cluster.

    Attributes:
        numbers: (m,) numbers of the photos in the library.
        clusters: (m,) cluster of each photo, from 1, ascending.
        cosines: (m,) cosine of each photo's descriptor and that of the photo to keep.
        least: the smallest cosine of two near-duplicates.
        compared: number of photos that were compared.
        in_cells: whether photos were compared only within cells.
    """

    numbers: NDArray[np.int64]
    clusters: NDArray[np.int64]
    cosines: NDArray[np.float32]
    least: float
    compared: int
    in_cells: bool

    @property
    def total(self) -> int:
        """Number of clusters."""
        return int(self.clusters[-1]) if len(self.clusters) else 0


class Member(NamedTuple):
    """A photo of a cluster, and the cosine of its descriptor and that of the photo to keep."""

    photo: Photo
    cosine: float


def write_duplicates(
    library: Library,
    out: str | Path,
    min_cosine: float,
    exact: bool = False,
    rest: str | Path | None = None,
    blocks: BlockSizes = BLOCKS,
) -> None:
    """Write the clusters of photos connected by cosine similarity of at least `min_cosine` as a table; print a summary.

    Different photos of one scene may form a cluster too. The photo to keep comes first in its cluster (see
    `find_duplicates`); each row has its cosine with that photo.

    Args:
        rest: a text file to write as well: the paths of the photos that need not be kept (see `rest_of`), one per line.

    Raises UserError like `find_duplicates`, and for a file that cannot be written.
    """
    # The lock prevents other processes from moving descriptors to other keys.
    with library.writing():
        with progress("comparing", len(library.keys()), "photos") as advance:
            found = find_duplicates(library, min_cosine, exact, blocks, advance)
        write_table(Path(out), HEADER, _table_rows(library, found))
        how = "compared within cells (--exact compares all pairs)" if found.in_cells else "compared"
        print(f"{pluralize(found.compared, 'photo')} {how}")
        clusters = (
            f"{pluralize(found.total, 'cluster')} of near-duplicates with {pluralize(len(found.numbers), 'photo')}"
        )
        print(f"{clusters}, connected by cosine similarity of at least {min_cosine:g}: {out}")
        if library.identity.get("adapter") is not None:
            print("the library is adapted, which changes cosines: choose --least by looking at the clusters")
        if rest is not None:
            others = [photo.name for _, photo in rest_of(library, found)]
            write_lines(Path(rest), others)
            print(f"{pluralize(len(others), 'photo')} need not be kept: each has a near-duplicate that is: {rest}")


def find_duplicates(
    library: Library,
    min_cosine: float,
    exact: bool = False,
    blocks: BlockSizes = BLOCKS,
    advance: Advance = lambda count: None,
) -> Duplicates:
    """The clusters of photos connected by cosine similarity of at least `min_cosine`.

    The photo to keep is one whose file exists; among these the one with the most pixels, then the largest file, then
    the oldest, then the first path. Pixels are those of the files. If they are unknown for a photo of the cluster,
    which an earlier version described, the sizes at which its photos were described are compared instead.

    Args:
        exact: compare all pairs, however many there are.
        advance: called with the number of photos that have been compared since the last call.

    Raises UserError for an invalid cosine, and if another process moves descriptors at the same time.
    """
    if not 0 < min_cosine <= 1:
        raise UserError(f"--least must be a cosine above 0 and at most 1, not {min_cosine}")
    keys = library.keys()
    in_cells = not exact and len(keys) >= blocks.cells_from and min_cosine >= CELLS_COSINE
    pairs = (cell_pairs if in_cells else near_pairs)(library, keys, min_cosine, blocks, advance)
    members, clusters = find_clusters(pairs, len(keys), blocks.pairs)
    photos = _photos(library, keys[members], blocks.columns)
    unmeasured = {cluster for cluster, photo in zip(clusters.tolist(), photos, strict=True) if photo.stored is None}
    ranks = [
        (cluster, _keep_rank(photo, cluster not in unmeasured))
        for cluster, photo in zip(clusters.tolist(), photos, strict=True)
    ]
    order = np.array(sorted(range(len(ranks)), key=ranks.__getitem__), np.int64)
    own, clusters = keys[members[order]], clusters[order]
    numbers = np.array([photos[place].id for place in order.tolist()], np.int64)
    cosines = _cosines_to_first(library, own, clusters, blocks.rows)
    order, clusters = _most_similar_first(clusters, cosines)
    return Duplicates(numbers[order], clusters, cosines[order], min_cosine, len(keys), in_cells)


def clusters_of(
    library: Library, found: Duplicates, first: int = 1, last: int | None = None
) -> Iterator[tuple[int, list[Member]]]:
    """Clusters `first` to `last` with the photos that are still in the library."""
    last = found.total if last is None else min(last, found.total)
    for start in range(first, last + 1, CLUSTERS_AT_ONCE):
        end = min(start + CLUSTERS_AT_ONCE - 1, last)
        part = slice(*np.searchsorted(found.clusters, (start, end + 1)).tolist())
        numbers = found.numbers[part].tolist()
        photos = {photo.id: photo for photo, _ in library.catalogue.find(numbers)}
        members: dict[int, list[Member]] = {cluster: [] for cluster in range(start, end + 1)}
        rows = zip(numbers, found.clusters[part].tolist(), found.cosines[part].tolist(), strict=True)
        for number, cluster, cosine in rows:
            if number in photos:
                members[cluster].append(Member(photos[number], cosine))
        yield from members.items()


def kept_of(
    members: Sequence[Member], least: float, keep: Collection[int | None] = (), drop: Collection[int | None] = ()
) -> set[int | None]:
    """Numbers of the photos of a cluster that are kept: at least one whose file exists, if there is any.

    These are the first photo and those connected with it only through others, with a cosine below `least`; the user
    may add photos (`keep`) and exclude some (`drop`).
    """
    there = [member for member in members if member.photo.there]
    numbers = [photo.id for photo, _ in there]
    linked = [photo.id for photo, cosine in there if cosine < least - ROUNDING]
    kept = {*numbers[:1], *linked, *(number for number in numbers if number in keep)}.difference(drop)
    return kept or set(numbers[:1])


def rest_of(
    library: Library, found: Duplicates, keep: Collection[int] = (), drop: Collection[int] = ()
) -> Iterator[tuple[int, Photo]]:
    """Photos that need not be kept, each with its cluster: their files exist, and that of a photo that is kept.

    `keep` and `drop` are as in `kept_of`.
    """
    for cluster, members in clusters_of(library, found):
        kept = kept_of(members, found.least, keep, drop)
        yield from ((cluster, photo) for photo, _ in members if photo.id not in kept and photo.there)


def write_lines(path: Path, names: Iterable[str]) -> None:
    """Write paths, one per line, with the bytes that they have on disk. Raises UserError if that fails."""
    try:
        write_bytes(path, b"".join(os.fsencode(name) + b"\n" for name in names))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def find_clusters(
    near: Iterable[NDArray[np.int64]], count: int, limit: int = BLOCKS.pairs
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The connected components of a graph of `count` nodes.

    Args:
        near: blocks of edges, (p, 2) nodes each.
        limit: edges that are collected before components are joined.

    Returns the (m,) nodes in a component of at least two, and the (m,) component of each, from 1.
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
    """All pairs of descriptors with at least this cosine, block by block: (p, 2) positions in `keys`."""
    for top in range(0, len(keys), blocks.rows):
        own = library.descriptors(keys[top : top + blocks.rows])
        for left in range(top, len(keys), blocks.columns):
            # The cosine of equal descriptors may be slightly below 1.
            others = library.descriptors(keys[left : left + blocks.columns])
            near = own @ others.T >= min_cosine - ROUNDING
            if left == top:
                # Each pair once, and no photo paired with itself.
                near[:, : len(own)] &= np.tri(len(own), k=-1, dtype=np.bool_).T
            pairs = np.argwhere(near)
            if len(pairs):
                yield pairs + np.array([top, left])
        advance(len(own))


def cell_pairs(
    library: Library, keys: Keys, min_cosine: float, blocks: BlockSizes, advance: Advance = lambda count: None
) -> Iterator[NDArray[np.int64]]:
    """As `near_pairs`, without pairs neither of which has the other's cell among its nearest; some occur twice."""
    cells = _nearest_cells(library, keys, blocks.columns)
    # For each cell the photos that have it among their nearest, with its rank: its own photos have rank 0.
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
    """The nearest cells of each descriptor, (n, at most LOOKED_INTO), its own first."""
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
    """The component of each node after the components of each pair have been joined."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return roots
    first, second = np.concatenate(pairs).T
    graph = coo_array((np.ones(len(first), np.bool_), (first, second)), shape=(len(roots), len(roots)))
    return connected_components(graph, directed=False)[1].astype(np.int64)[roots]


def _photos(library: Library, keys: Keys, block: int) -> list[Photo]:
    """The photos of descriptors. Raises UserError if another process removed one at the same time."""
    photos: list[Photo] = []
    for part in (keys[start : start + block].tolist() for start in range(0, len(keys), block)):
        there = library.catalogue.photos(part)
        if len(there) < len(part):
            raise UserError(f"{library.folder} was changed by another process: try again")
        photos += [there[key] for key in part]
    return photos


def _keep_rank(photo: Photo, by_file: bool) -> tuple[bool, int, int, int, str]:
    """The sort key whose minimum is the photo to keep, see `find_duplicates`.

    `by_file` compares pixels of the file instead of those at which the photo was described.
    """
    height, width = (photo.stored if by_file else photo.shape) or (0, 0)
    return not photo.there, -height * width, -photo.size, photo.changed, photo.name


def _cosines_to_first(library: Library, keys: Keys, clusters: NDArray[np.int64], block: int) -> NDArray[np.float32]:
    """(m,) cosines of descriptors and the first of their cluster; `clusters`, (m,), ascend."""
    firsts = keys[np.searchsorted(clusters, clusters)]
    cosines = np.empty(len(keys), np.float32)
    for part in (slice(start, start + block) for start in range(0, len(keys), block)):
        cosines[part] = np.einsum("nd,nd->n", library.descriptors(keys[part]), library.descriptors(firsts[part]))
    return cosines


def _most_similar_first(
    clusters: NDArray[np.int64], cosines: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order, (m,), that sorts clusters by their smallest cosine, descending, and their new numbers, (m,)."""
    starts = np.flatnonzero(np.diff(clusters, prepend=0))
    # Cosines of equal descriptors may be slightly below 1.
    least = np.round(np.minimum.reduceat(cosines, starts), 4) if len(starts) else cosines
    places = np.empty(len(starts), np.int64)
    places[np.argsort(-least, kind="stable")] = np.arange(len(starts))
    renumbered = places[clusters - 1] + 1
    order = np.argsort(renumbered, kind="stable")
    return order, renumbered[order]


def _table_rows(library: Library, found: Duplicates) -> Iterator[tuple[object, ...]]:
    for cluster, members in clusters_of(library, found):
        kept = kept_of(members, found.least)
        for photo, cosine in members:
            height, width = photo.stored or ("", "")
            keep = "yes" if photo.id in kept else "no"
            yield cluster, photo.name, f"{cosine:.4f}", keep, width, height, photo.size
