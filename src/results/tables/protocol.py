"""How figures were made, in words: what all rows share, and what sets each apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from src.results.tables.columns import by_dataset
from src.results.tables.model import MISSING, Card

KNOWN = ("crop", "scales", "resize", "image_size")
# What goes without saying, until another row says something else.
UNSAID = {"crop": MISSING, "image_size": "unlimited", "precision": "32-true", "orientation": "exif", "index": "exact"}


def protocol_line(card: Card) -> str:
    """How the card's figures were made, in one line: crop, scales, resize, image size, the rest, then the stages."""
    return _line(protocol_parts(card))


def protocol_lines(cards: Sequence[Card]) -> tuple[str, list[str]]:
    """What all cards share, and for each what it does not; the latter are empty where everything is shared."""
    parts = [protocol_parts(card) for card in cards]
    keys = list(dict.fromkeys(key for part in parts for key in part))
    shared = [key for key in keys if len({part.get(key) for part in parts}) == 1]
    own = [{key: part.get(key, UNSAID.get(key, "none")) for key in keys if key not in shared} for part in parts]
    return _line({key: parts[0][key] for key in shared}), [_line(part) for part in own]


def protocol_parts(card: Card) -> dict[str, str]:
    """What is said of each step, in the order of the steps; what says nothing is left out."""
    given = card["protocol"]
    parts = {"crop": _per_dataset({b["name"]: b["crop"] for b in card["benchmarks"]})}
    parts |= {key: short(given.get(key)) for key in KNOWN[1:]}
    parts |= {key: short(value) for key, value in given.items() if key not in KNOWN}
    stages = {b["name"]: b.get("stages", {}) for b in card["benchmarks"]}
    for stage in dict.fromkeys(key for found in stages.values() for key in found):
        parts[stage] = _per_dataset({name: _worded(found.get(stage), stage) for name, found in stages.items()})
    return {key: text for key, text in parts.items() if text}


def dataset_lines(cards: Sequence[Card]) -> list[str]:
    """A line on each data set: its size and the digest that identifies its ground truth."""
    found = {dataset: benchmark for card in cards for dataset, benchmark in by_dataset(card).items()}
    return [
        f"{name}: {b['queries']:,} queries, {b['gallery']:,} gallery images, digest {digest[:12]}"
        + (f", photographs: {b['release']}" if b.get("release") else "")
        for (name, digest), b in found.items()
    ]


def short(value: object) -> str:
    """A setting's value; of a mapping its names, of nothing nothing."""
    if isinstance(value, list | tuple | Mapping):
        return ", ".join(short(item) for item in value)
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _worded(value: object, stage: str = "") -> str:
    """A stage's value; of a mapping its names with their values, without digests and what is not set."""
    if isinstance(value, Mapping):
        said = {key: item for key, item in value.items() if item is not None and not str(key).endswith("digest")}
        return ", ".join(
            _within(item) if key in (stage, "kind") else f"{str(key).replace('_', ' ')} {_within(item)}"
            for key, item in said.items()
        )
    if isinstance(value, list | tuple):
        return ", ".join(_within(item) for item in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else short(value)


def _within(value: object) -> str:
    text = _worded(value)
    return f"({text})" if isinstance(value, Mapping | list | tuple) and len(value) > 1 else text


def _per_dataset(texts: Mapping[str, str]) -> str:
    """One text for all data sets, or each with its data set's name."""
    if len(set(texts.values())) > 1:
        return ", ".join(f"{text or 'none'} ({name})" for name, text in texts.items())
    return next(iter(texts.values()), "")


def _line(parts: Mapping[str, Any]) -> str:
    return "; ".join(f"{key.replace('_', ' ')} {text}" for key, text in parts.items())
