"""The sweep's cells, the best one by validation, and its test figures compared with the paper's setting."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

Cell = tuple[str, str]
PAPER: Cell = ("0.15", "3")


def main(table: Path) -> None:
    """Print the cells, the means over each setting alone, and the test figures of the chosen cell."""
    cells = read_cells(table)
    print("| margin | p | validation mAP Medium, %, mean ± deviation over seeds |\n|---|---|---:|")
    for (margin, p), jobs in cells.items():
        print(f"| {margin} | {p} | {spread(scores(jobs))} |")
    print("\n| setting | validation mAP Medium, %, mean ± standard error |\n|---|---:|")
    for place, name in enumerate(("margin", "p")):
        for value in dict.fromkeys(cell[place] for cell in cells):
            found = [score for cell, jobs in cells.items() if cell[place] == value for score in scores(jobs)]
            print(f"| {name} {value} | {mean(found):.2f} ± {stdev(found) / len(found) ** 0.5:.2f} |")
    print("\n| difference | over pairs with the same seed and other setting, mean ± standard error |\n|---|---:|")
    for place, name in enumerate(("margin", "p")):
        values = list(dict.fromkeys(cell[place] for cell in cells))
        for one, other in itertools.combinations(values, 2):
            gaps = differences(cells, place, one, other)
            print(f"| {name} {other} - {one} | {mean(gaps):.2f} ± {stdev(gaps) / len(gaps) ** 0.5:.2f} |")
    best = max(cells, key=lambda cell: mean(scores(cells[cell])))
    print("\n| setting | margin | p | test mAP Medium, % | Hard, % |\n|---|---|---|---:|---:|")
    for cell in dict.fromkeys((best, PAPER)):
        label = " and ".join(["chosen on validation"] * (cell == best) + ["the paper's"] * (cell == PAPER))
        maps = [test(table.parent / job) for job, _ in cells[cell]]
        figures = (spread([100 * found[difficulty] for found in maps]) for difficulty in ("medium", "hard"))
        print(f"| {label} | {' | '.join((*cell, *figures))} |")


def differences(cells: dict[Cell, list[tuple[str, float]]], place: int, one: str, other: str) -> list[float]:
    """Validation mAP with `other` minus that with `one` at a position of the cells, seed by seed."""
    gaps = []
    for cell, jobs in cells.items():
        if cell[place] == one:
            beside = (other, cell[1]) if place == 0 else (cell[0], other)
            gaps += [b - a for a, b in zip(scores(jobs), scores(cells[beside]), strict=True)]
    return gaps


def scores(jobs: list[tuple[str, float]]) -> list[float]:
    """Validation mAP of a cell's jobs."""
    return [score for _, score in jobs]


def read_cells(table: Path) -> dict[Cell, list[tuple[str, float]]]:
    """Jobs and their validation mAP by margin and p."""
    cells: dict[Cell, list[tuple[str, float]]] = defaultdict(list)
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            cells[row["margin.margin"], row["pooling.p"]].append((row["job"], float(row["validation"])))
    return cells


def test(run: Path) -> dict[str, float]:
    """mAP by difficulty of a job's best checkpoint on the test landmarks; evaluated if it was not yet."""
    out = run / "test"
    if not (out / "card.json").exists():
        asked = [f"checkpoint={run}/checkpoints/best.ckpt", "benchmark=demo", "scales=[1.0]", f"hydra.run.dir={out}"]
        subprocess.run([sys.executable, "-W", "ignore", "-m", "src.evaluate", *asked], check=True, stdout=sys.stderr)
    return json.loads((out / "card.json").read_text())["benchmarks"][0]["map"]


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
