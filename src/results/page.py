"""The HTML page of one or several runs: a single file that asks nothing of any other."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from src.files import write_text
from src.results.card_charts import Chart, ChartSection
from src.results.cells import COLOURS, SIGNS, Kind
from src.results.tables.columns import row_names
from src.results.tables.model import Summary
from src.results.tables.protocol import protocol_line
from src.templates import template

MEANINGS: dict[Kind, str] = {
    "query": "the query, with its crop box",
    "positive": "positive",
    "negative": "negative",
    "junk": "counts neither way",
}


def write_page(
    path: Path,
    *,
    title: str,
    cards: Sequence[dict[str, Any]],
    summaries: Sequence[Summary],
    curves: Sequence[tuple[str, str]] = (),
    charts: Sequence[ChartSection] = (),
    grids: Sequence[tuple[str, bytes]] = (),
    pictures: Sequence[tuple[str, bytes]] = (),
) -> Path:
    """Write the page at `path` in one step: a section a summary, charts, training curves, grids and other pictures.

    `curves` are titles with SVG, `grids` and `pictures` titles with a JPEG or PNG. Text is escaped; an SVG is placed as
    it is, and should come from our own charts.
    """
    page = template(
        Path(__file__).with_name("page.html.j2"),
        outline=lambda value: "\n".join(outline(value)),
        protocol=protocol_line,
        markup=Markup,
    )
    training = ChartSection("Training", "", tuple(Chart(name, svg) for name, svg in curves))
    html = page.render(
        title=title,
        runs=list(zip(row_names(cards), cards, strict=True)),
        summaries=summaries,
        sections=[*charts, *([training] if curves else [])],
        grids=[(name, data_uri(image)) for name, image in grids],
        pictures=[(name, data_uri(image)) for name, image in pictures],
        legend=[(COLOURS[kind], SIGNS[kind], meaning) for kind, meaning in MEANINGS.items()],
    )
    return write_text(path, html)


def data_uri(image: bytes) -> str:
    """An encoded JPEG or PNG as the address of itself."""
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def outline(value: Mapping[str, Any] | list[Any], indent: str = "") -> Iterator[str]:
    """Nested mappings and lists as indented lines in the manner of YAML, for people to read."""
    mapping = isinstance(value, Mapping)
    pairs = [(f"{key}:", item) for key, item in value.items()] if mapping else [("-", item) for item in value]
    for head, item in pairs:
        if item and _nested(item):
            yield indent + head
            yield from outline(item, indent + "  ")
        else:
            yield f"{indent}{head} {item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)}"


def _nested(value: object) -> bool:
    """Whether `value` does not fit a line: a mapping, or a list that holds mappings or lists."""
    inner = value if isinstance(value, list) else []
    return isinstance(value, Mapping) or any(isinstance(item, Mapping | list) for item in inner)
