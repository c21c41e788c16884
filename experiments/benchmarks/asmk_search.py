"""ASMK over synthetic local features: a plain version, the package's own pipeline, and ours, with one codebook.

2,000 images of 300 descriptors of 128 dimensions around 20,000 places, and 20 queries that are gallery images with
new noise. Plain: a matrix product per image to find the words, a loop over its words, and for each query a loop over
the gallery that compares common words. The package: its own aggregation and inverted file, filled entry by entry.
"""

from __future__ import annotations

import time
from typing import Any

import faiss
import numpy as np
from asmk import ASMKMethod
from asmk.codebook import Codebook as PackageCodebook
from asmk.index import FaissL2Index
from numpy.typing import NDArray

from dolglab.retrieval.asmk import ASMK

IMAGES, FEATURES, DIM, PLACES, QUERIES = 2000, 300, 128, 20_000, 20
WORDS, ITERATIONS, TRAINING, ASSIGNMENTS, ALPHA = 4096, 5, 100_000, 5, 3.0

# For each word of an image, its signs.
Words = dict[int, NDArray[np.bool_]]


def plain_words(rows: NDArray[np.float32], centroids: NDArray[np.float32], assignments: int) -> Words:
    """Signs of the residuals' sums, word by word."""
    distances = (centroids**2).sum(1) - 2 * rows @ centroids.T
    nearest = np.argpartition(distances, assignments - 1, axis=1)[:, :assignments]
    return {
        int(word): (rows[(nearest == word).any(1)] - centroids[word]).sum(0) > 0 for word in np.unique(nearest).tolist()
    }


def plain_scores(query: Words, gallery: list[Words]) -> NDArray[np.float64]:
    scores = np.zeros(len(gallery))
    for position, image in enumerate(gallery):
        for word in query.keys() & image.keys():
            scores[position] += max(0.0, 1 - 2 * np.mean(query[word] != image[word])) ** ALPHA
        scores[position] /= np.sqrt(len(image) * len(query))
    return scores


def package(centroids: NDArray[np.float32]) -> Any:
    """The package's pipeline, with a codebook and no inverted file yet."""
    words = PackageCodebook(FaissL2Index(), size=len(centroids))
    words.index(centroids)
    build = {"kernel": {"binary": True}, "ivf": {"use_idf": False}, "quantize": {"multiple_assignment": 1}}
    query = {"quantize": {"multiple_assignment": ASSIGNMENTS}, "search": {"topk": None}}
    query["similarity"] = {"similarity_threshold": 0.0, "alpha": ALPHA}
    steps = {"build_ivf": {**build, "aggregate": {}}, "query_ivf": {**query, "aggregate": {}}}
    return ASMKMethod(steps, {}, codebook=words)


def features() -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Gallery and queries."""
    rng = np.random.default_rng(0)
    places = rng.standard_normal((PLACES, DIM)).astype(np.float32)

    def seen(which: NDArray[np.int64]) -> NDArray[np.float32]:
        rows = places[which] + 0.4 * rng.standard_normal((len(which), DIM), np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    shown = rng.integers(0, PLACES, (IMAGES, FEATURES))
    return [seen(which) for which in shown], [seen(which) for which in shown[:QUERIES]]


def main() -> None:
    gallery, queries = features()
    asmk = ASMK(words=WORDS, iterations=ITERATIONS, training_features=TRAINING, assignments=ASSIGNMENTS, alpha=ALPHA)
    start = time.perf_counter()
    asmk.learn(gallery, "made up", "")
    learned = time.perf_counter()
    assert asmk.learned is not None
    centroids = asmk.learned.centroids
    asmk.learned.assign(np.concatenate(gallery), 1)
    assigned = time.perf_counter()
    print(
        f"ASMK, {IMAGES} images x {FEATURES} x {DIM}, {QUERIES} queries, {faiss.omp_get_max_threads()} threads\n"
        f"codebook of {WORDS} words from {TRAINING} features, {ITERATIONS} iterations: {learned - start:.1f} s; "
        f"nearest words of the gallery alone, by faiss: {assigned - learned:.1f} s"
    )

    start = time.perf_counter()
    plain = [plain_words(rows, centroids, 1) for rows in gallery]
    built = time.perf_counter()
    expected = np.stack([plain_scores(plain_words(rows, centroids, ASSIGNMENTS), plain) for rows in queries])
    times = {"plain": (built - start, time.perf_counter() - built)}

    start = time.perf_counter()
    owners = np.repeat(np.arange(IMAGES), FEATURES)
    method = package(centroids).build_ivf(np.concatenate(gallery), owners)
    built = time.perf_counter()
    asked = np.repeat(np.arange(QUERIES), FEATURES)
    _, _, ranks, scores = method.query_ivf(np.concatenate(queries), asked)
    times["package"] = (built - start, time.perf_counter() - built)
    dense = np.empty_like(scores)
    np.put_along_axis(dense, ranks, scores, 1)

    start = time.perf_counter()
    asmk.build(enumerate(gallery))
    built = time.perf_counter()
    found = [asmk.rank(rows, IMAGES) for rows in queries]
    times["ours"] = (built - start, time.perf_counter() - built)
    ours = np.zeros_like(expected)
    for query, (positions, values) in enumerate(found):
        ours[query, positions] = values

    for name, (index, search) in times.items():
        print(f"{name:>8}: index {index:6.2f} s, {1000 * search / QUERIES:7.2f} ms per query")
    first = np.mean([positions[0] == query for query, (positions, _) in enumerate(found)])
    print(
        f"inverted file {asmk.bytes_per_image:.0f} bytes per image; largest difference of a score from plain "
        f"{np.abs(ours - expected).max():.1e}, from the package {np.abs(ours - dense).max():.1e}; "
        f"the query's own image first for {first:.0%}"
    )


if __name__ == "__main__":
    main()
