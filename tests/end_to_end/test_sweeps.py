"""A Hydra multirun: every job is a separate training, also with several processes."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pytest

from dolglab.models.checkpoint import read_checkpoint
from end_to_end.runs import NARROW, SMALL, card, command, losses, wait_until
from end_to_end.system import processes_of, wait_for
from warm_python import run_python, started

pytestmark = pytest.mark.process

DEMO = [*SMALL, *NARROW, "trainer.max_epochs=1", "data=demo"]


def rows(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_jobs_of_two_processes_train_and_a_failed_one_does_not_end_the_sweep(world: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    options = [*DEMO, f"data.root={world}", "strategy=ddp_gloo", "trainer.devices=2", "name=trial"]
    options += ["logger=wandb", "logger.wandb.offline=true"]
    asked = command("-m", f"hydra.sweep.dir={sweep}", *options, "margin.margin=4,0.1")
    done = run_python(asked)
    assert done.returncode == 0, done.stderr
    assert [row["job"] for row in rows(sweep)] == ["0_margin-4", "1_margin-0.1"]
    assert [row["status"] for row in rows(sweep)] == ["failed", "done"]
    assert "margin must be in" in rows(sweep)[0]["reason"]
    assert "2 jobs, 1 failed" in done.stdout
    # Only the first process of each job prints, and none runs the sweep again.
    assert done.stdout.count("page: ") == 1
    for row in rows(sweep)[1:]:
        run = sweep / row["job"]
        assert card(run)["name"] == f"trial/{row['job']}"
        assert card(run)["config"]["margin"]["margin"] == float(row["margin.margin"])
        assert float(row["validation"]) == pytest.approx(100 * card(run)["validation_map"], abs=0.01)
        assert len(losses(run)) == 3
        assert len(list((run / "wandb").glob("offline-run-*"))) == 1
        assert card(run)["config"]["group"] == "trial"
    assert not [path for path in sweep.iterdir() if path.name.isdigit()]

    before = (sweep / "1_margin-0.1" / "card.json").stat().st_mtime_ns
    again = run_python(asked)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("page: ") == 0
    assert (sweep / "1_margin-0.1" / "card.json").stat().st_mtime_ns == before
    assert json.loads((sweep / "sweep.json").read_text())["swept"] == ["margin.margin"]
    other = run_python([*asked, "pooling.p=5"])
    assert other.returncode == 2
    assert "holds another sweep" in other.stderr


def test_a_stopped_sweep_is_resumed(world: Path, tmp_path: Path) -> None:
    sweep, folders = tmp_path / "sweep", ["0_margin-0.1", "1_margin-0.2"]
    options = [*DEMO, f"data.root={world}", "name=trial", "data.batch_size=2", "trainer.max_epochs=8"]
    options += ["margin.margin=0.1,0.2"]
    asked = command("-m", f"hydra.sweep.dir={sweep}", *options)
    last = sweep / folders[0] / "checkpoints" / "last.ckpt"
    with started(asked) as process:
        wait_until(last.exists, process)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1] == "stopped; the same command with name=trial resumes it"
    assert not list(sweep.glob("*/job.json"))
    kept = read_checkpoint(last)["global_step"]
    done = run_python(asked)
    assert done.returncode == 0, done.stderr
    assert [(row["job"], row["status"]) for row in rows(sweep)] == [(name, "done") for name in folders]
    assert len(losses(sweep / folders[0])) == 96 > kept > 0
    assert (sweep / "comparison.svg").is_file()


def test_a_preempted_job_is_queued_again_and_resumed(world: Path, tmp_path: Path) -> None:
    """By submitit's local executor, which sends the same signal as Slurm before it preempts a job."""
    sweep, last = tmp_path / "sweep", tmp_path / "sweep" / "0" / "checkpoints" / "last.ckpt"
    options = [*DEMO, f"data.root={world}", "name=trial", "data.batch_size=2", "trainer.max_epochs=3"]
    with started(command("-m", f"hydra.sweep.dir={sweep}", *options, "hydra/launcher=submitit_local")) as process:
        wait_until(last.exists, process)
        (job,) = processes_of("submitit.core._submit", str(sweep))
        os.kill(job, signal.SIGUSR2)
        _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert [(row["job"], row["status"]) for row in rows(sweep)] == [("0", "done")]
    assert len(losses(sweep / "0")) == 36
    (log,) = sweep.glob(".submitit/*/*_0_log.out")
    assert "Requeued job" in log.with_suffix(".err").read_text() + log.read_text()


def test_parallel_jobs_end_with_their_sweep(world: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    options = [*DEMO, f"data.root={world}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "data.batch_size=2"]
    asked = command("-m", f"hydra.sweep.dir={sweep}", *options, "seed=1,2", "name=side")
    with started(asked) as process:
        wait_until(lambda: any(sweep.glob("*/checkpoints/last.ckpt")), process)
        jobs = ("dolglab.commands.train", 'name="side/')
        assert processes_of(*jobs)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_for(lambda: not processes_of(*jobs))
    done = run_python(asked)
    assert done.returncode == 0, done.stderr
    assert [(row["job"], row["status"]) for row in rows(sweep)] == [("0_seed-1", "done"), ("1_seed-2", "done")]


def test_a_sweep_refuses_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    done = run_python(command("-m", f"hydra.sweep.dir={tmp_path / 'sweep'}", *DEMO, "seed=1,2"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: start a sweep once")
    assert not list(tmp_path.glob("sweep/*"))
