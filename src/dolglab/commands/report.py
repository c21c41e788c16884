"""Compare runs: `dolglab report cards='outputs/demo/*/card.json' out=outputs/demo`.

Prints the tables and writes OUT/report.html, OUT/table.md, OUT/table.tex, OUT/results.json (figures and protocols,
without the per-query lists) and charts in OUT/figures. The page also shows, from the files beside a card, the curves of
`metrics.csv`, the queries of `answers/` and the images of `pictures/`. `conf/report.yaml` explains the options.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from dolglab.commands.hydra_cli import hydra_main
from dolglab.errors import UserError


@hydra_main("report")
def main(cfg: DictConfig) -> Path:
    """The path that was written or verified. Raises UserError without a card, and for one that cannot be read."""
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
        raise UserError("set the cards to compare, such as cards='outputs/demo/*/card.json'")
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
