"""Jobs in their own processes: environment, errors, and stopping."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dolglab.errors import UserError
from dolglab.io import acquire, write_text
from dolglab.processes import STARTER, note_starter, starter_is_gone
from dolglab.sweeps.jobs import SweepReport, drop_refused_sweep, job_environment, run_command, run_job
from dolglab.sweeps.starting import Start, fresh


@pytest.fixture(autouse=True)
def _no_outer_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STARTER, raising=False)


def program(text: str) -> Start:
    """A program that replaces a training."""
    return fresh([sys.executable, "-c", text])


def test_a_job_numbers_its_own_processes():
    outer = {"PATH": "/bin", "LOCAL_RANK": "3", "SLURM_NTASKS": "4", "MASTER_PORT": "1", "WANDB_MODE": "offline"}
    assert job_environment(outer) == {"PATH": "/bin", "WANDB_MODE": "offline", "DOLG_STOP_WITH_PARENT": "1"}


def test_the_reason_is_the_first_error_of_a_process_that_failed_by_itself(capsys):
    gone = "error: another process of this run ended: see above"
    said = f"{gone}\nerror: the loss became nan\n{gone}"
    command = program(f"import sys; print({said!r}, file=sys.stderr); sys.exit(2)")
    assert run_command(["a=1"], start=command) == (2, "the loss became nan")
    assert "see above" in capsys.readouterr().err


def test_without_an_error_the_reason_is_the_last_line():
    command = program("import sys; sys.exit(print('Traceback\\nKeyError: 3\\n', file=sys.stderr) or 1)")
    assert run_command([], start=command) == (1, "KeyError: 3")


def test_a_stopped_sweep_ends_even_after_a_successful_training(tmp_path):
    """The training handles the signal and ends well."""
    ready = tmp_path / "ready"
    command = program(
        f"import signal, time, pathlib; signal.signal(signal.SIGTERM, lambda *_: exit(0)); "
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )

    def stop() -> bool:
        if ready.exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        run_command([], stop, command)
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_starter_of_a_sweep_is_identified_by_pid_and_start_time(monkeypatch):
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


@pytest.mark.process
def test_a_folder_used_by_another_process_is_not_a_failed_job(tmp_path):
    take = "import sys, time; from pathlib import Path; from dolglab.io import acquire\n"
    take += "print(acquire(Path(sys.argv[1])), flush=True); time.sleep(60)"
    folder = tmp_path / "sweep" / "0"
    with subprocess.Popen(
        [sys.executable, "-c", take, str(folder / ".lock")], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "True"
        with pytest.raises(UserError, match=re.escape(str(folder))):
            run_job(folder, "x", "g", [], {}, patience=0.2)
        other.kill()
    assert not (folder / "job.json").exists()
    assert acquire(Path(folder / ".lock"))


@pytest.mark.parametrize("further", [None, "0_seed-1/job.json"])
def test_a_refused_sweep_removes_its_folder_unless_a_job_wrote_to_it(tmp_path, further):
    sweep = tmp_path / "sweep"
    hydra = {"sweep": {"dir": str(sweep)}, "overrides": {"task": ["name=x", "seed=1,2"]}}
    SweepReport().on_multirun_start(OmegaConf.create({"hydra": hydra}))
    assert json.loads((sweep / "sweep.json").read_text()) == {"swept": ["seed"], "overrides": ["seed=1,2"]}
    write_text(sweep / "multirun.yaml", "")
    if further:
        write_text(sweep / further, "")
    drop_refused_sweep()
    assert sweep.exists() is (further is not None)


@pytest.mark.parametrize("launcher", ["joblib", "slurm"])
def test_a_plan_refuses_launchers(tmp_path, capsys, launcher):
    hydra = {"sweep": {"dir": str(tmp_path / "sweep")}, "runtime": {"choices": {"hydra/launcher": launcher}}}
    with pytest.raises(SystemExit):
        SweepReport().on_multirun_start(OmegaConf.create({"plan": True, "hydra": hydra}))
    assert "hydra/launcher" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_the_varied_settings_of_a_suite_are_recorded_unless_overridden(tmp_path):
    hydra = {
        "sweep": {"dir": str(tmp_path / "sweep")},
        "sweeper": {"params": {"benchmark": "a,b", "crop": "pil,none"}},
        "overrides": {"task": ["name=x", "suite=both", "entry=c,d", "crop=pil"]},
    }
    SweepReport().on_multirun_start(OmegaConf.create({"hydra": hydra}))
    about = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert about == {"swept": ["benchmark", "entry"], "overrides": ["benchmark=a,b", "crop=pil", "entry=c,d"]}
