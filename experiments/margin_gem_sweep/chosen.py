"""The sweep's cells, the best on validation, and its test figures beside the paper's."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

Cell = tuple[str, str]
PAPER: Cell = ("0.15", "3")


def main(table: Path) -> None:
    """Print both tables."""
    cells = read_cells(table)
    print("| margin | p | validation mAP Medium, %, mean ± deviation over seeds |\n|---|---|---:|")
    for (margin, p), jobs in cells.items():
        print(f"| {margin} | {p} | {spread([score for _, score in jobs])} |")
    best = max(cells, key=lambda cell: mean(score for _, score in cells[cell]))
    print("\n| setting | margin | p | test mAP Medium, % | Hard, % |\n|---|---|---|---:|---:|")
    for label, cell in (("chosen on validation", best), ("the paper's", PAPER)):
        maps = [test(table.parent / job) for job, _ in cells[cell]]
        figures = (spread([100 * found[difficulty] for found in maps]) for difficulty in ("medium", "hard"))
        print(f"| {label} | {' | '.join((*cell, *figures))} |")


def read_cells(table: Path) -> dict[Cell, list[tuple[str, float]]]:
    """Jobs and their validation mAP by margin and p."""
    cells: dict[Cell, list[tuple[str, float]]] = defaultdict(list)
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            cells[row["margin.margin"], row["pooling.p"]].append((row["job"], float(row["validation"])))
    return cells


def test(run: Path) -> dict[str, float]:
    """mAP by difficulty of a job's best checkpoint on the test landmarks; evaluated where it was not yet."""
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
