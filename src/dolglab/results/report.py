"""Several runs put side by side: their cards found, and a page, tables and charts made of them."""

from __future__ import annotations

import base64
import glob
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dolglab.errors import UserError
from dolglab.io import write_text
from dolglab.results.card import in_short, read_card
from dolglab.results.card_charts import Chart, ChartSection, chart_sections, write_charts
from dolglab.results.charts import curves_svg
from dolglab.results.comparison_tables import summarize
from dolglab.results.pictures import COLOURS, SIGNS, Kind, read_pictures
from dolglab.results.table_formats import print_tables, to_latex, to_markdown
from dolglab.results.tables import LETTERS, Cell, Column, Footnotes, Summary, Table, protocol_line, row_names, with_best
from dolglab.templates import template

SOURCES = {
    "paper": "Yang et al., DOLG, ICCV 2021, table 1",
    "README": "README of the code that the DOLG paper's authors released",
    "issue [I]": "quoted from an issue thread, not from a publication",
}
NOT_CROPPED, CROPPED = "queries not cropped", "queries cropped"
DATASETS = ("ROxf", "ROxf+1M", "RPar", "RPar+1M")
TITLE = "Published, on ROxford5k / RParis6k (not measured here)"
LINE = (
    "Families as in the paper's table: (A) local features aggregated and re-ranked, (B) global, (C) global, then "
    "local re-ranking. +1M: with a million distractors."
)

Figures = tuple[float, float, float, float]


@dataclass(frozen=True)
class Published:
    """mAP in percent on ROxford5k, ROxford5k + 1M, RParis6k and RParis6k + 1M; `source` is a key of SOURCES."""

    method: str
    family: str
    medium: Figures
    hard: Figures
    source: str
    remark: str | None = None


ROWS: tuple[Published, ...] = (
    Published("DOLG R50", "DOLG", (80.50, 76.58, 89.81, 80.79), (58.82, 52.21, 77.70, 62.83), "paper", NOT_CROPPED),
    Published("DOLG R101", "DOLG", (81.50, 77.43, 91.02, 83.29), (61.10, 54.81, 80.30, 66.69), "paper", NOT_CROPPED),
    Published("DOLG R50", "DOLG", (81.20, 71.36, 90.07, 78.99), (62.55, 47.34, 79.20, 59.75), "README", CROPPED),
    Published("DOLG R101", "DOLG", (82.37, 73.63, 90.97, 80.44), (64.93, 51.57, 81.71, 62.95), "README", CROPPED),
    Published("DOLG R50", "DOLG", (82.38, 77.78, 90.94, 82.16), (62.92, 55.48, 80.48, 65.77), "README", NOT_CROPPED),
    Published("DOLG R101", "DOLG", (83.22, 78.96, 91.64, 82.89), (64.83, 57.86, 82.56, 67.34), "README", NOT_CROPPED),
    Published("HesAff-rSIFT-ASMK + SP", "A", (60.60, 46.80, 61.40, 42.30), (36.70, 26.90, 35.00, 16.80), "paper"),
    Published("DELF-ASMK + SP", "A", (67.80, 53.80, 76.90, 57.30), (43.10, 31.20, 55.40, 26.40), "paper"),
    Published("R50-HOW-ASMK, n=2000", "A", (79.40, 65.80, 81.60, 61.80), (56.90, 38.90, 62.40, 33.70), "paper"),
    Published("R101-R-MAC", "B", (60.90, 39.30, 78.90, 54.80), (32.40, 12.50, 59.40, 28.00), "paper"),
    Published("R101-GeM", "B", (65.30, 46.10, 77.30, 52.60), (39.60, 22.20, 56.60, 24.80), "paper"),
    Published("R101-GeM-AP", "B", (67.50, 47.50, 80.10, 52.50), (42.80, 23.20, 60.50, 25.10), "paper"),
    Published("R101-GeM+SOLAR", "B", (69.90, 53.50, 81.60, 59.20), (47.90, 29.90, 64.50, 33.40), "paper"),
    Published("R50-DELG, GLDv2-clean", "B", (73.60, 60.60, 85.70, 68.60), (51.00, 32.70, 71.50, 44.40), "paper"),
    Published("R101-DELG, GLDv2-clean", "B", (76.30, 63.70, 86.60, 70.60), (55.60, 37.50, 72.40, 46.90), "paper"),
    Published("R101-GeM+DSM", "C", (65.30, 47.60, 77.40, 52.80), (39.20, 23.20, 56.20, 25.00), "paper"),
    Published("R50-DELG + SP, GLDv2-clean", "C", (78.30, 67.20, 85.70, 69.60), (57.90, 43.60, 71.00, 45.70), "paper"),
    Published("R101-DELG + SP, GLDv2-clean", "C", (81.20, 69.10, 87.20, 71.50), (64.00, 47.50, 72.80, 48.70), "paper"),
    Published("CGD EffB3, distilled", "", (85.48, 80.70, 91.98, 82.54), (68.71, 59.74, 83.46, 68.48), "issue [I]"),
)


