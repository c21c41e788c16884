"""Why a photo was found: what its cosine is made of, where the network looks, which local features match."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from src.extraction.attention import attention_scores
from src.extraction.extractor import Extractor, rescale
from src.extraction.similarity import Terms, parts_of, similarity_terms
from src.library.model import Ready
from src.library.verification import Verifier
from src.results.attention import attention_overlay
from src.results.matches import match_figure


@dataclass(frozen=True)
class Explanation:
    """A query and an answer beside each other.

    Attributes:
        terms: what the cosine is the sum of; None where the descriptor is of several scales, or of a fusion that mixes.
        matches: local features that match, and how many of them, the `inliers`, one transformation explains.
        picture: a JPEG of the inliers.
        attention: JPEGs of where the network looks in the query and in the answer.
    """

    terms: Terms | None
    matches: int
    inliers: int
    picture: bytes
    attention: tuple[bytes, bytes]


def explain(ready: Ready, verifier: Verifier, query: NDArray[np.uint8], answer: NDArray[np.uint8]) -> Explanation:
    """Why `answer` was found for `query`, pixels (H, W, 3) of both."""
    ours, theirs, match = verifier.match(query, answer)
    rows = match.matches[match.inlier]
    picture = match_figure(
        query,
        answer,
        ours.keypoints[rows[:, 0]],
        theirs.keypoints[rows[:, 1]],
        f"{match.count} inliers of {len(match.matches)} matches",
    )
    maps = [attention_overlay(image, attention_scores(ready.extractor.model, image)) for image in (query, answer)]
    return Explanation(
        _terms(ready.extractor, query, answer), len(match.matches), match.count, picture, (maps[0], maps[1])
    )


def _terms(extractor: Extractor, query: NDArray[np.uint8], answer: NDArray[np.uint8]) -> Terms | None:
    if len(extractor.scales) > 1:
        return None
    ours, theirs = (parts_of(extractor.model, _input(extractor, image)) for image in (query, answer))
    return None if ours is None or theirs is None else similarity_terms(ours, theirs)


def _input(extractor: Extractor, image: NDArray[np.uint8]) -> Float[Tensor, "1 3 h w"]:
    pixels = torch.from_numpy(image).to(extractor.device).permute(2, 0, 1)[None].float()
    return extractor.model.backbone.normalise(rescale(pixels, extractor.scales[0], extractor.resize))
