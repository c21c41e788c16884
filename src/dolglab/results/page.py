"""The report of one or several runs: a single HTML file with its pictures, which can be mailed and printed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dolglab.errors import pluralize
from dolglab.io import write_text
from dolglab.results.card import crop_of
from dolglab.results.card_charts import ChartSection
from dolglab.results.charts import NARROW, WIDE, Drawing
from dolglab.results.pictures import Kind, data_uri
from dolglab.results.query_sections import QuerySection
from dolglab.results.tables import Card, Summary, protocol_line, row_names
from dolglab.templates import template

# Largest total of a page's encoded pictures in bytes (mail takes about 20 MB). Further ones are left out.
MAX_PICTURES = 8_000_000
# The kinds of photos, with signs that need no colour.
MARKS: dict[Kind, tuple[str, str]] = {
    "query": ("?", "query"),
    "positive": ("✓", "right"),
    "negative": ("✗", "wrong"),
    "junk": ("○", "not counted"),
}
WHAT_MAP_IS = (
    "mAP is the mean average precision. A query's average precision (AP) is the mean of the precision at the ranks of "
    "its right photos; mAP is the mean over queries. It is 100 % if all right photos are ranked before all others."
)


class Album:
    """Pictures as data URIs, up to `room` bytes in total."""

    def __init__(self, room: int = MAX_PICTURES) -> None:
        self.room, self.used, self.left_out = room, 0, 0

    def address(self, picture: bytes) -> str:
        """The picture's data URI; empty if there is no room left."""
        uri = data_uri(picture)
        if self.used + len(uri) > self.room:
            self.left_out += 1
            return ""
        self.used += len(uri)
        return uri


def write_page(
    path: Path,
    *,
    title: str,
    cards: Sequence[Card],
    summaries: Sequence[Summary],
    telling: Sequence[QuerySection] = (),
    charts: Sequence[ChartSection] = (),
    hardest: Sequence[QuerySection] = (),
    rankings: Sequence[QuerySection] = (),
    pictures: Sequence[tuple[str, bytes]] = (),
    up: str = "",
) -> Path:
    """Write the page at `path` atomically: conclusions, telling queries, a section per summary, charts, queries,
    pictures and the runs' protocols.

    `telling` are queries with several methods side by side, `hardest` and `rankings` those of single runs; `pictures`
    are titles with a JPEG or PNG; `up` is the address of the leaderboard that the page belongs to. Text is escaped.
    Pictures take at most 8 MB; the page says how much, and how many were left out.
    """
    page = template(
        Path(__file__).with_name("page.html.j2"),
        outline=lambda value: "\n".join(outline(value)),
        protocol=protocol_line,
        crop=crop_of,
        pluralize=pluralize,
        draw=_draw,
    )
    measures = {benchmark.get("measure", "mAP") for card in cards for benchmark in card["benchmarks"]}
    html = page.render(
        title=title,
        runs=list(zip(row_names(cards), cards, strict=True)),
        opening=[line for summary in summaries for line in summary.conclusion],
        what_map_is=WHAT_MAP_IS if any("mAP" in measure for measure in measures) else "",
        summaries=summaries,
        telling=telling,
        sections=charts,
        hardest=hardest,
        rankings=rankings,
        pictures=pictures,
        marks_of=MARKS,
        album=Album(),
        up=up,
    )
    return write_text(path, html)


def _draw(drawing: Drawing) -> Markup:
    """A chart for wide and one for narrow screens, of which the page shows one. Charts escape their text."""
    return Markup(f'<div class="wide">{drawing.draw(WIDE)}</div><div class="narrow">{drawing.draw(NARROW)}</div>')


def outline(value: Mapping[str, Any] | list[Any], indent: str = "") -> Iterator[str]:
    """Nested mappings and lists as indented lines like YAML, for reading.

    >>> print(*outline({"optim": {"lr": 0.1, "steps": [1, 2]}}), sep="\\n")
    optim:
      lr: 0.1
      steps: [1, 2]
    """
    mapping = isinstance(value, Mapping)
    pairs = [(f"{key}:", item) for key, item in value.items()] if mapping else [("-", item) for item in value]
    for head, item in pairs:
        # A mapping, or a list that holds some, does not fit a line.
        inner = item if isinstance(item, list) else [item]
        if item and any(isinstance(part, Mapping | list) for part in inner):
            yield indent + head
            yield from outline(item, indent + "  ")
        else:
            yield f"{indent}{head} {item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)}"
