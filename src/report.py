"""Compare runs: `python -m src.report cards='outputs/demo/*/card.json' out=outputs/demo`.

Prints the cards' tables and writes OUT/report.html, OUT/table.md, OUT/table.tex and OUT/results.json (the figures and
what they mean, without the per-query lists); what charts the cards have also go to OUT/figures. Beside a card,
`metrics.csv` gives the page its curves, `grids/NAME.jpg` (or .png) its rankings and `pictures/` its other pictures.
`against=NAME` compares with one row instead of the best, `published=true` adds the rows of the paper's table.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable
from pathlib import Path

import hydra
from omegaconf import DictConfig

from src.cli import one_line_errors
from src.errors import InputError


@hydra.main(version_base="1.3", config_path="../conf", config_name="report")
@one_line_errors
def main(cfg: DictConfig) -> Path:
    """The path of the page. Raises InputError when there is no card, or one that cannot be read."""
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

    if cfg.cards is None:
        raise InputError("say which cards to compare, such as cards='outputs/demo/*/card.json'")
    patterns = [cfg.cards] if isinstance(cfg.cards, str) else list(cfg.cards)
    found = [(read_card(path), path.parent) for path in card_paths(patterns)]
    found.sort(key=lambda pair: pair[0]["time"])
    cards = [card for card, _ in found]
    summaries = [
        summarize(cards, None if cfg.against is None else str(cfg.against)),
        *([published_summary()] if cfg.published else []),
    ]
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

    out = Path(cfg.out)
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


if __name__ == "__main__":
    main()
