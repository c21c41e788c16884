"""Whitening of descriptors, learned from images or from matching pairs, and stored in a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import BoolArray, FloatArray, IntArray
from dolglab.errors import UserError
from dolglab.io import write_bytes
from dolglab.retrieval.large_arrays import assemble, l2_normalized, read_chunks, row_chunks

KINDS = ("pca", "supervised")
# What is subtracted before the projection: the mean of all images or, as in cirtorch's code, that of the first images
# of the matching pairs.
CENTRES = ("images", "pairs")
# Directions with less than this share of the largest variance are rounding errors of float32 descriptors.
SMALLEST = 1e-10


@dataclass(frozen=True, eq=False)
class Projection:
    """A learned whitening, x -> projection (x - mean), and its origin.

    `mean` is (D,), `projection` (d, D), both float64, directions of largest variance first; `centre` is the kind of
    `mean` (`CENTRES`); `name` and `digest` are those of the set it was learned on, `network` the fingerprint of the
    network, empty if unknown.
    """

    mean: NDArray[np.float64]
    projection: NDArray[np.float64]
    kind: str
    centre: str
    shrink: float
    name: str
    digest: str
    network: str = ""

    def __call__(self, descriptors: FloatArray) -> FloatArray:
        """Whiten descriptors, (N, D) to (N, d), L2-normalised; a row of zeros stays zeros."""
        whitened = l2_normalized((descriptors - self.mean) @ self.projection.T)
        whitened[~descriptors.any(axis=1)] = 0
        return whitened


class Whitening:
    """Whitens, shortens and again L2-normalises descriptors, by a matrix that is learned or read from a file.

    Args:
        kind: "pca" (Jegou and Chum, ECCV 2012), "supervised" (Radenovic et al., ECCV 2016, after Mikolajczyk and Matas,
            ICCV 2007), or None: the kind of the matrix and, without one, "pca".
        dim: number of dimensions that are kept, those of largest variance; None keeps all.
        matrix: a file written by `save`.
        shrink: how far the covariance is shrunk towards its mean variance when learning, 0 to 1. This keeps directions
            of small variance from being amplified.
        centre: what is subtracted first: the mean of all "images" or, if supervised, of the first images of the
            "pairs". The spread of all images is measured about the same point, as in cirtorch (Radenovic's code). None:
            as the matrix was centred and, without one, "images".

    `learned` is the projection, or None.

    Raises:
        UserError: for an unknown kind or centre, a `dim` or `shrink` out of range, and a matrix that is missing,
            damaged, of another kind or centre, or has fewer dimensions.
    """

    def __init__(
        self,
        kind: str | None = None,
        dim: int | None = None,
        matrix: str | Path | None = None,
        shrink: float = 0.0,
        centre: str | None = None,
    ) -> None:
        if kind not in (None, *KINDS):
            raise UserError(f"post.whitening.kind must be {' or '.join(KINDS)}, not {kind}")
        if dim is not None and dim < 1:
            raise UserError(f"post.whitening.dim must be at least 1, not {dim}")
        if not 0 <= shrink <= 1:
            raise UserError(f"post.whitening.shrink must be between 0 and 1, not {shrink}")
        if centre not in (None, *CENTRES):
            raise UserError(f"post.whitening.centre must be {' or '.join(CENTRES)}, not {centre}")
        self.dim = dim
        self.shrink = shrink
        self.learned = None if matrix is None else read_projection(Path(matrix), kind, dim)
        self.kind = self.learned.kind if self.learned else kind or "pca"
        self.centre = self.learned.centre if self.learned else centre or CENTRES[0]
        if centre not in (None, self.centre):
            raise UserError(f"{matrix} is centred on {self.centre}, not {centre}: leave post.whitening.centre out")
        if (self.kind, self.centre) == ("pca", "pairs"):
            raise UserError("post.whitening.centre=pairs needs post.whitening.kind=supervised")

    @property
    def learned_on(self) -> tuple[str, str] | None:
        """Name and digest of the set it was learned on."""
        return (self.learned.name, self.learned.digest) if self.learned else None

    def learn(self, descriptors: FloatArray, pairs: IntArray, name: str, digest: str, network: str = "") -> None:
        """Learn from a set of images of known name and digest; rows of zeros are left out, with their pairs.

        Args:
            descriptors: (N, D), L2-normalised.
            pairs: (P, 2) positions of matching images; used only by "supervised".
            name, digest: name and digest of the set.
            network: fingerprint of the network, if known.

        Raises:
            UserError: if `dim` exceeds the descriptors' dimensions, for too few images or pairs, and for descriptors
                that are not finite.
        """
        described = np.asarray(descriptors.any(axis=1))
        images = descriptors if described.all() else descriptors[described]
        dim = self.dim or images.shape[1]
        if dim > images.shape[1]:
            raise UserError(f"post.whitening.dim={dim} is more than the {images.shape[1]} the descriptors have")
        mean, covariance = moments(images)
        if not np.isfinite(covariance).all():
            raise UserError(f"a descriptor of {name} is not finite: the network returned NaN or infinity")
        if self.kind == "pca":
            projection = pca_projection(covariance, self.shrink)
            if len(projection) < dim:
                raise UserError(
                    f"the {len(images)} images of {name} span {len(projection)} of the {dim} dimensions wanted: learn "
                    f"on more, lower post.whitening.dim to what they span, or set post.whitening.shrink=0.1"
                )
        else:
            place = np.cumsum(described, dtype=np.int64) - 1
            matching = place[pairs[described[pairs].all(axis=1)]]
            if not len(matching):
                raise UserError(f"supervised whitening is learned from pairs that match, and {name} has none")
            if self.centre == "pairs":
                centre = images[matching[:, 0]].mean(0, dtype=np.float64)
                # About a point other than the mean, the spread is larger by the distance to the mean.
                covariance += np.outer(mean - centre, mean - centre)
                mean = centre
            projection = supervised_projection(covariance, pair_scatter(images, matching), self.shrink)
            if projection is None:
                raise UserError(
                    f"the {len(matching)} matching pairs of {name} do not differ in each of {images.shape[1]} "
                    f"dimensions: learn on more, or set post.whitening.shrink=0.1"
                )
        self.learned = Projection(
            mean, projection[:dim], self.kind, self.centre, float(self.shrink), name, digest, network
        )

    def __call__(
        self, gallery: FloatArray, queries: FloatArray, available: BoolArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Whiten gallery, (N, D), and queries, (Q, D), to (N, d) and (Q, d).

        Raises UserError if nothing was learned, and for descriptors of another length.
        """
        if self.learned is None:
            raise UserError(
                "whitening has no matrix yet: set post.whitening.matrix=FILE, or benchmark@learn_on=NAME to learn one"
            )
        dim, length = self.learned.projection.shape
        if gallery.shape[1] != length:
            raise UserError(
                f"the whitening learned on {self.learned.name} is for descriptors of {length} dimensions, these have "
                f"{gallery.shape[1]}: learn one on descriptors of this model"
            )
        whitened = assemble(len(gallery), dim, map(self.learned, read_chunks(gallery)))
        return whitened, self.learned(queries)

    def check_network(self, network: str) -> None:
        """Raise UserError if it was learned on descriptors of another network than the one with this fingerprint."""
        learned = self.learned
        if learned and learned.network and network and learned.network != network:
            raise UserError(
                f"the whitening learned on {learned.name} is for another network's descriptors: learn one for this "
                "network (benchmark@learn_on=NAME, and no post.whitening.matrix)"
            )

    def save(self, path: str | Path) -> Path:
        """Write the learned projection as safetensors: `mean`, `projection`, and their description as metadata."""
        from safetensors.numpy import save

        learned = self.learned
        if learned is None:
            raise UserError("whitening that was not learned cannot be saved")
        tensors = {"mean": learned.mean, "projection": np.ascontiguousarray(learned.projection)}
        metadata = {"kind": learned.kind, "dim": str(len(learned.projection)), "shrink": repr(learned.shrink)}
        metadata["centre"] = learned.centre
        origin = {"name": learned.name, "digest": learned.digest, "network": learned.network}
        return write_bytes(Path(path), save(tensors, metadata | origin))

    def config(self) -> dict[str, object]:
        if self.learned is None:
            return {"whitening": self.kind, "dim": self.dim, "learned_on": None}
        return {
            "whitening": self.kind,
            "dim": len(self.learned.projection),
            "centre": self.learned.centre,
            "learned_on": self.learned.name,
            "learned_on_digest": self.learned.digest,
            **({"shrink": self.learned.shrink} if self.learned.shrink else {}),
        }


def read_projection(path: Path, kind: str | None = None, dim: int | None = None) -> Projection:
    """Read a file of `Whitening.save`, reduced to `dim` dimensions.

    Raises UserError if it is missing, something else, of another kind, or has fewer dimensions.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"no whitening matrix at {path}: post.whitening.matrix names a file that this program saved")
    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            mean, projection = file.get_tensor("mean"), file.get_tensor("projection")
        origin = about["name"], about["digest"], about["network"]
        # Files of earlier versions do not state it: they are centred on all images.
        centre = about.get("centre", CENTRES[0])
        learned = Projection(mean, projection, about["kind"], centre, float(about["shrink"]), *origin)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged, or no whitening matrix ({type(error).__name__})") from error
    whole = mean.dtype == projection.dtype == np.float64 and projection.ndim == 2
    whole = whole and mean.shape == projection.shape[1:] and learned.kind in KINDS and centre in CENTRES
    if not (whole and np.isfinite(projection).all() and np.isfinite(mean).all()):
        raise UserError(f"{path} is damaged: it holds no finite mean and projection of one length")
    if kind not in (None, learned.kind):
        raise UserError(f"{path} holds {learned.kind} whitening, not {kind}: leave post.whitening.kind out")
    if dim is not None and dim > len(projection):
        raise UserError(f"{path} has {len(projection)} dimensions, fewer than post.whitening.dim={dim}")
    return replace(learned, projection=projection[:dim])


def moments(descriptors: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean, (D,), and covariance, (D, D), over N images."""
    count, dim = descriptors.shape
    chunks = list(row_chunks(count, dim))
    mean = np.zeros(dim)
    for rows in chunks:
        mean += descriptors[rows].sum(0, dtype=np.float64) / count
    covariance = np.zeros((dim, dim))
    for rows in chunks:
        centred = descriptors[rows] - mean
        covariance += centred.T @ centred / count
    return mean, covariance


def pair_scatter(descriptors: FloatArray, pairs: IntArray) -> NDArray[np.float64]:
    """Second moment of the differences between matching images, (D, D), over (P, 2) positions.

    By the graph's Laplacian L = degrees - adjacency, X^T L X: images are fewer than their pairs.
    """
    from scipy.sparse import csr_array, diags_array

    count, dim = descriptors.shape
    joined = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    joined = joined + joined.T
    laplacian = csr_array(diags_array(joined.sum(1)) - joined)
    total = np.zeros((dim, dim))
    for rows in row_chunks(count, dim):
        part = laplacian[rows]
        near = np.unique(part.indices)
        differences = part[:, near] @ descriptors[near].astype(np.float64)
        total += descriptors[rows].astype(np.float64).T @ differences / len(pairs)
    return total


def pca_projection(covariance: NDArray[np.float64], shrink: float) -> NDArray[np.float64]:
    """Principal directions divided by their deviations, (d, D), by variance; d < D if the rest does not vary."""
    variances, directions = _descending(_shrunk(covariance, shrink))
    usable = variances > SMALLEST * max(variances[0], SMALLEST)
    return directions[:, usable].T / np.sqrt(variances[usable, None])


def supervised_projection(
    covariance: NDArray[np.float64], differing: NDArray[np.float64], shrink: float
) -> NDArray[np.float64] | None:
    """Whitening of the differences of matching images, rotated to principal directions by variance, (D, D).

    `covariance` is that of all images about their centre. None if matching images do not differ in some direction. The
    paper (Radenovic et al., ECCV 2016) rotates to the directions of pairs that do not match; because nearly all pairs
    do not match, the covariance of all images is used instead.
    """
    differing = _shrunk(differing, shrink)
    variances = np.linalg.eigvalsh(differing)
    if variances[0] <= SMALLEST * max(variances[-1], SMALLEST):
        return None
    whitening = np.linalg.inv(np.linalg.cholesky(differing))
    _, directions = _descending(whitening @ covariance @ whitening.T)
    return directions.T @ whitening


def _shrunk(covariance: NDArray[np.float64], shrink: float) -> NDArray[np.float64]:
    """A covariance shrunk towards its mean variance in every direction (Ledoit and Wolf, 2004)."""
    dim = len(covariance)
    return (1 - shrink) * covariance + shrink * np.trace(covariance) / dim * np.eye(dim)


def _descending(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues, (D,), largest first, and eigenvectors in columns, (D, D)."""
    variances, directions = np.linalg.eigh(covariance)
    return variances[::-1], directions[:, ::-1]
