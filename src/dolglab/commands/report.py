"""Compare runs: `dolglab report cards='outputs/demo/*/card.json' out=outputs/demo`.

Prints the cards' tables and writes OUT/report.html, OUT/table.md, OUT/table.tex and OUT/results.json (the figures and
what they mean, without the per-query lists); what charts the cards have also go to OUT/figures. Beside a card,
`metrics.csv` gives the page its curves, `grids/NAME.jpg` (or .png) its rankings and `pictures/` its other pictures.
`against=NAME` compares with one row instead of the best, `published=true` adds the rows of the paper's table, and what
`about` says, a line or a list of lines, stands above the page's tables.
`leaderboard=true` writes a static page for everyone instead, OUT/index.html, with a page a model.
`verify=card.json`, or a glob, says whether figures follow from the rankings beside the card, or are those of `cards`.
`workspace=true` writes the layout of the project's page on W&B instead.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from dolglab.commands.hydra_cli import hydra_main
from dolglab.errors import UserError


@hydra_main("report")
def main(cfg: DictConfig) -> Path:
    """The path of what was written. Raises UserError when there is no card, or one that cannot be read."""
    from dolglab.results.leaderboard import write_leaderboard
    from dolglab.results.report import card_paths, compare_runs, write_workspace
    from dolglab.results.verification import verify

    if cfg.workspace:
        return write_workspace(Path(cfg.out), cfg.project, cfg.benchmarks, cfg.entity)
    patterns = [cfg.cards] if isinstance(cfg.cards, str) else list(cfg.cards or ())
    if cfg.verify is not None:
        cards, again = card_paths([str(cfg.verify)]), card_paths(patterns)
        same = True
        for card in cards:
            if len(cards) > 1:
                print(f"{card}:")
            same &= verify(card, again)
        if not same:
            raise SystemExit(1)
        return cards[0]
    if not patterns:
        raise UserError("say which cards to compare, such as cards='outputs/demo/*/card.json'")
    if cfg.leaderboard:
        page = write_leaderboard(card_paths(patterns), Path(cfg.out))
        print(f"page: {page}")
        return page
    about = [cfg.about] if isinstance(cfg.about, str) else list(cfg.about or ())
    page = compare_runs(
        patterns, Path(cfg.out), None if cfg.against is None else str(cfg.against), cfg.published, about
    )
    print(f"page: {page}")
    return page


if __name__ == "__main__":
    main()
