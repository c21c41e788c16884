"""A search told which of its answers were right and which were wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.library.catalogue import Photo
from dolglab.library.library import Answer, Library

# How much the query, what was right and what was wrong count.
ALPHA, BETA, GAMMA = 1.0, 0.75, 0.15

PhotoDescriptor = tuple[Photo, NDArray[np.float32]]


def rocchio(query: NDArray[np.float32], right: NDArray[np.float32], wrong: NDArray[np.float32]) -> NDArray[np.float32]:
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
    query: NDArray[np.float32],
    right: Sequence[int],
    wrong: Sequence[int],
    count: int = 20,
    filters: Mapping[str, str] | None = None,
) -> list[Answer]:
    """The best answers to a moved query: photos marked right first, those marked wrong last, each with its cosine.

    Args:
        query: descriptor, (dim,).
        right: numbers of photos marked so, and `wrong` of the others; of photos that are gone nothing is heard.
        count: answers besides the marked ones.
    """
    known = _descriptors(library, [*right, *wrong])
    liked, disliked = ([known[number] for number in numbers if number in known] for numbers in (right, wrong))
    new = rocchio(query, _rows(liked, len(query)), _rows(disliked, len(query)))
    found = library.search(new[None], count + len(known), filters)[0]
    rest = [answer for answer in found if answer.photo.id not in known][:count]
    return [*_answers(new, liked), *rest, *_answers(new, disliked)]


def _rows(photos: Sequence[PhotoDescriptor], dim: int) -> NDArray[np.float32]:
    return np.stack([row for _, row in photos]) if photos else np.empty((0, dim), np.float32)


def _answers(query: NDArray[np.float32], photos: Sequence[PhotoDescriptor]) -> list[Answer]:
    answers = [Answer(photo, float(row @ query)) for photo, row in photos]
    return sorted(answers, key=lambda answer: -answer.cosine)


def _descriptors(library: Library, numbers: Sequence[int]) -> dict[int, PhotoDescriptor]:
    """Photos and their descriptors, by number, of those that have one."""
    keys = library.catalogue.keys(numbers)
    try:
        rows = library.descriptors(np.array(keys, np.int64))
    except UserError:
        # Another process may have written them elsewhere.
        if library.catalogue.keys(numbers) == keys:
            raise
        return _descriptors(library, numbers)
    found = dict(zip(keys, rows, strict=True))
    photos = library.catalogue.photos(keys)
    return {photo.id: (photo, found[key]) for key, photo in photos.items() if photo.id is not None}
