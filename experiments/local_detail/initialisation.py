"""Compare networks whose layers began in different ways, over seeds.

    python experiments/local_detail/initialisation.py outputs/local_detail/initialisation

Prints a table of means and deviations over the seeds (n - 1), and how far each is from the GeM that validates best: the
seeds' mean average precision of each query, paired, with the 95 % interval of a bootstrap over the queries.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SETTINGS = ("gem", "gem_orthogonal", "dolg", "dolg_silent", "dolg_orthogonal", "dolg_orthogonal_silent")
DIFFICULTIES = ("medium", "hard")
DRAWS = 10_000


def read_cards(folder: Path) -> list[dict]:
    """The cards of a setting, by seed."""
    return [json.loads((run / "card.json").read_text()) for run in sorted(folder.iterdir())]


def per_query(cards: list[dict], difficulty: str) -> NDArray[np.float64]:
    """Average precision of each query, %, (Q,): the mean over the seeds."""
    return 100 * np.array([card["benchmarks"][0]["ap"][difficulty] for card in cards], float).mean(0)


def interval(differences: NDArray[np.float64]) -> str:
    """The mean difference of two networks' queries, (Q,), and its 95 % interval; NaN is a query that does not count."""
    known = differences[np.isfinite(differences)]
    drawn = np.random.default_rng(0).choice(known, (DRAWS, len(known))).mean(1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return f"{known.mean():+.2f} ({low:+.2f} to {high:+.2f})"


def main(out: Path) -> None:
    """Read every run and print."""
    cards = {setting: read_cards(out / setting) for setting in SETTINGS}
    validation = {name: [100 * card["validation_map"] for card in each] for name, each in cards.items()}
    best = max(("gem", "gem_orthogonal"), key=lambda name: statistics.mean(validation[name]))
    print(f"| {len(cards['gem'])} seeds | validation Medium | Medium | Hard | Medium to {best} | Hard to {best} |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, each in cards.items():
        columns = [validation[name]]
        columns += [[100 * card["benchmarks"][0]["map"][key] for card in each] for key in DIFFICULTIES]
        cells = [f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}" for values in columns]
        cells += [
            "" if name == best else interval(per_query(each, key) - per_query(cards[best], key)) for key in DIFFICULTIES
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
