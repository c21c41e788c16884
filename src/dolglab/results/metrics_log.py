"""The series of a run's metrics.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dolglab.errors import UserError

METRICS = "metrics.csv"


@dataclass
class Series:
    """A metric's values over steps or epochs, which only increase."""

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, step: float, value: float) -> None:
        """Append a point; a resumed run goes over steps again, and what it writes then replaces the old."""
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()
            self.values.pop()
        self.steps.append(step)
        self.values.append(value)


def read_series(path: Path, by: Literal["step", "epoch"] = "step") -> dict[str, Series]:
    """Every metric in the CSV at `path`, with its finite values by step or epoch; where one is missing, by the other.

    Cells may be empty, and a header may stand in the middle where a resumed run wrote one. Raises UserError
    when the file is missing or counts neither steps nor epochs.
    """
    series: dict[str, Series] = {}
    if not path.exists():
        raise UserError(f"metrics not found: {path} (train with logger=csv)")
    other = "epoch" if by == "step" else "step"
    for record in _records(path):
        step = _number(record.get(by, record.get(other, "")))
        for name, cell in record.items():
            value = _number(cell)
            if name not in ("step", "epoch") and step is not None and value is not None:
                series.setdefault(name, Series()).add(step, value)
    return series


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
    """The finite number in a cell, None for anything else."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
