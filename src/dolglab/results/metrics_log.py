"""Read the metrics.csv of a run."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Literal

from dolglab.errors import UserError

METRICS = "metrics.csv"


@dataclass
class Series:
    """A metric's values over increasing steps or epochs."""

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, step: float, value: float) -> None:
        """Append a point. A resumed run repeats steps; its values replace the earlier ones."""
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()
            self.values.pop()
        self.steps.append(step)
        self.values.append(value)


def read_series(path: Path, by: Literal["step", "epoch"] = "step") -> dict[str, Series]:
    """Every metric in the CSV at `path`, with its finite values by step, or their means by epoch.

    A row without a step is placed by its epoch, and the other way round. Cells may be empty, and a resumed run may have
    written a header in the middle. Raises UserError if the file is missing or has neither steps nor epochs.
    """
    series: dict[str, Series] = {}
    epochs: dict[float, float] = {}
    if not path.exists():
        raise UserError(f"metrics not found: {path} (train with logger=csv)")
    for record in _records(path):
        step = _number(record.get("step", record.get("epoch", "")))
        if step is None:
            continue
        epochs[step] = step if (epoch := _number(record.get("epoch", ""))) is None else epoch
        for name, cell in record.items():
            value = _number(cell)
            if name not in ("step", "epoch") and value is not None:
                series.setdefault(name, Series()).add(step, value)
    return series if by == "step" else {name: _epoch_means(line, epochs) for name, line in series.items()}


def _epoch_means(line: Series, epochs: Mapping[float, float]) -> Series:
    """The mean of each epoch's values, given the epoch of each step."""
    values: dict[float, list[float]] = {}
    for step, value in zip(line.steps, line.values, strict=True):
        values.setdefault(epochs[step], []).append(value)
    return Series([*values], [fmean(own) for own in values.values()])


def _records(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        header: list[str] = []
        for row in csv.reader(file):
            if "step" in row or "epoch" in row:
                header = row
            elif not header:
                raise UserError(f"metrics without a step or epoch column: {path}")
            else:
                yield dict(zip(header, row, strict=False))


def _number(cell: str) -> float | None:
    """The finite number in a cell; None for anything else."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