def published_summary(rows: Sequence[Published] = ROWS) -> Summary:
    """The published figures as a section of its own, the best of each column marked among themselves."""
    notes = Footnotes(LETTERS)
    headings = [Cell(_heading(row)) for row in rows]
    columns = [Column(("published", d), d, name) for d in ("Medium", "Hard") for name in DATASETS]
    figures = [[Cell(f"{value:.2f}") for value in (*row.medium, *row.hard)] for row in rows]
    sources = [Cell(row.source, (notes.mark(SOURCES[row.source]),)) for row in rows]
    body = [
        (heading, (*cells, source))
        for (heading, cells), source in zip(with_best(headings, figures), sources, strict=True)
    ]
    table = Table("Mean average precision, %", (*columns, Column(("published", "source"), "", "source")), tuple(body))
    return Summary(TITLE, (table,), notes.marked(), (LINE,))


def _heading(row: Published) -> str:
    family = f"({row.family}) " if len(row.family) == 1 else ""
    return family + row.method + (f", {row.remark}" if row.remark else "")


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


def compare_runs(patterns: Iterable[str], out: Path, against: str | None = None, published: bool = False) -> Path:
    """Print the tables of the cards named, write them, their charts and a page to `out`; the page's path.

    `against` names the row to which all are compared, instead of each column's best; `published` adds the rows of the
    paper's table. Raises UserError when there is no card, or one that cannot be read.
    """
    found = [(read_card(path), path.parent) for path in card_paths(patterns)]
    found.sort(key=lambda pair: pair[0]["time"])
    cards = [card for card, _ in found]
    summaries = [summarize(cards, against), *([published_summary()] if published else [])]
    charts = chart_sections(cards)
    curves: list[tuple[str, str]] = []
    grids: list[tuple[str, bytes]] = []
    pictures: list[tuple[str, bytes]] = []
    for name, (_, folder) in zip(row_names(cards), found, strict=True):
        metrics = folder / "metrics.csv"
        if metrics.exists():
            curves += [(f"{name}: {title}", svg) for title, svg in curves_svg(metrics)]
        grids += [(f"{name}: {path.stem}", path.read_bytes()) for path in grid_paths(folder)]
        pictures += [(f"{name}: {title}", image) for title, image in read_pictures(folder)]
    write_text(out / "table.md", to_markdown(summaries))
    write_text(out / "table.tex", to_latex(summaries))
    write_text(out / "results.json", json.dumps([in_short(card) for card in cards], indent=1) + "\n")
    write_charts(out / "figures", charts)
    page = write_page(
        out / "report.html",
        title=f"Results: {out.resolve().name}",
        cards=cards,
        summaries=summaries,
        curves=curves,
        charts=charts,
        grids=grids,
        pictures=pictures,
    )
    print_tables(summaries)
    return page


def card_paths(patterns: Iterable[str]) -> list[Path]:
    """The cards that paths, folders and globs name, each once. Raises UserError for a name of none."""
    paths: list[Path] = []
    for pattern in patterns:
        # A file called like a pattern, such as `run[1]`, is meant as itself.
        named = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))
        cards = [Path(name, "card.json") if Path(name).is_dir() else Path(name) for name in named]
        cards = [card for card in cards if card.exists()]
        if not cards:
            raise UserError(f"no result card at {pattern} (train or evaluate writes card.json in its run folder)")
        paths += cards
    return list(dict.fromkeys(paths))


def grid_paths(folder: Path) -> list[Path]:
    """The pictures of rankings beside a card."""
    return sorted(path for path in (folder / "grids").glob("*") if path.suffix in (".jpg", ".png"))
