"""A library with the network that describes queries, for commands, the server and Python programs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from dolglab.data.colour import Pixels
from dolglab.errors import UserError
from dolglab.library.contents import Answer, Columns, Descriptors, Photo
from dolglab.library.explain import Explanation, RunNetwork, explain, run_here
from dolglab.library.library import Library, model_source
from dolglab.library.verifier import VERIFIED, SpatialVerifier
from dolglab.sharing.loading import load_extractor

# Rocchio's weights of the query, of answers marked right, and of those marked wrong.
ALPHA, BETA, GAMMA = 1.0, 0.75, 0.15


class SearchEngine:
    """Searches the library in a folder with the network that made it; `backend` is as in `load_extractor`.

    Raises UserError if there is no library, or if its network is no longer available.
    """

    def __init__(self, folder: str | Path, backend: str = "auto") -> None:
        self.library, self.backend = Library(folder), backend
        identity = self.library.identity
        self.max_side: int = identity["max_side"]
        self.loaded = load_extractor(
            model_source(identity),
            identity["scales"],
            self.max_side,
            backend,
            identity["colour"],
            identity["decoding"],
            fingerprint=identity["model"],
            adapter=self.library.adapter(),
        )
        self.reading = self.loaded.reading
        self.library.check(self.loaded.identity)

    def reopened(self) -> SearchEngine:
        """An engine of the library as it is now."""
        return SearchEngine(self.library.folder, self.backend)

    @cached_property
    def verifier(self) -> SpatialVerifier:
        """Verifies answers by local features."""
        return SpatialVerifier(self.max_side)

    def search(
        self,
        queries: Sequence[Pixels],
        count: int = 20,
        filters: Columns | None = None,
        verify: bool = False,
        descriptors: Descriptors | None = None,
        exact: bool = False,
    ) -> list[list[Answer]]:
        """The best answers to each query.

        Args:
            queries: pixels, (H, W, 3) each.
            count: number of answers.
            filters, exact: as in `Library.search`.
            verify: re-rank the answers by local features.
            descriptors: (Q, dim) of the queries, if known.

        Raises UserError for a column that no photo has.
        """
        if descriptors is None:
            descriptors = self.loaded.describe(queries)
        found = self.library.search(descriptors, max(count, VERIFIED) if verify else count, filters, exact)
        if verify:
            found = [self.verify(query, answers) for query, answers in zip(queries, found, strict=True)]
        return [answers[:count] for answers in found]

    def verify(self, query: Pixels, answers: Sequence[Answer]) -> list[Answer]:
        """The answers to a query, pixels (H, W, 3), re-ranked by local features. Does not use the network."""
        numbers = [answer.photo.id for answer in answers[:VERIFIED] if answer.photo.id is not None]
        kept = self.library.kept_features(numbers, self.verifier.config(), self.verifier.method.extractor.dim)
        return self.verifier(query, answers, kept)

    def packed_features(self, photo: Pixels) -> bytes | None:
        """The packed local features of a photo, (H, W, 3), for the library; None if it keeps none of this kind."""
        kind = self.library.catalogue.local()
        return self.verifier.packed(photo) if kind is not None and kind == self.verifier.config() else None

    def explain(
        self, query: Pixels, answer: Answer, run_network: RunNetwork = run_here, stacked: bool = False
    ) -> Explanation:
        """Why an answer was found, see `library.explain.explain`. Raises UserError if its photo cannot be read."""
        pixels = answer.photo.pixels(self.max_side, self.reading)
        return explain(self.loaded.extractor, self.verifier, query, pixels, run_network, stacked)


def rocchio(query: Descriptors, right: Descriptors, wrong: Descriptors) -> Descriptors:
    """The query's descriptor, (dim,), moved towards right answers', (n, dim), and away from wrong ones'.

    Rocchio (1971) with the weights of Manning, Raghavan and Schuetze, Introduction to Information Retrieval (2008),
    section 9.1.1: alpha query + beta mean(right) - gamma mean(wrong), L2-normalised.
    """
    new = ALPHA * query
    if len(right):
        new = new + BETA * right.mean(0)
    if len(wrong):
        new = new - GAMMA * wrong.mean(0)
    norm = float(np.linalg.norm(new))
    return (new / norm if norm > 0 else query).astype(np.float32)


def search_with_feedback(
    library: Library,
    query: Descriptors,
    right: Sequence[int],
    wrong: Sequence[int],
    count: int = 20,
    filters: Columns | None = None,
    exact: bool = False,
    folder: str = "",
    without: Collection[int] = (),
) -> list[Answer]:
    """The best answers to a query moved by `rocchio`: photos marked right come first, those marked wrong last.

    Args:
        query: descriptor, (dim,).
        right, wrong: numbers of the marked photos; those that no longer exist are ignored.
        count: number of answers besides the marked ones.
        filters, exact, folder: as in `Library.search`.
        without: numbers of photos to leave out unless they are marked.
    """
    known = stored_descriptors(library, [*right, *wrong])
    marked = [[known[number] for number in numbers if number in known] for numbers in (right, wrong)]
    new = rocchio(query, *(np.array([row for _, row in each]).reshape(-1, len(query)) for each in marked))
    answers = [[Answer(photo, float(row @ new)) for photo, row in each] for each in marked]
    liked, disliked = (sorted(each, key=lambda answer: -answer.cosine) for each in answers)
    hidden = {*known, *without}
    found = library.search(new[None], count + len(hidden), filters, exact, folder)[0]
    return [*liked, *[answer for answer in found if answer.photo.id not in hidden][:count], *disliked]


def stored_descriptors(library: Library, numbers: Sequence[int]) -> dict[int, tuple[Photo, Descriptors]]:
    """Photos with their descriptors, by number; photos without a descriptor are left out."""
    entries = [(photo, key) for photo, key in library.catalogue.find(numbers) if key is not None]
    try:
        rows = library.descriptors(np.array([key for _, key in entries], np.int64))
    except UserError:
        # Another process may have moved them.
        if [entry for entry in library.catalogue.find(numbers) if entry[1] is not None] == entries:
            raise
        return stored_descriptors(library, numbers)
    pairs = ((photo, row) for (photo, _), row in zip(entries, rows, strict=True))
    return {photo.id: (photo, row) for photo, row in pairs if photo.id is not None}
