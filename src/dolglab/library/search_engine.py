"""A library together with the network that asks it: what a command, a page and a program search with."""

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

# Of a search that is told what was right: how much the query, the right answers and the wrong ones count.
ALPHA, BETA, GAMMA = 1.0, 0.75, 0.15


class SearchEngine:
    """Searches the library in a folder with the network that made it; `backend` is as for `load_extractor`.

    Raises UserError where there is no library, or its network is no longer to be had.
    """

    def __init__(self, folder: str | Path, backend: str = "auto") -> None:
        self.library = Library(folder)
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

    @cached_property
    def verifier(self) -> SpatialVerifier:
        """What verifies answers."""
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
        """The best answers to each query's pixels, (H, W, 3), as `query_pixels` gives them.

        With `verify` they are re-ranked by local features. `descriptors`, (Q, dim), of the queries may be given where
        they are known. `exact` is as for `Library.search`. Raises UserError for a column that no photo has.
        """
        if descriptors is None:
            descriptors = self.loaded.describe(queries)
        found = self.library.search(descriptors, max(count, VERIFIED) if verify else count, filters, exact)
        if verify:
            found = [self.verify(query, answers) for query, answers in zip(queries, found, strict=True)]
        return [answers[:count] for answers in found]

    def verify(self, query: Pixels, answers: Sequence[Answer]) -> list[Answer]:
        """The answers to a query's pixels, (H, W, 3), re-ranked by local features. Needs no network."""
        numbers = [answer.photo.id for answer in answers[:VERIFIED] if answer.photo.id is not None]
        kept = self.library.kept_features(numbers, self.verifier.config(), self.verifier.method.extractor.dim)
        return self.verifier(query, answers, kept)

    def packed_features(self, photo: Pixels) -> bytes | None:
        """Local features of a photo, (H, W, 3), as the library keeps them; None where it keeps none of this kind."""
        kind = self.library.catalogue.local()
        return self.verifier.packed(photo) if kind is not None and kind == self.verifier.config() else None

    def explain(
        self, query: Pixels, answer: Answer, run_network: RunNetwork = run_here, stacked: bool = False
    ) -> Explanation:
        """Why an answer was found; see `library.explain.explain`. Raises UserError where its photo can't be read."""
        pixels = answer.photo.pixels(self.max_side, self.reading)
        return explain(self.loaded.extractor, self.verifier, query, pixels, run_network, stacked)


def rocchio(query: Descriptors, right: Descriptors, wrong: Descriptors) -> Descriptors:
    """The query's descriptor, (dim,), moved towards the right answers', (n, dim), and away from the wrong ones'.

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
    """The best answers to a moved query: photos marked right first, those marked wrong last, each with its cosine.

    Args:
        query: descriptor, (dim,).
        right: numbers of photos marked so, and `wrong` of the others; of photos that are gone nothing is heard.
        count: answers besides the marked ones.
        filters, exact, folder: as for `Library.search`.
        without: numbers of photos that are no answers unless they were marked.
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
    """Photos and their descriptors, by number, of those that have one."""
    entries = [(photo, key) for photo, key in library.catalogue.find(numbers) if key is not None]
    try:
        rows = library.descriptors(np.array([key for _, key in entries], np.int64))
    except UserError:
        # Another process may have written them elsewhere.
        if [entry for entry in library.catalogue.find(numbers) if entry[1] is not None] == entries:
            raise
        return stored_descriptors(library, numbers)
    pairs = ((photo, row) for (photo, _), row in zip(entries, rows, strict=True))
    return {photo.id: (photo, row) for photo, row in pairs if photo.id is not None}
