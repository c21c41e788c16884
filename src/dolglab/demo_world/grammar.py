"""The description of a landmark: the style shared by a family, and the details that distinguish siblings."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
RGB = tuple[int, int, int]

ACCENTS: tuple[RGB, ...] = (
    (178, 42, 38), (34, 78, 150), (38, 112, 66), (224, 172, 46), (240, 236, 226), (44, 40, 44),
    (112, 56, 128), (28, 134, 138), (216, 108, 34),
)  # fmt: skip
WALLS: tuple[RGB, ...] = (
    (214, 190, 146), (232, 216, 182), (206, 160, 96), (190, 116, 84), (160, 82, 64), (212, 164, 150),
    (160, 160, 156), (232, 230, 222), (176, 190, 158), (168, 188, 202), (222, 188, 110), (140, 112, 88),
    (122, 70, 60), (196, 184, 172),
)  # fmt: skip
TRIMS: tuple[RGB, ...] = ((240, 232, 214), (206, 194, 172), (150, 132, 112), (250, 246, 238), (182, 120, 92))
ROOFS: tuple[RGB, ...] = (
    (158, 78, 54), (92, 98, 108), (96, 140, 124), (118, 76, 60), (70, 74, 86), (176, 112, 72),
)  # fmt: skip
# A figure, and the number of its parts.
EMBLEMS: tuple[tuple[str, int], ...] = (
    ("rose", 6), ("rose", 8), ("rose", 12), ("star", 5), ("star", 8), ("clock", 4), ("shield", 2), ("cross", 4),
    ("sun", 12), ("crescent", 1), ("lozenge", 4), ("foil", 3), ("foil", 4), ("wheel", 6), ("crown", 3),
)  # fmt: skip
# Colours of the figure and of the ground behind it.
EMBLEM_COLOURS: tuple[tuple[RGB, RGB], ...] = tuple(
    (ACCENTS[figure], ACCENTS[ground]) for figure, ground in ((3, 1), (4, 0), (0, 4), (3, 5), (4, 2), (5, 3))
)


@dataclass(frozen=True)
class Template:
    """The range of families for one kind of building; lengths in metres."""

    name: str
    width: tuple[float, float]
    depth: tuple[float, float]
    storey: tuple[float, float]
    storeys: tuple[int, ...]
    materials: tuple[str, ...]
    openings: tuple[str, ...]
    roofs: tuple[str, ...]
    crowns: tuple[str, ...]
    caps: tuple[str, ...]
    towers: tuple[str, ...]
    pilasters: tuple[str, ...]
    emblem_places: tuple[str, ...]


TEMPLATES: tuple[Template, ...] = (
    Template(
        "church", (13, 18), (18, 26), (5.5, 7), (2,), ("ashlar", "brick", "stripes"), ("pointed", "round"),
        ("saddle",), ("triangle",), ("spire", "pyramid"), ("none", "left", "right", "pair", "centre"),
        ("none", "pilaster"), ("middle",),
    ),
    Template(
        "town hall", (17, 23), (11, 15), (3.9, 4.6), (3,), ("ashlar", "brick", "plaster", "timber"),
        ("segment", "rect", "round"), ("hip",), ("triangle", "stepped", "bell"), ("spire", "dome", "pyramid"),
        ("none", "left", "right", "centre"), ("none", "pilaster"), ("crown", "middle"),
    ),
    Template(
        "palace", (22, 28), (12, 17), (4.2, 5), (2, 3), ("plaster", "ashlar", "brick"),
        ("rect", "round", "segment"), ("flat", "hip", "dome"), ("triangle", "attic", "bell"),
        ("dome", "pyramid"), ("none", "pair"), ("pilaster", "column"), ("crown",),
    ),
    Template(
        "temple", (16, 22), (18, 26), (8, 10), (1,), ("ashlar", "plaster"), ("rect", "round"),
        ("saddle",), ("triangle",), ("dome",), ("none",), ("column",), ("crown",),
    ),
    Template(
        "castle", (16, 22), (14, 18), (4.6, 5.4), (2, 3), ("ashlar", "rubble", "brick"),
        ("round", "pointed", "rect"), ("battlement",), ("none", "attic"), ("battlement", "pyramid", "spire"),
        ("pair", "left", "right", "centre"), ("none",), ("middle",),
    ),
    Template(
        "campanile", (8, 10.5), (8, 10.5), (4.4, 5.2), (4, 5), ("brick", "ashlar", "stripes", "plaster"),
        ("round", "pointed", "segment"), ("spire", "battlement", "dome"), ("none",), ("pyramid",), ("none",),
        ("none", "pilaster"), ("middle",),
    ),
    Template(
        "dome hall", (17, 22), (17, 22), (5.5, 6.5), (2,), ("plaster", "ashlar", "stripes"),
        ("round", "pointed"), ("dome",), ("attic", "triangle", "none"), ("dome", "spire"),
        ("none", "pair", "left", "right"), ("none", "pilaster", "column"), ("middle", "crown"),
    ),
    Template(
        "guild house", (10, 14), (11, 15), (3.7, 4.3), (3, 4), ("brick", "plaster", "timber"),
        ("segment", "rect", "round"), ("saddle",), ("stepped", "bell", "triangle"), ("pyramid",), ("none",),
        ("none", "pilaster"), ("crown", "middle"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """The style shared by the siblings of a family; lengths in metres."""

    kind: str
    width: float
    depth: float
    storey: float
    storeys: int
    material: str
    wall: RGB
    trim: RGB
    roof_colour: RGB
    glass: RGB
    opening: str
    roof: str
    crown: str
    cap: str
    tower_width: float
    tower_height: float
    pilasters: str
    quoins: bool
    emblem_place: str

    @property
    def height(self) -> float:
        """Metres from the ground to the top of the front wall."""
        return self.storey * self.storeys


@dataclass(frozen=True)
class Details:
    """The details that distinguish siblings. Each field is a slot that a family may vary."""

    emblem: tuple[str, int]
    emblem_colours: tuple[RGB, RGB]
    door: str
    door_colour: RGB
    doors: int
    bays: int
    rhythm: str
    band: str
    band_colour: RGB
    banner: RGB | None
    shutters: RGB | None
    balcony: int | None
    towers: str


@dataclass(frozen=True)
class Landmark:
    """A building: its family's style and its own details."""

    style: Style
    details: Details


