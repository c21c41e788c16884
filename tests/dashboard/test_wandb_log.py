"""The W&B log: its id, its axis, and an unreachable server or a missing key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from dashboard.wandb_file import history, records
from dolglab.errors import UserError
from dolglab.training.wandb_logging import STEP, WandbLog, run_id

# Port 9 discards its input, if anything listens there at all.
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _own_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
    # A run that an earlier test left open.
    end()
    yield
    end()


def end() -> None:
    """W&B's service has written everything once it has ended."""
    wandb.finish()
    wandb.teardown()


def logged(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def test_a_resumed_run_keeps_its_id_and_axis(tmp_path):
    for step in (3, 7):
        log = WandbLog(tmp_path, offline=True, project="dolg", name="a run", group="a sweep")
        log.log_metrics({"val/medium": 0.5 + step / 100, "train/loss": 1 / step}, step=step)
        log.finalize("success")
        end()
    files = logged(tmp_path)
    runs = [r.run for file in files for r in records(file) if r.WhichOneof("record_type") == "run"]
    assert {(run.run_id, run.display_name, run.run_group) for run in runs} == {(run_id(tmp_path), "a run", "a sweep")}
    assert [row[STEP] for file in files for row in history(file)] == [3, 7]
    metrics = {r.metric.name: r.metric for r in records(files[0]) if r.WhichOneof("record_type") == "metric"}
    assert metrics["val/medium"].summary.max
    assert metrics["train/loss"].summary.min
    assert metrics["val/medium"].step_metric == STEP


def test_an_unreachable_server_does_not_stop_a_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    log = WandbLog(tmp_path, connect_seconds=1, project="dolg")
    log.log_metrics({"train/loss": 2.0}, step=1)
    log.finalize("success")
    end()
    said = capsys.readouterr().err
    assert "W&B cannot be reached" in said
    assert "wandb sync" in said
    (file,) = logged(tmp_path)
    assert history(file)[0]["train/loss"] == 2.0


@pytest.mark.parametrize("key", ["short", None])
def test_a_wrong_or_missing_key_gives_one_line(tmp_path, monkeypatch, key):
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    log = WandbLog(tmp_path, project="dolg")
    with pytest.raises(UserError, match=r"logger\.wandb\.offline=true"):
        log.log_metrics({"train/loss": 2.0}, step=1)


def test_two_folders_have_two_runs(tmp_path):
    assert run_id(tmp_path / "a") != run_id(tmp_path / "b")
    assert run_id(tmp_path / "a") == run_id(tmp_path / "a")


def test_a_run_of_an_agent_keeps_the_given_id(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    assert run_id(tmp_path) == "given"
    monkeypatch.setenv("WANDB_RUN_ID", "another")
    assert run_id(tmp_path) == "given"
