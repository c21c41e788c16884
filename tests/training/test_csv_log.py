"""The csv log: sparse rows, new columns, and a resumed run."""

from __future__ import annotations

import csv
from pathlib import Path

from dolglab.training.csv_logger import CSVLog


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_of_different_metrics_share_one_header(tmp_path: Path) -> None:
    log = CSVLog(tmp_path)
    log.log_metrics({"a": 1.0}, step=0)
    log.log_metrics({"b": 2.0}, step=1)
    log.finalize("success")
    assert rows(tmp_path) == [{"a": "1.0", "b": "", "step": "0"}, {"a": "", "b": "2.0", "step": "1"}]


def test_a_resumed_run_replaces_only_repeated_steps(tmp_path: Path) -> None:
    first = CSVLog(tmp_path)
    for step in range(5):
        first.log_metrics({"a": step}, step=step)
    first.finalize("killed")
    second = CSVLog(tmp_path)
    second.log_metrics({"a": 30, "c": 1}, step=3)
    second.finalize("success")
    assert [row["a"] for row in rows(tmp_path)] == ["0", "1", "2", "30"]


def test_a_truncated_row_is_left_out(tmp_path: Path) -> None:
    first = CSVLog(tmp_path)
    for step in range(3):
        first.log_metrics({"a": step, "z": 5}, step=step)
    first.finalize("killed")
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-3])
    second = CSVLog(tmp_path)
    second.log_metrics({"a": 7, "z": 5}, step=3)
    second.finalize("success")
    assert [row["a"] for row in rows(tmp_path)] == ["0", "1", "7"]


def test_rows_are_appended_until_a_column_is_new(tmp_path: Path) -> None:
    log = CSVLog(tmp_path)
    log.log_metrics({"a": 0}, step=0)
    log.flush()
    before = (tmp_path / "metrics.csv").stat().st_ino
    log.log_metrics({"a": 1}, step=1)
    log.flush()
    assert (tmp_path / "metrics.csv").stat().st_ino == before
    log.log_metrics({"b": 2}, step=2)
    log.finalize("success")
    assert [(row["a"], row["b"]) for row in rows(tmp_path)] == [("0", ""), ("1", ""), ("", "2")]


def test_the_log_is_written_periodically_and_never_in_part(tmp_path: Path) -> None:
    log = CSVLog(tmp_path, flush_every=5)
    for step in range(9):
        log.log_metrics({"a": step}, step=step)
        log.save()
    assert len(rows(tmp_path)) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_checkpoints_row_lost_by_a_kill_is_written_once(tmp_path: Path) -> None:
    first = CSVLog(tmp_path)
    for step in range(3):
        first.log_metrics({"a": step}, step=step)
    first.flush_for_checkpoint()
    # The same step has a row with other columns.
    for _ in range(2):
        CSVLog(tmp_path).restore({"b": 0.0, "step": 2})
        assert [row["b"] for row in rows(tmp_path)] == ["", "", "", "0.0"]
    resumed = CSVLog(tmp_path)
    resumed.log_metrics({"a": 3}, step=3)
    resumed.finalize("success")
    assert [(row["step"], row["a"], row["b"]) for row in rows(tmp_path)][2:] == [
        ("2", "2", ""),
        ("2", "", "0.0"),
        ("3", "3", ""),
    ]


def test_a_row_is_restored_without_a_file(tmp_path: Path) -> None:
    log = CSVLog(tmp_path)
    log.restore({"a": 1.0, "step": 0})
    log.finalize("success")
    assert rows(tmp_path) == [{"a": "1.0", "step": "0"}]
