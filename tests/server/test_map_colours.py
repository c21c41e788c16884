"""The colours of the map under simulated colour blindness (Machado, Oliveira and Fernandes, 2009)."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from dolglab.server.routes import PAGE

# The paper's matrices for severity 1, on linear RGB.
EYES = {
    "all": np.eye(3),
    "without long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "without middle": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "without short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
# Linear RGB to OKLab (Ottosson, 2020).
CONES = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
LAB = [
    [0.2104542553, 0.793617785, -0.0040720468],
    [1.9779984951, -2.428592205, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.808675766],
]


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray) -> np.ndarray:
    return np.cbrt(rgb.clip(0, 1) @ np.transpose(CONES)) @ np.transpose(LAB)


def schemes(file: str, name: str) -> list[dict[str, str]]:
    """The colours whose names match, of the light and of the dark scheme."""
    light, dark = (PAGE / file).read_text().split("prefers-color-scheme: dark", 1)
    return [dict(re.findall(rf"--({name}): (#\w{{6}})", part)) for part in (light, dark)]


@pytest.mark.parametrize("scheme", [0, 1])
def test_colours_are_distinguishable_and_visible(scheme: int) -> None:
    colours = schemes("map.css", r"map-\w+")[scheme]
    ground = linear(schemes("style.css", "raised")[scheme]["raised"])
    assert list(colours) == [*(f"map-c{place}" for place in range(10)), "map-other", "map-none"]
    del colours["map-none"]
    rgb = {name: linear(colour) for name, colour in colours.items()}
    for eye in EYES.values():
        seen = {name: oklab(np.asarray(eye) @ value) for name, value in rgb.items()}
        nearest = min(combinations(seen, 2), key=lambda pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]))
        # For comparison: the nearest two of Okabe and Ito's eight colours are 0.076 apart.
        assert np.linalg.norm(seen[nearest[0]] - seen[nearest[1]]) > 0.1, nearest
    luminance = [0.2126, 0.7152, 0.0722]
    for name, value in rgb.items():
        low, high = sorted((float(luminance @ value), float(luminance @ ground)))
        # The contrast that WCAG 2.1 requires of graphics; slightly less for the grey of other values.
        assert (high + 0.05) / (low + 0.05) > (2.8 if name == "map-other" else 3), name
