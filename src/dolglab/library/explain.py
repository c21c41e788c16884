"""Why a photo was found: what its cosine is made of, where the network looks, which local features match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dolglab.data.colour import Pixels
from dolglab.data.image_reading import shrink
from dolglab.library.verifier import SpatialVerifier
from dolglab.results.pictures import attention_overlay, match_figure

if TYPE_CHECKING:
    from dolglab.extraction.extractor import Extractor, Parts, Terms

T = TypeVar("T")


@dataclass(frozen=True)
class Explanation:
    """A query and an answer beside each other.

    Attributes:
        terms: what the cosine is the sum of; None where the descriptor is of several scales, or of a fusion that mixes.
        matches: local features that match, and how many of them, the `inliers`, one transformation explains.
        picture: a JPEG of the inliers.
        attention: JPEGs of where the network looks in the query and in the answer.
        features: what the local features are called.
    """

    terms: Terms | None
    matches: int
    inliers: int
    picture: bytes
    attention: tuple[bytes, bytes]
    features: str


class RunNetwork(Protocol):
    """Calls what runs the network, in a thread of its own perhaps, and returns what that returns."""

    def __call__(self, work: Callable[[], T], /) -> T: ...


def run_here(work: Callable[[], T]) -> T:
    """Calls it in the caller's thread."""
    return work()


def explain(
    extractor: Extractor,
    verifier: SpatialVerifier,
    query: Pixels,
    answer: Pixels,
    run_network: RunNetwork = run_here,
    stacked: bool = False,
) -> Explanation:
    """Why `answer` was found for `query`, pixels (H, W, 3) of both; `stacked` draws matches from one above the other.

    `run_network` is called for each of them, so that others can use the network in between.
    """
    from dolglab.extraction.extractor import attention_scores, similarity_terms

    def look(image: Pixels) -> tuple[NDArray[np.float32], Parts | None]:
        return attention_scores(extractor.model, image), _parts(extractor, image)

    (query_scores, query_parts), (answer_scores, answer_parts) = (
        run_network(partial(look, image)) for image in (query, answer)
    )
    terms = None if query_parts is None or answer_parts is None else similarity_terms(query_parts, answer_parts)
    shrunk = shrink(query, verifier.side), shrink(answer, verifier.side)
    ours, theirs, match = verifier.match(*shrunk)
    picture = match_figure(*shrunk, ours, theirs, match.matches, match.inlier, stacked)
    attention = attention_overlay(query, query_scores), attention_overlay(answer, answer_scores)
    return Explanation(terms, len(match.matches), match.count, picture, attention, verifier.method.title)


def _parts(extractor: Extractor, image: Pixels) -> Parts | None:
    """What the image's descriptor is the sum of; None where it is of several scales, or of a fusion that mixes."""
    import torch

    from dolglab.extraction.extractor import parts_of, rescale

    if len(extractor.scales) != 1:
        return None
    pixels = torch.from_numpy(image).to(extractor.device).permute(2, 0, 1)[None].float()
    scaled = rescale(pixels, extractor.scales[0], extractor.resize)
    return parts_of(extractor.model, extractor.model.backbone.normalise(scaled))
