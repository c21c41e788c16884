"""Why a photo was found: the terms of its cosine, where the network looks, and which local features match."""

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
    """Why an answer matches a query.

    Attributes:
        terms: terms whose sum is the cosine; None for several scales, and for a fusion that is not a sum.
        matches: number of matching local features.
        inliers: number of matches that fit one transformation.
        picture: a JPEG of the inliers.
        attention: JPEGs of where the network looks, in the query and in the answer.
        features: name of the local features.
    """

    terms: Terms | None
    matches: int
    inliers: int
    picture: bytes
    attention: tuple[bytes, bytes]
    features: str


class RunNetwork(Protocol):
    """Calls a function that uses the network, possibly in another thread, and returns its result."""

    def __call__(self, work: Callable[[], T], /) -> T: ...


def run_here(work: Callable[[], T]) -> T:
    """Call `work` in the current thread."""
    return work()


def explain(
    extractor: Extractor,
    verifier: SpatialVerifier,
    query: Pixels,
    answer: Pixels,
    run_network: RunNetwork = run_here,
    stacked: bool = False,
) -> Explanation:
    """Why `answer` was found for `query`; both are pixels, (H, W, 3).

    Args:
        run_network: called once for each of the two, so that others can use the network in between.
        stacked: draw the photos one above the other instead of side by side.
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
    """The parts of the image's descriptor; None for several scales, and for a fusion that is not a sum."""
    import torch

    from dolglab.extraction.extractor import parts_of, rescale

    if len(extractor.scales) != 1:
        return None
    pixels = torch.from_numpy(image).to(extractor.device).permute(2, 0, 1)[None].float()
    scaled = rescale(pixels, extractor.scales[0], extractor.resize)
    return parts_of(extractor.model, extractor.model.backbone.normalise(scaled))
