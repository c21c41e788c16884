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

    On resuming, rows of steps that are run again are replaced. New rows are appended; only a new column has the whole
    file written anew, aside and then renamed.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._started = False
        self._columns: list[str] = []
        self._unsaved: list[dict[str, Any]] = []
        self._wait = FLUSH_EVERY

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
        if not self._started:
            self._start(step)
        self._unsaved.append({**metrics, "step": step})

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration stands in `config.yaml` beside the log."""

    @rank_zero_only
    def save(self) -> None:
        """Lightning calls this after every row; the file is written from time to time."""
        if len(self._unsaved) >= self._wait:
            self.flush()

    @rank_zero_only
    def settle(self) -> None:
        """A checkpoint is being written: what it will not run again must be on disk.

        Within an epoch that includes the row of its own step, which Lightning logs just afterwards.
        """
        self.flush()
        self._wait = 1

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.flush()

    @rank_zero_only
    def flush(self) -> None:
        """Write every row so far."""
        if not self._unsaved:
            return
        columns = sorted({*self._columns, *(key for row in self._unsaved for key in row)})
        if columns == self._columns:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, columns).writerows(self._unsaved)
        else:
            self._write([*self._read(), *self._unsaved], columns)
        self._unsaved, self._wait = [], FLUSH_EVERY

    def _start(self, step: int | None) -> None:
        """Drop the rows of steps that a resumed run runs again."""
        self._started = True
        before = self._read()
        kept = [row for row in before if step is None or int(row["step"]) < step]
        if before:
            self._write(kept, list(before[0]))

    def _read(self) -> list[dict[str, Any]]:
        """The rows on disk; a last one that a kill cut short is no row."""
        if not self.path.exists():
            return []
        text = self.path.read_bytes().decode("utf-8")
        return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))

    def _write(self, rows: list[dict[str, Any]], columns: list[str]) -> None:
        aside = self.path.with_suffix(".csv.partial")
        aside.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(aside, self.path)
        self._columns = columns
