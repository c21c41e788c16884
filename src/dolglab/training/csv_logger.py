"""A CSV log that a resumed run continues; Lightning's own logger deletes earlier rows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

from dolglab.io import atomic_path, fsync


class CSVLog(Logger):
    """`metrics.csv` in a run's folder: a row for each logging call, a column for each metric and for `step`.

    After resuming, rows of repeated steps are replaced. New rows are appended, `flush_every` at a time; a new column
    makes the logger rewrite the whole file, in one step.
    """

    def __init__(self, folder: str | Path, flush_every: int = 50) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self.flush_every = flush_every
        self._started = False
        self._columns: list[str] = []
        self._unsaved: list[dict[str, Any]] = []
        self._rows_to_flush = flush_every

    @property
    def name(self) -> str:
        return self.path.parent.name

    @property
    def version(self) -> str:
        """Empty: a run has one log only."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row; the first call drops the rows of steps that a resumed run repeats."""
        if not self._started:
            self._started = True
            if before := self._read():
                self._write([row for row in before if step is None or int(row["step"]) < step], list(before[0]))
        self._unsaved.append({**metrics, "step": step})

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the configuration is in `config.yaml` beside the log."""

    @rank_zero_only
    def save(self) -> None:
        """Write the rows if there are enough: Lightning calls this after every row."""
        if len(self._unsaved) >= self._rows_to_flush:
            self.flush()

    @rank_zero_only
    def flush_for_checkpoint(self) -> None:
        """Write all rows to disk before a checkpoint: a run that resumes from it will not log them again.

        The row of the checkpoint's own step, which Lightning logs just afterwards, is written at once; see `restore`.
        """
        self.flush()
        if self.path.exists():
            fsync(self.path)
        self._rows_to_flush = 1

    @rank_zero_only
    def restore(self, row: dict[str, Any]) -> None:
        """Add the row of a checkpoint's step, in case a kill prevented it from being written."""
        before = self._read()
        there = (old for old in before if int(old["step"]) == row["step"])
        if not any(all(old.get(key) for key in row) for old in there):
            self._write([*before, row], sorted({*row, *(key for old in before[:1] for key in old)}))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()

    @rank_zero_only
    def flush(self) -> None:
        if not self._unsaved:
            return
        columns = sorted({*self._columns, *(key for row in self._unsaved for key in row)})
        if columns == self._columns:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, columns).writerows(self._unsaved)
        else:
            self._write([*self._read(), *self._unsaved], columns)
        self._unsaved, self._rows_to_flush = [], self.flush_every

    def _read(self) -> list[dict[str, Any]]:
        """The rows on disk, without a last row that a kill left incomplete."""
        if not self.path.exists():
            return []
        text = self.path.read_bytes().decode("utf-8")
        return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))

    def _write(self, rows: list[dict[str, Any]], columns: list[str]) -> None:
        with atomic_path(self.path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        self._columns = columns
