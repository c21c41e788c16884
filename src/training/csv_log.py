"""A csv log that a resumed run continues; Lightning's own deletes what stood there."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

# Rows between two writes of the file.
FLUSH_EVERY = 50


class CSVLog(Logger):
    """`metrics.csv` in a run's folder: a row for each logging call, a column for each metric, `step` among them.

    On resuming, rows of steps that are run again are replaced. The file is written aside and renamed.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._rows: list[dict[str, Any]] | None = None
        self._unsaved = 0

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """A run has one log only."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row."""
        if self._rows is None:
            self._rows = [row for row in self._read() if step is None or int(row["step"]) < step]
        self._rows.append({**metrics, "step": step})
        self._unsaved += 1

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration stands in `config.yaml` beside the log."""

    @rank_zero_only
    def save(self) -> None:
        """Lightning calls this after every row; the file is written from time to time."""
        if self._unsaved >= FLUSH_EVERY:
            self.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.flush()

    @rank_zero_only
    def flush(self) -> None:
        """Write every row so far."""
        if self._rows:
            self._write(self._rows)

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _write(self, rows: list[dict[str, Any]]) -> None:
        columns = sorted({key for row in rows for key in row})
        aside = self.path.with_suffix(".csv.partial")
        aside.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(aside, self.path)
        self._unsaved = 0
