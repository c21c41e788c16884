"""Several runs put side by side: their cards found, and a page, tables and charts made of them."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable
from pathlib import Path

from src.errors import InputError
from src.files import write_text
from src.results.card import in_short, read_card
from src.results.card_charts import chart_sections, write_charts
from src.results.page import write_page
from src.results.pictures import read_pictures
from src.results.published import published_summary
from src.results.tables.columns import row_names
from src.results.tables.latex import to_latex
from src.results.tables.markdown import to_markdown
from src.results.tables.summary import summarize
from src.results.tables.terminal import print_tables
from src.results.training_curves import curves_svg


def compare_runs(patterns: Iterable[str], out: Path, against: str | None = None, published: bool = False) -> Path:
    """Print the tables of the cards named, write them, their charts and a page to `out`; the page's path.

    `against` names the row to which all are compared, instead of each column's best; `published` adds the rows of the
    paper's table. Raises InputError when there is no card, or one that cannot be read.
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
    """The cards that paths, folders and globs name, each once. Raises InputError for a name of none."""
    paths: list[Path] = []
    for pattern in patterns:
        # A file called like a pattern, such as `run[1]`, is meant as itself.
        named = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))
        cards = [Path(name, "card.json") if Path(name).is_dir() else Path(name) for name in named]
        cards = [card for card in cards if card.exists()]
        if not cards:
            raise InputError(f"no result card at {pattern} (train or evaluate writes card.json in its run folder)")
        paths += cards
    return list(dict.fromkeys(paths))


def grid_paths(folder: Path) -> list[Path]:
    """The pictures of rankings beside a card."""
    return sorted(path for path in (folder / "grids").glob("*") if path.suffix in (".jpg", ".png"))
