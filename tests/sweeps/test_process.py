"""A training in a process of its own: what it says, and how it is told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dolglab.errors import UserError
from dolglab.io import acquire
from dolglab.processes import STARTER, note_starter, starter_is_gone
from dolglab.sweeps import jobs as job
from dolglab.sweeps import jobs as process


@pytest.fixture
def stands_for_training(monkeypatch: pytest.MonkeyPatch):
    """Has another program take a training's place."""

    def become(program: str) -> None:
        start = subprocess.Popen

        def popen(command: Sequence[str], **options: object) -> subprocess.Popen[str]:
            return start([sys.executable, "-c", program, *command[3:]], **options)

        monkeypatch.setattr(process.subprocess, "Popen", popen)
        monkeypatch.delenv(STARTER, raising=False)

    return become


def test_the_reason_is_the_first_error_of_a_process_that_failed_for_itself(stands_for_training, capsys):
    gone = "error: another process of this run ended: see above"
    said = f"{gone}\nerror: the loss became nan\n{gone}"
    stands_for_training(f"import sys; print({said!r}, file=sys.stderr); sys.exit(2)")
    assert process.train(["a=1"]) == (2, "the loss became nan")
    assert "see above" in capsys.readouterr().err


def test_without_an_error_it_is_the_last_line(stands_for_training):
    stands_for_training("import sys; sys.exit(print('Traceback\\nKeyError: 3\\n', file=sys.stderr) or 1)")
    assert process.train([]) == (1, "KeyError: 3")


def test_told_to_stop_it_ends_though_the_training_ended_well(stands_for_training, tmp_path):
    """The training takes the signal for its own: it was about to end."""
    ready = tmp_path / "ready"
    stands_for_training(
        f"import signal, time, pathlib; signal.signal(signal.SIGTERM, lambda *_: exit(0)); "
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )

    def stop() -> bool:
        if ready.exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        process.train([], stop)
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_starter_of_a_sweep_is_known_by_more_than_its_number(monkeypatch):
    monkeypatch.delenv(STARTER, raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not starter_is_gone()
    monkeypatch.setenv(STARTER, "")
    note_starter()
    assert not starter_is_gone()
    host, number, born = json.loads(os.environ[STARTER])
    monkeypatch.setenv(STARTER, json.dumps([host, number, f"{born}0"]))
    assert starter_is_gone()
    monkeypatch.setenv(STARTER, json.dumps(["elsewhere", number, f"{born}0"]))
    assert not starter_is_gone()


def test_a_folder_that_another_process_goes_on_with_is_no_failed_job(tmp_path, monkeypatch):
    take = "import sys, time; from pathlib import Path; from dolglab.io import acquire\n"
    take += "print(acquire(Path(sys.argv[1])), flush=True); time.sleep(60)"
    folder = tmp_path / "sweep" / "0"
    monkeypatch.setattr(job, "PATIENCE", 0.2)
    with subprocess.Popen(
        [sys.executable, "-c", take, str(folder / ".lock")], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "True"
        with pytest.raises(UserError, match=r"another process trains"):
            job.run_job(folder, "x", "g", [], {})
        other.kill()
    assert not (folder / "job.json").exists()
    assert acquire(Path(folder / ".lock"))
