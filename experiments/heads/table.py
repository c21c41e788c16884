"""The table of results.json: python experiments/heads/table.py FILE

A row per head. For each data set: mean, deviation (n - 1) and number of seeds of the test's Medium mAP, at the
learning rate that was best in validation for seed 0 of the first data set. Then that rate; length and parameters;
and, on the first data set, processor seconds of training and milliseconds of the head alone per crop, the minimum
over its cells.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

Cell = dict[str, Any]


def rows(results: dict[str, Cell]) -> list[list[str]]:
    """Header and rows of the existing cells."""
    parsed = [(*key.split("/"), cell) for key, cell in results.items()]
    datasets = list(dict.fromkeys(name for name, *_ in parsed))
    table = [
        ["head", *(f"{name}, mAP %" for name in datasets), "rate", "bytes", "parameters", "training, s", "head, ms"]
    ]
    for head in dict.fromkeys(head for _, head, *_ in parsed):
        cells = {(name, seed, rate): cell for name, of, seed, rate, cell in parsed if of == head}
        tried = {
            rate: cell["validation"] for (name, seed, rate), cell in cells.items() if (name, seed) == (datasets[0], "0")
        }
        best = max(tried, key=lambda rate: tried[rate])
        found = {
            name: [cell for (of, _, rate), cell in cells.items() if (of, rate) == (name, best)] for name in datasets
        }
        first = found[datasets[0]]
        table.append(
            [
                head,
                *(mean_and_deviation([cell["test"] for cell in found[name]]) for name in datasets),
                best,
                f"{first[0]['bytes']:,}",
                f"{first[0]['parameters']:,}",
                f"{min(cell['train_seconds'] for cell in first):.0f}",
                f"{min(cell['head_ms'] for cell in first):.1f}",
            ]
        )
    return table


def mean_and_deviation(values: list[float]) -> str:
    """Such as "81.20 ± 0.35 (3)"; empty if nothing was run."""
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread} ({len(values)})"


if __name__ == "__main__":
    header, *body = rows(json.loads(Path(sys.argv[1]).read_text()))
    print("\n".join(f"| {' | '.join(row)} |" for row in (header, ["---", *["---:"] * (len(header) - 1)], *body)))
