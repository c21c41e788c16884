"""The table of results.json: python experiments/heads/table.py FILE

A row a head: of each data set the test's Medium mAP, mean and deviation (n - 1) over the seeds at the rate that seed 0
validated best, and that rate; length, parameters, and on the first data set seconds of training and milliseconds of the
head alone for one crop.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

Cell = dict[str, Any]


def rows(results: dict[str, Cell]) -> list[list[str]]:
    """Header and rows of what is there."""
    parsed = [(*key.split("/"), cell) for key, cell in results.items()]
    datasets = list(dict.fromkeys(name for name, *_ in parsed))
    header = ["head", *(f"{name}, mAP %" for name in datasets), *(f"{name}, rate" for name in datasets)]
    table = [[*header, "bytes", "parameters", "training, s", "head, ms"]]
    for head in dict.fromkeys(head for _, head, *_ in parsed):
        scores, rates, first = [], [], None
        for name in datasets:
            chosen = {(seed, rate): cell for n, h, seed, rate, cell in parsed if (n, h) == (name, head)}
            tried = {rate: cell["validation"] for (seed, rate), cell in chosen.items() if seed == "0"}
            best = max(tried, key=lambda rate: tried[rate])
            found = [cell for (_, rate), cell in chosen.items() if rate == best]
            first = first or found
            scores.append(mean_and_deviation([cell["test"] for cell in found]))
            rates.append(best)
        assert first is not None
        costs = [f"{first[0]['bytes']:,}", f"{first[0]['parameters']:,}"]
        costs += [
            f"{statistics.mean(cell[key] for cell in first):.{n}f}" for key, n in (("train_seconds", 0), ("head_ms", 1))
        ]
        table.append([head, *scores, *rates, *costs])
    return table


def mean_and_deviation(values: list[float]) -> str:
    """Such as "81.20 ± 0.35 (3)"."""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread} ({len(values)})"


if __name__ == "__main__":
    header, *body = rows(json.loads(Path(sys.argv[1]).read_text()))
    print("\n".join(f"| {' | '.join(row)} |" for row in (header, ["---", *["---:"] * (len(header) - 1)], *body)))
