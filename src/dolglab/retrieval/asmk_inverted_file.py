"""Aggregated residuals of images, in one list per visual word, searched by the package asmk.

The package fills its inverted file in a Python loop over every entry; here entries are sorted, and the package receives
each list as a slice. asmk is imported only where it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import FloatArray, IntArray

# Descriptors aggregated at a time: enough for fast products with the centroids, a few dozen MB.
FEATURES_AT_ONCE = 32_768


class Entries(NamedTuple):
    """An aggregated vector (or its packed signs) for each image and word: positions, words, (n, width) vectors."""

    images: NDArray[np.integer]
    words: NDArray[np.integer]
    vectors: FloatArray | NDArray[np.uint32]


def aggregate(rows: FloatArray, owners: IntArray, words: IntArray, centroids: FloatArray, binary: bool) -> Entries:
    """Encoded sums of residuals, sorted by image, then word (Tolias et al., ICCV 2013; see `encode`).

    Args:
        rows: (n, D) descriptors, n > 0.
        owners: (n,) the image of each descriptor.
        words: (n, k) the words of each descriptor.
        centroids: (words, D).
        binary: keep only signs.
    """
    assigned = words.shape[1]
    key = np.repeat(owners, assigned) * len(centroids) + words.ravel()
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[order], prepend=-1))
    row, word = order // assigned, words.ravel()[order]
    residuals = rows[row]
    residuals -= centroids[word]
    return Entries(owners[row[first]], word[first], encode(run_sums(residuals, first), binary))


def run_sums(rows: FloatArray, first: IntArray) -> FloatArray:
    """Sums of the runs of rows that begin at `first`, added in order.

    Most runs are short, for which `np.add.reduceat` is many times slower.

    >>> run_sums(np.array([[1.0], [2.0], [5.0]], np.float32), np.array([0, 2])).tolist()
    [[3.0], [5.0]]
    """
    lengths = np.diff(first, append=len(rows))
    sums = rows[first]
    longer = np.flatnonzero(lengths > 1)
    step = 1
    while len(longer):
        sums[longer] += rows[first[longer] + step]
        step += 1
        longer = longer[lengths[longer] > step]
    return sums


def batches(images: Iterable[tuple[int, FloatArray]], features_at_once: int) -> Iterator[tuple[FloatArray, IntArray]]:
    """Descriptors of successive images in batches of at least `features_at_once`, with the image of each."""
    rows: list[FloatArray] = []
    owners: list[IntArray] = []
    held = 0
    for position, features in images:
        if not len(features):
            continue
        rows.append(features)
        owners.append(np.full(len(features), position, np.int64))
        held += len(features)
        if held >= features_at_once:
            yield np.concatenate(rows), np.concatenate(owners)
            rows, owners, held = [], [], 0
    if held:
        yield np.concatenate(rows), np.concatenate(owners)


def encode(sums: FloatArray, binary: bool) -> FloatArray | NDArray[np.uint32]:
    """The vectors to compare: signs packed into uint32 (n, D / 32), or L2-normalised vectors (n, D)."""
    if binary:
        from asmk.hamming import binarize_and_pack_2D

        return binarize_and_pack_2D(np.ascontiguousarray(sums))
    from asmk.functional import normalize_vec_l2

    return normalize_vec_l2(sums)


class InvertedFile:
    """For each word, the images with it and their vectors.

    Args:
        parts: entries in any order, with at most one entry per image and word.
        words: size of the codebook.
        width: number of columns of the vectors.
        binary, alpha, threshold: the package's kernel: a similarity u = 1 - 2 hamming / bits (or cosine) of at least
            the threshold counts as u^alpha, others as 0.
    """

    def __init__(
        self, parts: Iterable[Entries], words: int, width: int, binary: bool, alpha: float, threshold: float
    ) -> None:
        from asmk.inverted_file import IVF
        from asmk.kernel import ASMKKernel

        images, vectors, starts = sorted_by_word(parts, words, width, np.dtype(np.uint32 if binary else np.float32))
        self.count = int(images.max(initial=-1)) + 1
        norms = np.bincount(images, minlength=self.count).astype(np.float64)
        counts, idf = np.diff(starts).astype(np.int32), np.ones(words, np.float32)
        self.nbytes = sum(array.nbytes for array in (images, vectors, starts, norms, counts, idf))
        self._similarity = partial(
            ASMKKernel(None, binary=binary).similarity, alpha=alpha, similarity_threshold=threshold
        )
        self._ivf = IVF(
            norm_factor=norms,
            n_images=self.count,
            ivf_vecs=_WordLists(vectors, starts),
            ivf_image_ids=_WordLists(images, starts),
            counts=counts,
            idf=idf,
            imid_offset=0,
            use_idf=False,
        )

    def scores(self, words: NDArray[np.integer], vectors: FloatArray | NDArray[np.uint32]) -> FloatArray:
        """The score of each image for a query's words and vectors, (count,).

        This is the sum over common words, divided by the square roots of both images' numbers of words.
        """
        scores = np.zeros(self.count, np.float32)
        if len(words):
            images, found = self._ivf.search(vectors, words, similarity_func=self._similarity, topk=None)
            scores[images] = found
        return scores


def sorted_by_word(
    parts: Iterable[Entries], words: int, width: int, dtype: np.dtype
) -> tuple[NDArray[np.int32], NDArray, IntArray]:
    """Images (n,) and vectors (n, width) of all parts, sorted by word, and the start of each word, (words + 1,)."""
    held, counts = [], np.zeros(words, np.int64)
    for part in parts:
        held.append(part._replace(images=part.images.astype(np.int32), words=part.words.astype(np.int32)))
        counts += np.bincount(part.words, minlength=words)
    starts = np.concatenate([[0], np.cumsum(counts)])
    images, vectors = np.empty(starts[-1], np.int32), np.empty((starts[-1], width), dtype)
    free = starts[:-1].copy()
    # From the end, so that the memory of each part is freed at once.
    while held:
        part = held.pop()
        order = np.argsort(part.words, kind="stable")
        present, first, number = np.unique(part.words[order], return_index=True, return_counts=True)
        places = np.arange(len(order)) + np.repeat(free[present] - first, number)
        images[places], vectors[places] = part.images[order], part.vectors[order]
        free[present] += number
    return images, vectors, starts


class _WordLists:
    """The list of each word as a slice of sorted rows, made on access, so that there is no object per word."""

    def __init__(self, rows: NDArray, starts: IntArray) -> None:
        self.rows = rows
        self.starts = starts

    def __getitem__(self, word: np.integer) -> NDArray:
        return self.rows[self.starts[word] : self.starts[word + 1]]
