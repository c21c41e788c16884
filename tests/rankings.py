"""Generated rankings and cards, as fixtures."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dolglab.contracts import (
    DIFFICULTIES,
    BadImage,
    Benchmark,
    Crop,
    Difficulty,
    Evaluation,
    GroundTruth,
    Ranking,
    Scores,
)
from dolglab.measures import RevisitedMeasure
from dolglab.results.card import make_card

NO_BOX = (np.nan,) * 4


def encoded(colour: str, size: tuple[int, int] = (60, 40)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


class Pictures:
    """Images in memory; None cannot be read."""

    def __init__(self, images: Sequence[bytes | None]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def name(self, position: int) -> str:
        return f"folder/image_{position}.png"

    def read(self, position: int) -> bytes:
        image = self.images[position]
        if image is None:
            raise OSError("gone")
        return image


@pytest.fixture
def make_ranking() -> Callable[..., Ranking]:
    """A factory of rankings of 2 queries, images 0 (in the gallery) and 9 (not), against a gallery of 8.

    Query 0 has easy positive 1, hard positive 2 and junk 3; query 1 has easy positive 4 and hard positive 5.
    """

    def make(
        name: str = "toy",
        *,
        difficulties: tuple[Difficulty, ...] = DIFFICULTIES,
        crop: Crop = "pil",
        digest: str = "0123456789abcdef",
        maps: Sequence[float] = (0.9, 0.75, 0.5),
        boxes: Sequence[tuple[float, ...]] = ((10.0, 5.0, 50.0, 35.0), NO_BOX),
        bad: tuple[BadImage, ...] = (),
        images: Sequence[bytes | None] | None = None,
    ) -> Ranking:
        positives = {"easy": ([1], [4]), "hard": ([2], [5]), "junk": ([3], [])}
        truth = {kind: tuple(np.array(p, np.int64) for p in found) for kind, found in positives.items()}
        benchmark = Benchmark(
            name=name,
            source=Pictures([encoded("white")] * 10 if images is None else images),
            num_gallery=8,
            queries=np.array([0, 9]),
            boxes=np.array(boxes, np.float64),
            ground_truth=GroundTruth(**truth),
            crop=crop,
            digest=digest,
            measure=RevisitedMeasure(),
            difficulties=difficulties,
        )
        evaluation: Evaluation = {
            difficulty: Scores(map=value, ap=np.array([value, np.nan]), mp_at_k=np.array([1.0, 0.625]))
            for difficulty, value in zip(DIFFICULTIES, maps, strict=True)
        }
        top = np.array([[1, 0, 2, 3, 4], [4, 6, 5, 7, 1]])
        return Ranking(evaluation, (1, 5), benchmark=benchmark, top=top, bad=bad, seconds=2.5)

    return make


@pytest.fixture
def make_card_of() -> Callable[..., dict[str, Any]]:
    """A factory of cards: the method, the rankings, and the run's name and the protocol as keywords."""

    def make(method: str, *rankings: Ranking, name: str = "run", **protocol: object) -> dict[str, Any]:
        return make_card(name=name, method=method, rankings=rankings, protocol=protocol, checkpoint=None, config={})

    return make