def sample_family(rng: np.random.Generator, siblings: int, varied: int = 7) -> list[Landmark]:
    """Sample a style and `siblings` landmarks that differ in `varied` slots of their details."""
    template = TEMPLATES[rng.integers(len(TEMPLATES))]
    style = _sample_style(rng, template)
    vocabulary = _vocabulary(style, template)
    slots = [field.name for field in fields(Details)]
    orders = {slot: rng.permutation(len(vocabulary[slot])) for slot in slots}

    def option(slot: str, index: int) -> Any:
        return vocabulary[slot][orders[slot][index % len(orders[slot])]]

    base = Details(**{slot: option(slot, 0) for slot in slots})
    others = [slot for slot in slots if slot != "emblem" and len(vocabulary[slot]) > 1]
    chosen = ["emblem", *rng.choice(others, size=min(varied - 1, len(others)), replace=False).tolist()]
    return [
        Landmark(style, replace(base, **{slot: option(slot, index) for slot in chosen})) for index in range(siblings)
    ]


def pick(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    """One of the options, with equal probability."""
    return options[rng.integers(len(options))]


def _vocabulary(style: Style, template: Template) -> dict[str, tuple]:
    narrow = style.width < 11
    accents_or_none = (None, *ACCENTS)
    return {
        "emblem": EMBLEMS,
        "emblem_colours": EMBLEM_COLOURS,
        "door": ("rect", "round", "pointed", "segment"),
        "door_colour": ACCENTS,
        "doors": (1,) if narrow else (1, 2, 3),
        "bays": (2, 3) if narrow else (3, 4, 5) if style.width < 17 else (4, 5, 6, 7),
        "rhythm": ("even", "paired", "alternate", "wide", "oculus"),
        "band": ("zigzag", "checks", "dots", "arches", "lozenges", "stripes", "plain"),
        "band_colour": ACCENTS,
        "banner": accents_or_none,
        "shutters": accents_or_none if style.opening in ("rect", "segment") else (None,),
        "balcony": (None, *range(1, style.storeys)),
        "towers": template.towers,
    }


def _sample_style(rng: np.random.Generator, template: Template) -> Style:
    width = float(rng.uniform(*template.width))
    storeys = int(pick(rng, template.storeys))
    storey = float(rng.uniform(*template.storey))
    height = storey * storeys
    return Style(
        kind=template.name,
        width=width,
        depth=float(rng.uniform(*template.depth)),
        storey=storey,
        storeys=storeys,
        material=pick(rng, template.materials),
        wall=_jitter(rng, pick(rng, WALLS)),
        trim=_jitter(rng, pick(rng, TRIMS)),
        roof_colour=_jitter(rng, pick(rng, ROOFS)),
        glass=_jitter(rng, (56, 66, 82)),
        opening=pick(rng, template.openings),
        roof=pick(rng, template.roofs),
        crown=pick(rng, template.crowns),
        cap=pick(rng, template.caps),
        tower_width=float(rng.uniform(4.2, 5.6)),
        tower_height=height * float(rng.uniform(1.2, 1.6)),
        pilasters=pick(rng, template.pilasters),
        quoins=bool(rng.random() < 0.5),
        emblem_place=pick(rng, template.emblem_places),
    )


def _jitter(rng: np.random.Generator, colour: RGB, spread: int = 12) -> RGB:
    r, g, b = np.clip(np.asarray(colour) + rng.integers(-spread, spread + 1, 3), 0, 255).tolist()
    return r, g, b
