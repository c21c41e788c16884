"""Compute a map of a library from the principal axes of its descriptors, or by UMAP.

Descriptors are read in blocks, so that they need not all fit in memory.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError, pluralize
from dolglab.library.contents import Descriptors, Keys
from dolglab.library.library import Library
from dolglab.library.photo_map import PhotoMap, write_map
from dolglab.progress import progress
from dolglab.retrieval.large_arrays import CHUNK_BYTES, row_chunks

# For descriptors up to this length the whole covariance is computed (128 MB). For longer ones, the first axes are found
# by subspace iteration with this number of directions and of rounds at most, until the error is within the tolerance.
WHOLE_DIM, SUBSPACE, ROUNDS, TOLERANCE = 4096, 64, 50, 1e-6
# Variance of L2-normalised float32 descriptors below which it is rounding error.
ROUNDING = 1e-12
# UMAP's number of neighbours, and of principal axes that it is given.
NEIGHBOURS, REDUCED_DIM = 15, 50

Blocks = Callable[[str], Iterator[Descriptors]]
Layout = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Method(NamedTuple):
    """How a map is computed.

    Attributes:
        axes: number of principal axes.
        at_least: smallest number of photos.
        load: returns the layout, which maps coordinates on the axes, (n, axes), to the map, (n, 2).
        linear: whether the axes of the map are the principal axes.
    """

    axes: int
    at_least: int
    load: Callable[[], Layout]
    linear: bool


class Axes(NamedTuple):
    """Principal axes: the `mean`, (d,); unit `directions`, (d, k), and the `explained` share of the variance, (k,)."""

    mean: NDArray[np.float64]
    directions: NDArray[np.float64]
    explained: NDArray[np.float64]

    def project(self, descriptors: Descriptors) -> NDArray[np.float32]:
        """(n, d) to coordinates, (n, k)."""
        return ((descriptors - self.mean) @ self.directions).astype(np.float32)


def make_map(library: Library, method: str = "pca", block_bytes: int = CHUNK_BYTES) -> None:
    """Write the map of a library, and print the variance that its axes explain.

    Args:
        method: a name in `METHODS`.
        block_bytes: size of the blocks in which descriptors are read.

    Raises UserError for an unknown method, one that is not installed, and a library with too few photos.
    """
    if method not in METHODS:
        raise UserError(f"--method must be {' or '.join(METHODS)}, not {method}")
    how = METHODS[method]
    layout = how.load()
    # The lock prevents other processes from moving descriptors to other keys.
    with library.writing():
        described = library.catalogue.described()
        if len(described.keys) < how.at_least:
            few = pluralize(len(described.keys), "photo")
            raise UserError(f"{library.folder} has {few}: a map by {method} needs at least {how.at_least}")
        blocks = partial(_read_blocks, library, described.keys, block_bytes)
        axes = principal_axes(blocks, library.identity["dim"], how.axes)
        reduced = np.concatenate([axes.project(block) for block in blocks("coordinates")])
    # The layout may take long, so others may write meanwhile.
    coordinates = layout(reduced)
    order = np.argsort(described.ids)
    explained = tuple(axes.explained.tolist()) if how.linear else ()
    ids, changed = described.ids[order], described.changed[order]
    path = write_map(library.folder, PhotoMap(ids, changed, coordinates[order], method, explained, library.identity))
    print(f"map of {pluralize(len(ids), 'photo')} by {method}: {path}")
    if explained:
        shares = " and ".join(f"{100 * share:.1f} %" for share in explained)
        print(f"its axes explain {shares} of the variance of the descriptors")
    print(f"to see it: dolglab serve --library {library.folder}")


def principal_axes(blocks: Blocks, dim: int, count: int) -> Axes:
    """The first `count` principal axes of descriptors; if they have fewer dimensions, the last axes are zeros.

    The sign of each axis makes its largest component positive. Descriptors longer than `WHOLE_DIM` take several
    rounds of subspace iteration with Rayleigh-Ritz (Saad, Numerical Methods for Large Eigenvalue Problems, 2011,
    section 5.2).

    Args:
        blocks: yields all descriptors in blocks, (n, d) each; its argument labels the progress.
        dim: length of the descriptors, d.
        count: number of axes.
    """
    kept = min(count, dim)
    # None is the whole space.
    start = None if dim <= WHOLE_DIM else np.random.default_rng(0).normal(size=(dim, SUBSPACE))
    found = _approximate(blocks, dim, kept, start)
    for _ in range(ROUNDS):
        if found.error <= TOLERANCE * max(found.variances[0], ROUNDING):
            break
        found = _approximate(blocks, dim, kept, found.image)
    mean, total, variances, directions = found[:4]
    directions = directions * np.where(directions[np.abs(directions).argmax(0), np.arange(kept)] < 0, -1, 1)
    if total <= ROUNDING:
        # One photo, or equal ones: the variance is rounding error.
        return Axes(mean, np.zeros((dim, count)), np.zeros(count))
    explained = np.clip(variances / total, 0, 1)
    missing = count - kept
    return Axes(mean, np.pad(directions, ((0, 0), (0, missing))), np.pad(explained, (0, missing)))


class _Approximation(NamedTuple):
    """Principal directions within a subspace.

    Attributes:
        mean: (d,) mean of the descriptors.
        total: their total variance.
        variances: (k,) variances along the directions.
        directions: (d, k) unit vectors.
        image: (d, r) the covariance times the basis of the subspace.
        error: the largest component of the directions' residuals as eigenvectors of the covariance.
    """

    mean: NDArray[np.float64]
    total: float
    variances: NDArray[np.float64]
    directions: NDArray[np.float64]
    image: NDArray[np.float64]
    error: float


def _approximate(blocks: Blocks, dim: int, kept: int, subspace: NDArray[np.float64] | None) -> _Approximation:
    """The first `kept` directions within the span of the columns of `subspace`, (d, r); None is the whole space."""
    basis = None if subspace is None else np.linalg.qr(subspace)[0]
    count, square, mean = 0, 0.0, np.zeros(dim)
    image = np.zeros((dim, dim if basis is None else basis.shape[1]))
    for block in blocks("principal axes"):
        rows = block.astype(np.float64)
        count += len(rows)
        square += float(np.vdot(rows, rows))
        mean += rows.sum(0)
        image += rows.T @ (rows if basis is None else rows @ basis)
    mean /= count
    image = image / count - np.outer(mean, mean if basis is None else mean @ basis)
    total = square / count - float(mean @ mean)
    inner = image if basis is None else basis.T @ image
    variances, vectors = np.linalg.eigh((inner + inner.T) / 2)
    variances, vectors = variances[::-1][:kept], vectors[:, ::-1][:, :kept]
    if basis is None:
        return _Approximation(mean, total, variances, vectors, image, 0.0)
    directions = basis @ vectors
    error = float(np.abs(image @ vectors - directions * variances).max())
    return _Approximation(mean, total, variances, directions, image, error)


def _read_blocks(library: Library, keys: Keys, block_bytes: int, what: str) -> Iterator[Descriptors]:
    """The descriptors with these keys in blocks; `what` labels the progress."""
    with progress(what, len(keys), "photos") as advance:
        for rows in row_chunks(len(keys), library.identity["dim"], block_bytes):
            yield library.descriptors(keys[rows])
            advance(rows.stop - rows.start)


def _load_pca() -> Layout:
    return lambda reduced: reduced


def _load_umap() -> Layout:
    """UMAP (McInnes et al., 2018) in one thread, so that its layout is reproducible."""
    try:
        # It warns that TensorFlow is missing, for a part that is not used here.
        with warnings.catch_warnings(action="ignore"):
            from umap import UMAP  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("--method umap needs umap-learn: pip install 'dolglab[umap]'") from None

    def layout(reduced: NDArray[np.float32]) -> NDArray[np.float32]:
        neighbours = min(NEIGHBOURS, len(reduced) - 1)
        # Its progress goes to standard output otherwise.
        with redirect_stdout(sys.stderr):
            umap = UMAP(n_neighbors=neighbours, random_state=0, n_jobs=1, verbose=sys.stderr.isatty())
            return np.asarray(umap.fit_transform(reduced), np.float32)

    return layout


METHODS = {"pca": Method(2, 1, _load_pca, True), "umap": Method(REDUCED_DIM, 2 * NEIGHBOURS, _load_umap, False)}
