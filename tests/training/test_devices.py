"""Requested devices that do not exist."""

import pytest
import torch

from dolglab.commands.build_training import check_devices
from dolglab.errors import UserError
from dolglab.processes import launched


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that this machine has this many GPUs."""
    return lambda count: monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)


def test_too_many_gpus_and_no_gpus_are_refused(gpus):
    gpus(4)
    with pytest.raises(UserError, match=r"trainer\.devices=8.* 4 GPUs"):
        check_devices("auto", 8)
    check_devices("gpu", 4)
    check_devices("gpu", -1)
    check_devices("cpu", 8)
    gpus(0)
    with pytest.raises(UserError, match="trainer=cpu"):
        check_devices("gpu", "auto")


def test_a_run_that_falls_back_to_the_cpu_reports_it(gpus, capsys):
    gpus(0)
    check_devices("auto", 1)
    check_devices("cpu", 2)
    assert capsys.readouterr().out == ""
    check_devices("auto", 2)
    assert "2 processes on the CPU" in capsys.readouterr().out


def test_torchrun_determines_the_number_of_processes(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setenv("WORLD_SIZE", "32")
    assert launched() == {}
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert launched() == {"devices": 8, "num_nodes": 4}
