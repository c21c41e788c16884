"""A search whose worker is killed, and which another worker finishes."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import pytest

from end_to_end.runs import NARROW, SMALL, card, command, losses, wait_until
from warm_python import run_python, started

pytestmark = pytest.mark.process


def test_a_killed_search_resumes_its_trial(world: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, "data.batch_size=2", "trainer.max_epochs=2"]
    asked = command(f"hydra.run.dir={study}", "trials=2", "search.p=null", module="src.tune")
    asked += ["--", *options]
    with started(asked) as process:
        wait_until(lambda: any(study.glob("0_*/checkpoints/last.ckpt")), process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = run_python(asked)
    assert done.returncode == 0, done.stderr
    with (study / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done", "done"]
    for row in rows:
        run = study / row["job"]
        assert card(run)["config"]["margin"]["margin"] == float(row["margin.margin"])
        assert card(run)["config"]["group"] == "study"
        # Chosen by validation: no trial sees the test set.
        assert card(run)["benchmarks"] == []
        assert len(losses(run)) == 24
    best = max(float(row["validation"]) for row in rows)
    assert f"best of 2 trials ({study / 'sweep.csv'}): {best:.2f} with margin.margin=" in done.stdout
    assert (study / "search.svg").is_file()


def test_a_search_over_unknown_settings_gives_one_line(tmp_path: Path) -> None:
    asked = command(f"hydra.run.dir={tmp_path / 'study'}", "search.p.key=poling.p", module="src.tune")
    done = run_python(asked)
    assert done.returncode == 2
    assert done.stderr == "error: there is no poling.p: did you mean pooling.p?\n"
