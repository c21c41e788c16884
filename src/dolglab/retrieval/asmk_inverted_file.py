"""Aggregated residuals of images, in a list for each visual word, searched by the package asmk.

The package fills its own inverted file by a Python loop over every entry; here it is filled by sorting, and the package
gets each list as a slice. asmk is imported only where it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import FloatArray, IntArray

# Descriptors aggregated together: enough for fast products with the centroids, a few dozen MB.
FEATURES_AT_ONCE = 32_768


class Entries(NamedTuple):
    """One aggregated vector (or its packed signs) for each image and word: positions, words, (n, width) vectors."""

    images: NDArray[np.integer]
    words: NDArray[np.integer]
    vectors: FloatArray | NDArray[np.uint32]


def aggregate(rows: FloatArray, owners: IntArray, words: IntArray, centroids: FloatArray, binary: bool) -> Entries:
    """Sums of residuals per image and word, by image, then word (Tolias et al., ICCV 2013); encoded (see `encode`).

    Args:
        rows: (n, D) descriptors, n > 0.
        owners: (n,) the image of each.
        words: (n, k) the words of each.
        centroids: (words, D).
        binary: whether signs are kept.
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
    """Sums of the runs of rows that begin at `first`, each from its first row to its last.

    Most runs are short, and `np.add.reduceat` takes many times longer over these.

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
    """Descriptors of successive images together, so many or a few more, and which image each is of."""
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
    """What the package compares: signs packed into uint32 (n, D / 32), or L2-normalised vectors (n, D)."""
    if binary:
        from asmk.hamming import binarize_and_pack_2D

        return binarize_and_pack_2D(np.ascontiguousarray(sums))
    from asmk.functional import normalize_vec_l2

    return normalize_vec_l2(sums)


class InvertedFile:
    """For each word, the images that have it and their vectors.

    Args:
        parts: entries in any order, an image and word at most once in all.
        words: size of the codebook.
        width: columns of the vectors.
        binary, alpha, threshold: the package's kernel: similarities u = 1 - 2 hamming / bits (or cosines) that reach
            the threshold count u^alpha, others nothing.
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

        The sum over common words, over the square root of both images' numbers of words; 0 where no word counts.
        """
        scores = np.zeros(self.count, np.float32)
        if len(words):
            images, found = self._ivf.search(vectors, words, similarity_func=self._similarity, topk=None)
            scores[images] = found
        return scores


def sorted_by_word(
    parts: Iterable[Entries], words: int, width: int, dtype: np.dtype
) -> tuple[NDArray[np.int32], NDArray, IntArray]:
    """Images (n,) and vectors (n, width) of all parts by word, and where each word's begin, (words + 1,)."""
    held, counts = [], np.zeros(words, np.int64)
    for part in parts:
        held.append(part._replace(images=part.images.astype(np.int32), words=part.words.astype(np.int32)))
        counts += np.bincount(part.words, minlength=words)
    starts = np.concatenate([[0], np.cumsum(counts)])
    images, vectors = np.empty(starts[-1], np.int32), np.empty((starts[-1], width), dtype)
    free = starts[:-1].copy()
    # From the back, so that what has found its place makes room at once.
    while held:
        part = held.pop()
        order = np.argsort(part.words, kind="stable")
        present, first, number = np.unique(part.words[order], return_index=True, return_counts=True)
        places = np.arange(len(order)) + np.repeat(free[present] - first, number)
        images[places], vectors[places] = part.images[order], part.vectors[order]
        free[present] += number
    return images, vectors, starts


class _WordLists:
    """One list a word, cut from rows sorted by word when asked for: no object is held for each word."""

    def __init__(self, rows: NDArray, starts: IntArray) -> None:
        self.rows = rows
        self.starts = starts

    def __getitem__(self, word: np.integer) -> NDArray:
        return self.rows[self.starts[word] : self.starts[word + 1]]
