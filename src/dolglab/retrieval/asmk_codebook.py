"""A codebook of visual words for local descriptors: sampling, PCA, k-means, and its file.

faiss and safetensors are imported only where they are used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import FloatArray, IntArray
from dolglab.errors import UserError
from dolglab.io import write_bytes

# Automatic number of words: at least this many descriptors per word.
FEATURES_A_WORD, MOST_WORDS = 40, 65_536
# Rows processed at a time, since a float64 or projected copy of all rows would be large.
ROWS_AT_ONCE = 8192
# The metadata key that marks a file as a codebook.
METADATA_KEY = "asmk_codebook"


@dataclass(frozen=True)
class Origin:
    """How a codebook was learned: name and digest of the data set, number of descriptors, k-means iterations, seed."""

    name: str
    digest: str
    features: int
    iterations: int
    seed: int


@dataclass(frozen=True)
class Codebook:
    """Visual words: `centroids` (words, dim), after PCA with `mean` (D,) and `projection` (D, dim), unless None."""

    centroids: FloatArray
    mean: FloatArray | None
    projection: FloatArray | None
    origin: Origin

    @property
    def words(self) -> int:
        return len(self.centroids)

    @property
    def dim(self) -> int:
        """Dimensions of the centroids."""
        return self.centroids.shape[1]

    @property
    def input_dim(self) -> int:
        """Dimensions of the input descriptors."""
        return self.dim if self.projection is None else len(self.projection)

    def reduce(self, rows: NDArray[np.floating]) -> FloatArray:
        """Descriptors (n, D) to (n, dim) float32: unchanged, or after PCA and L2-normalised."""
        if self.mean is None or self.projection is None:
            return np.ascontiguousarray(rows, np.float32)
        return project(rows, self.mean, self.projection)

    def assign(self, rows: FloatArray, assignments: int) -> IntArray:
        """The nearest words of reduced descriptors, (n, min(assignments, words)), nearest first."""
        return self._index.search(rows, min(assignments, self.words))[1]

    @cached_property
    def _index(self) -> Any:
        import faiss

        index = faiss.IndexFlatL2(self.dim)
        index.add(self.centroids)
        return index

    def save(self, path: str | Path) -> Path:
        """Write the codebook as safetensors, with its origin as metadata."""
        from safetensors.numpy import save

        tensors = {"centroids": self.centroids}
        if self.mean is not None and self.projection is not None:
            tensors |= {"mean": self.mean, "projection": self.projection}
        return write_bytes(Path(path), save(tensors, metadata={METADATA_KEY: json.dumps(asdict(self.origin))}))


def load_codebook(path: str | Path) -> Codebook:
    """Read a file of `Codebook.save`. Raises UserError if it is missing, damaged, or another kind of file."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise UserError(f"codebook not found: {path}")
    try:
        with safe_open(path, framework="numpy") as stored:
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
            origin = Origin(**json.loads((stored.metadata() or {})[METADATA_KEY]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a codebook, or is damaged ({type(error).__name__})") from error
    mean, projection = tensors.get("mean"), tensors.get("projection")
    centroids = tensors.get("centroids", np.empty(0, np.float32))
    sound = centroids.ndim == 2 and centroids.size > 0 and (mean is None) == (projection is None)
    if mean is not None and projection is not None:
        sound = sound and mean.ndim == 1 and projection.shape == (len(mean), centroids.shape[1])
    if not sound or not all(value.dtype == np.float32 and np.isfinite(value).all() for value in tensors.values()):
        raise UserError(f"{path} is damaged: its arrays are inconsistent or not finite")
    return Codebook(centroids, mean, projection, origin)


def learn_codebook(
    rows: NDArray[np.floating], words: int | None, dim: int, iterations: int, seed: int, name: str, digest: str
) -> Codebook:
    """PCA to `dim` if descriptors (n, D) have more dimensions, then k-means.

    Args:
        rows: a sample of the descriptors of the data set `name`.
        words: number of words; None for `automatic_words`.

    Raises UserError if there are too few descriptors for the words or for PCA.
    """
    if words is not None and words > len(rows):
        raise UserError(
            f"at most {len(rows)} words from {len(rows)} features of {name}: "
            f"aggregate.words={len(rows)} or fewer, or null to choose by their number"
        )
    origin = Origin(name, digest, len(rows), iterations, seed)
    mean = projection = None
    if rows.shape[1] > dim:
        if len(rows) <= dim:
            raise UserError(f"{len(rows)} features of {name} are too few for PCA to {dim} dimensions (aggregate.dim)")
        mean, projection = pca(rows, dim)
        reduced = np.empty((len(rows), dim), np.float32)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            reduced[start : start + ROWS_AT_ONCE] = project(rows[start : start + ROWS_AT_ONCE], mean, projection)
        rows = reduced
    points = np.ascontiguousarray(rows, np.float32)
    return Codebook(kmeans(points, words or automatic_words(len(points)), iterations, seed), mean, projection, origin)


def automatic_words(features: int) -> int:
    """The largest power of two, at most 65,536, with at least 40 descriptors per word (at least 1).

    >>> automatic_words(1000)
    16
    """
    return min(MOST_WORDS, 1 << (max(1, features // FEATURES_A_WORD).bit_length() - 1))


def sample(arrays: Iterable[NDArray[np.floating]], limit: int, seed: int) -> NDArray[np.floating]:
    """A uniform sample of at most `limit` rows of a stream of (n, D) arrays (Vitter's algorithm R).

    Memory is that of the sampled rows, in their own dtype.
    Raises UserError for rows of different lengths, and if there are none.
    """
    rng = np.random.default_rng(seed)
    parts: list[NDArray[np.floating]] = []
    seen = 0
    for rows in arrays:
        if not len(rows):
            continue
        if parts and rows.shape[1] != parts[0].shape[1]:
            raise UserError(f"local descriptors have different dimensions: {parts[0].shape[1]} and {rows.shape[1]}")
        head = rows[: max(0, limit - seen)]
        if len(head):
            parts.append(np.array(head))
        later = rows[len(head) :]
        if len(later):
            if len(parts) > 1:
                parts = [np.concatenate(parts)]
            slots = rng.integers(0, np.arange(seen + len(head), seen + len(rows)) + 1)
            parts[0][slots[slots < limit]] = later[slots < limit]
        seen += len(rows)
    if not parts:
        raise UserError("there are no local features to learn a codebook from")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def pca(rows: NDArray[np.floating], dim: int) -> tuple[FloatArray, FloatArray]:
    """Mean (D,) and the first `dim` principal directions as columns (D, dim), each with its largest entry positive."""
    mean = rows.mean(0, dtype=np.float64)
    scatter = np.zeros((len(mean), len(mean)))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        centred = rows[start : start + ROWS_AT_ONCE] - mean
        scatter += centred.T @ centred
    directions = np.linalg.eigh(scatter)[1][:, : -dim - 1 : -1]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(0)[None], 0)
    return mean.astype(np.float32), np.ascontiguousarray(directions * np.sign(largest), np.float32)


def project(rows: NDArray[np.floating], mean: FloatArray, projection: FloatArray) -> FloatArray:
    """Project rows (n, D) and L2-normalise them, (n, dim) float32; a row equal to the mean becomes 0."""
    reduced = (rows.astype(np.float32) - mean) @ projection
    return reduced / np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-12)


def kmeans(points: FloatArray, words: int, iterations: int, seed: int) -> FloatArray:
    """Centroids (words, dim) of (n, dim) points, n >= words, with faiss; the seed selects the initial ones."""
    import faiss

    # Use every point, and prevent warnings of faiss on stderr.
    limits = {"min_points_per_centroid": 1, "max_points_per_centroid": len(points)}
    means = faiss.Kmeans(points.shape[1], words, niter=iterations, seed=seed, **limits)
    means.train(points)
    assert means.centroids is not None
    return means.centroids
