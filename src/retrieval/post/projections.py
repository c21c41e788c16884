"""The mathematics of whitening, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from src.retrieval.post.rows import chunks

# What varies less than this share of the direction that varies most is rounding in float32 descriptors.
SMALLEST = 1e-10


def moments(descriptors: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean, (D,), and covariance, (D, D), over N images."""
    count, dim = descriptors.shape
    parts = list(chunks(count, dim))
    mean = np.zeros(dim)
    for rows in parts:
        mean += descriptors[rows].sum(0, dtype=np.float64) / count
    covariance = np.zeros((dim, dim))
    for rows in parts:
        centred = descriptors[rows] - mean
        covariance += centred.T @ centred / count
    return mean, covariance


def scatter(descriptors: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Second moment of the differences between matching images, (D, D), over (P, 2) positions.

    By the graph's Laplacian L = degrees - adjacency, X^T L X: images are fewer than their pairs.
    """
    from scipy.sparse import csr_array, diags_array

    count, dim = descriptors.shape
    joined = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    joined = joined + joined.T
    laplacian = csr_array(diags_array(joined.sum(1)) - joined)
    total = np.zeros((dim, dim))
    for rows in chunks(count, dim):
        part = laplacian[rows]
        near = np.unique(part.indices)
        differences = part[:, near] @ descriptors[near].astype(np.float64)
        total += descriptors[rows].astype(np.float64).T @ differences / len(pairs)
    return total


def pca_projection(covariance: NDArray[np.float64], shrink: float) -> NDArray[np.float64]:
    """Principal directions over their deviations, (d, D), most varying first; d < D where the rest does not vary."""
    variances, directions = _descending(_shrunk(covariance, shrink))
    usable = variances > SMALLEST * max(variances[0], SMALLEST)
    return directions[:, usable].T / np.sqrt(variances[usable, None])


def supervised_projection(
    covariance: NDArray[np.float64], differing: NDArray[np.float64], shrink: float
) -> NDArray[np.float64] | None:
    """What whitens the differences of matching images, turned to principal directions, (D, D); most varying first.

    None where some direction has no difference to whiten. The paper (Radenovic et al., ECCV 2016) turns it to the
    directions of pairs that do not match. As nearly all pairs do not, the covariance of all images stands for theirs.
    """
    differing = _shrunk(differing, shrink)
    variances = np.linalg.eigvalsh(differing)
    if variances[0] <= SMALLEST * max(variances[-1], SMALLEST):
        return None
    whitening = np.linalg.inv(np.linalg.cholesky(differing))
    _, directions = _descending(whitening @ covariance @ whitening.T)
    return directions.T @ whitening


def _shrunk(covariance: NDArray[np.float64], shrink: float) -> NDArray[np.float64]:
    """A covariance drawn towards its mean variance in every direction (Ledoit and Wolf, 2004)."""
    dim = len(covariance)
    return (1 - shrink) * covariance + shrink * np.trace(covariance) / dim * np.eye(dim)


def _descending(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues, (D,), largest first, and eigenvectors in columns, (D, D)."""
    variances, directions = np.linalg.eigh(covariance)
    return variances[::-1], directions[:, ::-1]
