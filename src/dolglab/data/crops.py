"""Random crops: their range, and their boxes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Box(NamedTuple):
    """A crop in whole pixels."""

    top: int
    left: int
    height: int
    width: int


class CropRange(NamedTuple):
    """The range of random crops: share of the image's area, and width over height."""

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)


def random_box(height: int, width: int, crop: CropRange, rng: np.random.Generator) -> Box:
    """A random crop of an image of that size: uniform in area and log aspect ratio, then in position.

    If ten tries do not fit, the largest centred crop within the range of ratios.
    """
    low, high = (math.log(ratio) for ratio in crop.ratio)
    for area, ratio, top, left in rng.random((10, 4)):
        target = height * width * (crop.area[0] + area * (crop.area[1] - crop.area[0]))
        aspect = math.exp(low + ratio * (high - low))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(top * (height - h + 1)), int(left * (width - w + 1)), h, w)
    w = min(width, max(1, round(height * crop.ratio[1])))
    h = min(height, max(1, round(width / crop.ratio[0])))
    return Box((height - h) // 2, (width - w) // 2, h, w)
