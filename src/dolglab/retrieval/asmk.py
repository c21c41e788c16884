"""Aggregated selective match kernels over local features (Tolias, Avrithis and Jegou, ICCV 2013 and IJCV 2016)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import FloatArray, IntArray
from dolglab.errors import UserError
from dolglab.retrieval.asmk_codebook import Codebook, learn_codebook, load_codebook, sample
from dolglab.retrieval.asmk_inverted_file import FEATURES_AT_ONCE, Entries, InvertedFile, aggregate, batches

# Binary codes are packed into words of this many bits.
BITS = 32


@dataclass(eq=False)
class ASMK:
    """Scores images by their local features, aggregated per visual word.

    The residuals of descriptors to their nearest word are summed over the image and binarised. The score of two images
    is the sum, over common words whose similarity u = 1 - 2 hamming / bits reaches the threshold, of u^alpha, divided
    by the square root of the product of their numbers of words. The definitions are those of the package asmk (Tolias
    et al., ECCV 2020): no idf weights, one word per gallery descriptor, several per query descriptor.

    Args:
        words: size of the codebook; None for a power of two up to 65,536 with at least 40 descriptors per word.
        dim: number of dimensions after PCA, if descriptors have more; None for no PCA. For binary codes the number of
            dimensions is rounded down to a multiple of 32.
        assignments: number of nearest words of a query descriptor.
        alpha: exponent of the selectivity function.
        threshold: smallest similarity that counts, in [0, 1).
        iterations: iterations of k-means.
        training_features: number of descriptors for PCA and k-means, which are held in memory.
        seed: seed of the sample and of k-means.
        codebook: a file written by `save`, to use instead of learning a codebook.
        binary: compare signs (ASMK*) instead of vectors.

    `learned` is the codebook, or None.

    Raises:
        UserError: for a setting out of range, a missing package, and a codebook file that is missing, damaged or of
            another size than requested.
    """

    words: int | None = None
    dim: int | None = 128
    assignments: int = 5
    alpha: float = 3.0
    threshold: float = 0.0
    iterations: int = 10
    training_features: int = 2_621_440
    seed: int = 0
    codebook: str | Path | None = None
    binary: bool = True

    def __post_init__(self) -> None:
        try:
            import asmk  # noqa: F401
        except ModuleNotFoundError:
            raise UserError("aggregate=asmk needs its package: pip install 'dolglab[asmk]'") from None
        self._check_settings()
        self.learned: Codebook | None = None if self.codebook is None else self._load(self.codebook)
        self._inverted_file: InvertedFile | None = None
        self._images = 0

    @property
    def learned_on(self) -> tuple[str, str] | None:
        """Name and digest of the set that the codebook was learned on; None without a codebook."""
        return None if self.learned is None else (self.learned.origin.name, self.learned.origin.digest)

    def learn(self, features: Iterable[NDArray[np.floating]], name: str, digest: str) -> None:
        """Learn PCA and codebook from the local descriptors of another set's images, one (n, D) array per image.

        Raises UserError for descriptors that are too few, not finite, of several lengths, or of a length that does not
        allow binary codes.
        """
        checked = (_finite(rows, f"image {i} of {name}") for i, rows in enumerate(features))
        rows = sample(checked, self.training_features, self.seed)
        dim = reduced_dim(rows.shape[1], self.dim, self.binary)
        self.learned = learn_codebook(rows, self.words, dim, self.iterations, self.seed, name, digest)
        self._inverted_file = None

    def save(self, path: str | Path) -> Path:
        """Write PCA, codebook and their origin as safetensors, for `codebook=FILE`."""
        return self._codebook().save(path)

    def build(
        self, images: Iterable[tuple[int, NDArray[np.floating]]], features_at_once: int = FEATURES_AT_ONCE
    ) -> None:
        """Build the inverted file of a gallery from pairs of a position and its (n, D) local descriptors; n may be 0.

        Images are read one after another; while lists are sorted, memory is 2.2 times the inverted file.
        Raises UserError for descriptors of another length than the codebook's, and for values that are not finite.
        """
        codebook = self._codebook()
        positions = array("q")

        def reduced() -> Iterator[tuple[int, FloatArray]]:
            for position, rows in images:
                positions.append(position)
                yield position, self._reduced(rows, f"gallery image {position}")

        parts = (self._aggregated(rows, owners, 1) for rows, owners in batches(reduced(), features_at_once))
        width = codebook.dim // BITS if self.binary else codebook.dim
        inverted_file = InvertedFile(parts, codebook.words, width, self.binary, self.alpha, self.threshold)
        if len(np.unique(positions)) < len(positions):
            raise ValueError("a gallery position comes twice")
        self._inverted_file, self._images = inverted_file, len(positions)

    @property
    def bytes_per_image(self) -> float:
        """Mean size of a gallery image in the inverted file, in bytes, without PCA and codebook."""
        return self._built().nbytes / max(1, self._images)

    def search(self, features: NDArray[np.floating]) -> tuple[IntArray, FloatArray]:
        """Gallery positions with a score above 0, best first, and their scores; ties are in gallery order.

        `features` are a query's local descriptors, (n, D). Raises UserError like `build`.
        """
        inverted_file = self._built()
        rows = self._reduced(features, "the query")
        if not len(rows):
            return np.empty(0, np.int64), np.empty(0, np.float32)
        query = self._aggregated(rows, np.zeros(len(rows), np.int64), self.assignments)
        scores = inverted_file.scores(query.words, query.vectors)
        listed = np.flatnonzero(scores)
        positions = listed[np.argsort(-scores[listed], kind="stable")]
        return positions, scores[positions]

    def rank(self, features: NDArray[np.floating], count: int) -> tuple[IntArray, FloatArray]:
        """All `count` gallery positions, best first, and their scores; those without a score are last."""
        found, scores = self.search(features)
        others = np.ones(count, np.bool_)
        others[found] = False
        return (
            np.concatenate([found, np.flatnonzero(others)]),
            np.concatenate([scores, np.zeros(count - len(found), np.float32)]),
        )

    def config(self) -> dict[str, object]:
        """The description for result cards; words, dimensions and origin only if there is a codebook."""
        settings = ("words", "dim", "assignments", "alpha", "threshold", "binary")
        about: dict[str, object] = {"aggregate": "asmk", **{name: getattr(self, name) for name in settings}}
        if self.learned is not None:
            origin = self.learned.origin
            sizes = {"words": self.learned.words, "dim": self.learned.dim, "descriptor_dim": self.learned.input_dim}
            source = {"learned_on": origin.name, "learned_digest": origin.digest, "learned_features": origin.features}
            about |= {**sizes, **source, "iterations": origin.iterations, "seed": origin.seed}
        return about

    def _load(self, path: str | Path) -> Codebook:
        codebook = load_codebook(path)
        if self.words not in (None, codebook.words):
            raise UserError(f"{path} has {codebook.words} words: aggregate.words={codebook.words} or null")
        if codebook.dim != reduced_dim(codebook.input_dim, self.dim, self.binary):
            raise UserError(
                f"{path} has {codebook.dim} dimensions of {codebook.input_dim}, "
                f"which aggregate.dim={self.dim} aggregate.binary={self.binary} does not give"
            )
        return codebook

    def _reduced(self, rows: NDArray[np.floating], whose: str) -> FloatArray:
        """Descriptors as the codebook takes them."""
        codebook = self._codebook()
        if not len(rows):
            return np.empty((0, codebook.dim), np.float32)
        if rows.shape[1] != codebook.input_dim:
            raise UserError(
                f"local descriptors of {whose} have {rows.shape[1]} dimensions, and the codebook learned on "
                f"{codebook.origin.name} takes {codebook.input_dim}"
            )
        return codebook.reduce(_finite(rows, whose))

    def _aggregated(self, rows: FloatArray, owners: IntArray, assignments: int) -> Entries:
        codebook = self._codebook()
        return aggregate(rows, owners, codebook.assign(rows, assignments), codebook.centroids, self.binary)

    def _codebook(self) -> Codebook:
        if self.learned is None:
            raise RuntimeError("learn a codebook first, or give one")
        return self.learned

    def _built(self) -> InvertedFile:
        if self._inverted_file is None:
            raise RuntimeError("build the inverted file before searching it")
        return self._inverted_file

    def _check_settings(self) -> None:
        """Raise UserError naming a setting that is out of its range."""
        for name in ("assignments", "iterations", "training_features", "words", "dim"):
            value = getattr(self, name)
            if not _is_whole(value, 1) and not (value is None and name in ("words", "dim")):
                raise UserError(f"aggregate.{name} must be a whole number above 0, not {value}")
        if not _is_whole(self.seed, 0):
            raise UserError(f"aggregate.seed must be a whole number from 0 to {2**31 - 1}, not {self.seed}")
        if not isinstance(self.alpha, int | float) or not 0 < self.alpha < float("inf"):
            raise UserError(f"aggregate.alpha must be a number above 0, not {self.alpha}")
        if not isinstance(self.threshold, int | float) or not 0 <= self.threshold < 1:
            raise UserError(f"aggregate.threshold must be a number in [0, 1), not {self.threshold}")
        if not isinstance(self.binary, bool):
            raise UserError(f"aggregate.binary must be true or false, not {self.binary}")
        if self.binary and self.dim is not None and self.dim % BITS:
            raise UserError(f"aggregate.dim={self.dim} is no multiple of {BITS}, which binary codes need")


def reduced_dim(given: int, dim: int | None, binary: bool) -> int:
    """The number of dimensions after PCA, from `given`. Raises UserError if it does not allow binary codes.

    >>> reduced_dim(1000, dim=None, binary=False), reduced_dim(1000, dim=2000, binary=True)
    (1000, 992)
    """
    if not binary:
        return min(given, dim or given)
    whole = given - given % BITS
    if not whole:
        raise UserError(f"binary codes need at least {BITS} dimensions, not {given}: aggregate.binary=false")
    if dim is None and whole < given:
        raise UserError(
            f"binary codes need a multiple of {BITS} dimensions, not {given}: "
            f"aggregate.dim={whole} or aggregate.binary=false"
        )
    return min(whole, dim or whole)


def _is_whole(value: object, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and minimum <= value < 2**31


def _finite(rows: NDArray[np.floating], whose: str) -> NDArray[np.floating]:
    """The descriptors. Raises UserError for NaN or infinite values."""
    if not np.isfinite(rows).all():
        raise UserError(f"a local descriptor of {whose} is not finite")
    return rows
