"""Shared by these tests: small settings, commands, and readers of a run's files."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from dolglab.models.checkpoint import read_checkpoint
from warm_python import WarmPython, started

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "backbone=r18",
    "backbone.name=test_resnet.r160_in1k",
    "backbone.pretrained=false",
    "data.image_size=64",
    "local.dilations=[1,2,3]",
    "data.batch_size=8",
    "data.workers=0",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "optim.optimizer.lr=0.01",
    "test_scales=[1.0]",
]
# Descriptors of other tests, and of other code, must not be reused.
OWN_STORE = ["store=${output_dir}/descriptors"]
NARROW = ["model.dim=16", "model.hidden=16"]


def config(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, overrides=[*OWN_STORE, *overrides] if name in ("train", "evaluate") else list(overrides))


def card(run: Path) -> dict:
    return json.loads((run / "card.json").read_text())


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def losses(run: Path) -> list[float]:
    """Training losses in the order of their steps, which must be complete."""
    rows = [row for row in metrics(run) if row.get("train/loss")]
    assert [int(row["step"]) for row in rows] == list(range(len(rows)))
    return [float(row["train/loss"]) for row in rows]


def command(*overrides: str, module: str = "src.train") -> list[str]:
    """The arguments of `python` for a command."""
    own = OWN_STORE if module == "src.evaluate" else []
    return ["-m", module, *own, *overrides]


def kill_when(condition: Callable[[], bool], arguments: list[str]) -> None:
    """Start a command, and kill it with its loader workers by SIGKILL once the condition holds."""
    with started(arguments) as process:
        wait_until(condition, process)


def wait_until(condition: Callable[[], bool], process: WarmPython) -> None:
    while not condition():
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.05)


def refused(main: Callable[[DictConfig], object], cfg: DictConfig, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(cfg)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def samples_drawn(checkpoint: Path) -> int:
    """The number of samples of the epoch that were drawn before a checkpoint was written."""
    loops = read_checkpoint(checkpoint)["loops"]
    return loops["fit_loop"]["state_dict"]["combined_loader"][0]["samples"]
