"""Inlier matches drawn between two photos."""

from __future__ import annotations

import colorsys

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from src.results.drawing import font, jpeg

# Of the photos, in pixels; and how many lines are still told apart.
HEIGHT, WIDEST, GAP, CAPTION = 420, 1200, 12, 30
MOST = 60
DOT = 3


def match_figure(
    a: UInt8[np.ndarray, "h1 w1 3"],
    b: UInt8[np.ndarray, "h2 w2 3"],
    points_a: Float[np.ndarray, "n 2"],
    points_b: Float[np.ndarray, "n 2"],
    caption: str,
) -> bytes:
    """A JPEG of two photos side by side, lines between matched points (x, y in pixels of each) and a line of words.

    Of more than 60 matches, as many are drawn, evenly chosen.
    """
    left, scale_a, top_a = _fitted(a)
    right, scale_b, top_b = _fitted(b)
    canvas = Image.new("RGB", (left.width + GAP + right.width, HEIGHT + CAPTION), "white")
    canvas.paste(left, (0, top_a))
    canvas.paste(right, (left.width + GAP, top_b))
    draw = ImageDraw.Draw(canvas)
    chosen = np.linspace(0, len(points_a) - 1, min(MOST, len(points_a))).round().astype(np.int64)
    starts = points_a[chosen] * scale_a + np.array([0, top_a])
    ends = points_b[chosen] * scale_b + np.array([left.width + GAP, top_b])
    # Colours follow the height in the left photo: crossing lines stand out.
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        colour = _colour(start[1] / HEIGHT)
        draw.line((*start, *end), colour, 2)
        for x, y in (start, end):
            draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), colour, "white")
    draw.text((GAP, HEIGHT + CAPTION / 2), caption, "#222222", font(15), anchor="lm")
    return jpeg(canvas)


def _fitted(pixels: UInt8[np.ndarray, "h w 3"]) -> tuple[Image.Image, float, int]:
    """The photo, how much larger it is, and how far below the top it stands."""
    height, width = pixels.shape[:2]
    scale = min(HEIGHT / height, WIDEST / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS), scale, (HEIGHT - size[1]) // 2


def _colour(height: float) -> str:
    red, green, blue = colorsys.hsv_to_rgb(0.85 * min(max(height, 0.0), 1.0), 0.9, 1.0)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
