"""Near-duplicates in a library: photos whose descriptors are nearly the same, and what hangs together by them.

Of many photos not each is compared with each: k-means parts them into cells, and those of a cell are compared with all
that have it among their nearest.
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
# Of the table; pixels are the file's, empty where they are not known.
HEADER = ("cluster", "photo", "cosine", "keep", "width", "height", "bytes")
# Clusters whose photos are looked up together.
CLUSTERS_AT_ONCE = 1000


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


class Duplicates(NamedTuple):
    """Clusters of near-duplicates, the surest first; in each, the photo to keep comes first.

    Attributes:
        numbers: (m,) of the photos in the library.
        clusters: (m,) the cluster of each, from 1, ascending.
        cosines: (m,) of each photo's descriptor and that of the one to keep.
        least: the cosine from which on two photos are near-duplicates.
        compared: how many photos were compared.
        in_cells: whether only those of like cells were.
    """

    numbers: NDArray[np.int64]
    clusters: NDArray[np.int64]
    cosines: NDArray[np.float32]
    least: float
    compared: int
    in_cells: bool

    @property
    def total(self) -> int:
        """How many clusters there are."""
        return int(self.clusters[-1]) if len(self.clusters) else 0


class Member(NamedTuple):
    """A photo of a cluster, and the cosine of its descriptor and that of the one to keep."""

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
    """Write the clusters of photos that hang together by cosines of at least `min_cosine`, as a table.

    In a cluster, which photos of one scene form too, the photo to keep comes first, see `find_duplicates`, and every
    one has its cosine to that one. `rest` is a text to write besides: the paths of those that are not kept, one a line,
    see `rest_of`. Prints how many there are. Raises UserError as `find_duplicates`, and for a file that cannot be
    written.
    """
    # Meanwhile nobody gives the descriptors other keys.
    with library.writing():
        with progress("comparing", len(library.keys()), "photos") as advance:
            found = find_duplicates(library, min_cosine, exact, blocks, advance)
        write_table(Path(out), HEADER, _table_rows(library, found))
        near = f"{len(found.numbers)} in {pluralize(found.total, 'cluster')} that hang together by cosines of"
        how = "compared within cells (--exact compares each with each)" if found.in_cells else "compared"
        print(f"{pluralize(found.compared, 'photo')} {how}: {near} {min_cosine:g} or more, in {out}")
        if rest is not None:
            others = [photo.name for _, photo in rest_of(library, found)]
            write_lines(Path(rest), others)
            print(f"{pluralize(len(others), 'photo')} that need not be kept: {rest}")


def find_duplicates(
    library: Library,
    min_cosine: float,
    exact: bool = False,
    blocks: BlockSizes = BLOCKS,
    advance: Advance = lambda count: None,
) -> Duplicates:
    """The clusters of photos that hang together by cosines of at least `min_cosine`.

    The photo to keep is one whose file is there; of these that with the most pixels, then the largest file, then the
    one that was changed first, then the first path. Pixels are those of the files, or, where one of a cluster was
    described before these were noted, those that its photos were described at.

    Args:
        exact: each photo is compared with each, however many there are.
        advance: told how many more photos have been compared.

    Raises UserError for a cosine that is none, and where another process moves descriptors meanwhile.
    """
    if not 0 < min_cosine <= 1:
        raise UserError(f"--least is a cosine above 0, at most 1, not {min_cosine}")
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
    order, clusters = _surest_first(clusters, cosines)
    return Duplicates(numbers[order], clusters, cosines[order], min_cosine, len(keys), in_cells)


def clusters_of(
    library: Library, found: Duplicates, first: int = 1, last: int | None = None
) -> Iterator[tuple[int, list[Member]]]:
    """Clusters from the `first` to the `last`, of the photos that are still in the library."""
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
    """Numbers of the photos of a cluster that are kept: one whose file is there at least, if any is.

    The first, those that hang together with it only by way of others, their cosine being below `least`, and what a
    person said: photos to `keep` besides, and not to keep (`drop`).
    """
    there = [member for member in members if member.photo.there]
    numbers = [photo.id for photo, _ in there]
    ruled = [photo.id for photo, cosine in there if cosine < least - ROUNDING]
    kept = {*numbers[:1], *ruled, *(number for number in numbers if number in keep)}.difference(drop)
    return kept or set(numbers[:1])


def rest_of(
    library: Library, found: Duplicates, keep: Collection[int] = (), drop: Collection[int] = ()
) -> Iterator[tuple[int, Photo]]:
    """Photos that need not be kept, each with its cluster: their files are there, and so is that of one that is kept.

    `keep` and `drop` are as for `kept_of`.
    """
    for cluster, members in clusters_of(library, found):
        kept = kept_of(members, found.least, keep, drop)
        yield from ((cluster, photo) for photo, _ in members if photo.id not in kept and photo.there)


def write_lines(path: Path, names: Iterable[str]) -> None:
    """Write paths, one a line, as the very bytes that they have on disk. Raises UserError where that cannot be."""
    try:
        write_bytes(path, b"".join(os.fsencode(name) + b"\n" for name in names))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


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
    """(p, 2) places in `keys` of two descriptors whose cosine is at least that, block by block, each with each."""
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


def _photos(library: Library, keys: Keys, block: int) -> list[Photo]:
    """The photos of descriptors. Raises UserError for one that another process took out meanwhile."""
    photos: list[Photo] = []
    for part in (keys[start : start + block].tolist() for start in range(0, len(keys), block)):
        there = library.catalogue.photos(part)
        if len(there) < len(part):
            raise UserError(f"{library.folder} was changed meanwhile: try again")
        photos += [there[key] for key in part]
    return photos


def _keep_rank(photo: Photo, by_file: bool) -> tuple[bool, int, int, int, str]:
    """What the photo to keep has the least of, see `find_duplicates`; pixels are the file's, or those described."""
    height, width = (photo.stored if by_file else photo.shape) or (0, 0)
    return not photo.there, -height * width, -photo.size, photo.changed, photo.name


def _cosines_to_first(library: Library, keys: Keys, clusters: NDArray[np.int64], block: int) -> NDArray[np.float32]:
    """(m,) cosines of descriptors and that of the first of their cluster, of (m,) ascending ones."""
    firsts = keys[np.searchsorted(clusters, clusters)]
    cosines = np.empty(len(keys), np.float32)
    for part in (slice(start, start + block) for start in range(0, len(keys), block)):
        cosines[part] = np.einsum("nd,nd->n", library.descriptors(keys[part]), library.descriptors(firsts[part]))
    return cosines


def _surest_first(
    clusters: NDArray[np.int64], cosines: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """An order of places, (m,), by which clusters whose least cosine is highest come first, and their new numbers."""
    starts = np.flatnonzero(np.diff(clusters, prepend=0))
    # Of equal descriptors too some cosines are not quite 1.
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
