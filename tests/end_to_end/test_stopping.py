"""Killed, stopped and resumed runs."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from dolglab.commands.train import main as train
from dolglab.models.checkpoint import read_checkpoint
from end_to_end.runs import (
    NARROW,
    SMALL,
    card,
    command,
    config,
    kill_when,
    losses,
    metrics,
    refused,
    samples_drawn,
    wait_until,
)
from warm_python import run_python, started

pytestmark = pytest.mark.process


def test_a_training_killed_twice_ends_like_an_uninterrupted_one(world: Path, tmp_path: Path) -> None:
    options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, "data.workers=1", "trainer.max_epochs=2"]
    options += ["data.batch_size=2", "checkpoint_steps=2", "trainer.max_steps=20", "backbone.drop_path=0.2"]
    unbroken, run = tmp_path / "unbroken", tmp_path / "run"
    whole = run_python(command(f"hydra.run.dir={unbroken}", *options))
    assert whole.returncode == 0, whole.stderr
    last = run / "checkpoints" / "last.ckpt"
    here = f"hydra.run.dir={run}"
    kill_when(last.exists, command(here, "resume=auto", *options))
    assert 0 < samples_drawn(last) < 24
    before = last.stat().st_mtime_ns
    # Within the first epoch; the next checkpoint is written at its end.
    changed = ["test_scales=[0.5]", "checkpoint_steps=null"]
    kill_when(lambda: last.stat().st_mtime_ns != before, command(here, "resume=true", *changed))
    finished = run_python(command(here, "resume=auto", "checkpoint_minutes=5"))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("resuming from") == 1
    at = f"resuming from {last}: at the start of epoch 2 of 2, step 12; this is the last epoch; ends at step 20"
    assert f"{at}\n" in finished.stdout
    assert "resumed with other settings: checkpoint_minutes: 30 -> 5\n" in finished.stdout
    assert losses(run) == losses(unbroken)
    expected, found = (read_checkpoint(path / "checkpoints" / "last.ckpt")["state_dict"] for path in (unbroken, run))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    assert len(losses(run)) == 20
    assert card(run)["protocol"]["scales"] == [0.5]
    best = max(float(row["val/medium"]) for row in metrics(run) if row.get("val/medium"))
    assert best == pytest.approx(
        max(float(row["val/medium"]) for row in metrics(unbroken) if row.get("val/medium")), abs=1e-6
    )


TWO = ["strategy=ddp_gloo", "trainer.devices=2", "data.batch_size=4"]


# Like a scheduler that signals each process of a run.
ALL = ["data.workers=2"]


@pytest.mark.parametrize(
    ("number", "code", "options"),
    [
        (signal.SIGINT, 130, []),
        (signal.SIGTERM, 143, []),
        (signal.SIGUSR1, 143, []),
        (signal.SIGTERM, 143, TWO),
        (signal.SIGTERM, 143, ALL),
        (signal.SIGUSR1, 143, ALL),
        (signal.SIGINT, 130, ALL),
        (signal.SIGINT, 130, TWO),
    ],
)
def test_a_stopped_run_keeps_its_steps_and_prints_how_to_resume(
    world: Path, tmp_path: Path, number: signal.Signals, code: int, options: list[str]
) -> None:
    last = tmp_path / "checkpoints" / "last.ckpt"
    asked = ["data=demo", f"data.root={world}", *SMALL, *NARROW, "trainer.max_epochs=200", "data.batch_size=2"]
    with started(command(*asked, *options, f"hydra.run.dir={tmp_path}")) as process:
        wait_until(last.exists, process)
        if options == ALL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        printed, said = process.communicate(timeout=120)
    assert process.returncode == code
    # The curves so far, but no result.
    page = tmp_path / "report.html"
    assert f"page: {page}\n" in printed
    assert "Loss by step" in page.read_text()
    assert not (tmp_path / "card.json").exists()
    assert "resume=true name=" in said.strip().splitlines()[-1]
    assert "Traceback" not in said
    assert read_checkpoint(last)["global_step"] == len(losses(tmp_path))


def test_a_resumed_run_says_from_where(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [f"output_dir={tmp_path}", "data=demo", f"data.root={world}", *SMALL, *NARROW, "test=false"]
    asked += ["trainer.max_epochs=1", "data.batch_size=2", "checkpoint_steps=5"]
    train(config("train", *asked))
    assert "resuming" not in capsys.readouterr().out
    last = tmp_path / "checkpoints" / "last.ckpt"
    train(config("train", *asked, "resume=true"))
    assert (
        f"resuming from {last}: training is done (epoch 1, step 12); to lengthen it: trainer.max_epochs=2"
        in capsys.readouterr().out
    )
    # As after a kill before the epoch's end.
    shutil.copy(last.with_name("previous.ckpt"), last)
    train(config("train", *asked, "resume=true"))
    said = capsys.readouterr().out
    assert f"resuming from {last}: within epoch 1 of 1, step 10; this is the last epoch\n" in said
    assert read_checkpoint(last)["global_step"] == 12


def test_a_run_cannot_resume_with_another_split(photos: Path, tmp_path: Path, capsys) -> None:
    options = [f"output_dir={tmp_path}", *SMALL, *NARROW, "data=folder", f"data.root={photos}", "trainer.max_epochs=1"]
    train(config("train", *options))
    assert "not those that" in refused(train, config("train", *options, "resume=true", "seed=5"), capsys)


def test_another_network_cannot_resume_a_run(trained: tuple[Path, float], world: Path, capsys) -> None:
    overrides = [f"output_dir={trained[0]}", "data=demo", f"data.root={world}", *SMALL, "model.dim=8", "resume=true"]
    assert "another architecture" in refused(train, config("train", *overrides), capsys)


def test_an_interrupted_preparation_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "world"
    with started(command("task=demo_world", f"root={root}", module="src.prepare")) as process:
        wait_until(lambda: any(tmp_path.glob(".world*/train/*/*/*/*.jpg")), process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1] == "stopped; the same command resumes it"
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
