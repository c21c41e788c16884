"""Compare runs: `python -m src.report cards='outputs/demo/*/card.json' out=outputs/demo`.

Prints the cards' table and writes OUT/report.html, OUT/table.md and OUT/results.json (the figures and what they mean,
without the per-query lists). Beside a card, `metrics.csv` gives the page its curves and `grids/NAME.jpg` (or .png) its
rankings.
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
    from src.results.figures import curves_svg
    from src.results.page import write_page
    from src.results.tables import markdown_table, print_table, row_names

    if cfg.cards is None:
        raise InputError("say which cards to compare, such as cards='outputs/demo/*/card.json'")
    patterns = [cfg.cards] if isinstance(cfg.cards, str) else list(cfg.cards)
    found = [(read_card(path), path.parent) for path in card_paths(patterns)]
    found.sort(key=lambda pair: pair[0]["time"])
    cards = [card for card, _ in found]
    curves: list[tuple[str, str]] = []
    grids: list[tuple[str, bytes]] = []
    for name, (_, folder) in zip(row_names(cards), found, strict=True):
        metrics = folder / "metrics.csv"
        if metrics.exists():
            curves += [(f"{name}: {title}", svg) for title, svg in curves_svg(metrics)]
        grids += [(f"{name}: {path.stem}", path.read_bytes()) for path in grid_paths(folder)]

    out = Path(cfg.out)
    write_text(out / "table.md", markdown_table(cards))
    write_text(out / "results.json", json.dumps([in_short(card) for card in cards], indent=1) + "\n")
    title = f"Results: {out.resolve().name}"
    page = write_page(out / "report.html", title=title, cards=cards, curves=curves, grids=grids)
    print_table(cards)
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
