"""Where a network looks: local scores as heat over the photo."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from src.results.drawing import jpeg

LONGEST = 1024
# The strongest hundredth is all one colour: a single peak would leave the rest of the photo dark.
STRONGEST = 99.0
OPACITY = 0.65


def attention_overlay(image: UInt8[np.ndarray, "h w 3"], scores: Float[np.ndarray, "h1 w1"]) -> bytes:
    """A JPEG of `image` in grey, at most 1024 pixels a side, under `scores`: from clear to yellow.

    `scores` (from 0) lie on a grid over the whole image, and are spread smoothly between the middles of its cells.
    Raises ValueError when they are not finite or there are none.
    """
    if not scores.size or not np.isfinite(scores).all():
        raise ValueError("an attention map needs scores that are finite numbers")
    photo = Image.fromarray(image)
    photo.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    most = float(np.percentile(scores, STRONGEST)) or float(scores.max()) or 1.0
    strength = np.clip(np.asarray(scores, np.float32) / most, 0, 1)
    spread = Image.fromarray(strength).resize(photo.size, Image.Resampling.BICUBIC)
    heat = np.clip(np.asarray(spread), 0, 1)
    colour = mpl.colormaps["inferno"](heat)[..., :3] * 255
    grey = np.asarray(photo.convert("L"), np.float32)[..., None]
    opacity = OPACITY * heat[..., None]
    return jpeg(Image.fromarray((grey * (1 - opacity) + colour * opacity).round().astype(np.uint8)))
