"""Whether the devices that a run asks for are there."""

from __future__ import annotations

import torch

from src.contracts import InputError
from src.processes import main_process


def check_devices(accelerator: object, devices: object) -> None:
    """Raise InputError for GPUs that are not there; say so where a run takes to CPUs instead.

    Args:
        accelerator: Lightning's name of it, such as "gpu" or "auto".
        devices: how many are asked for; -1, "auto" and lists are Lightning's to judge.
    """
    there = torch.accelerator.device_count()
    if accelerator in ("gpu", "cuda") and not there:
        raise InputError("there is no GPU that torch can use (does `nvidia-smi` show one?): trainer=cpu does without")
    if not isinstance(devices, int) or accelerator not in ("gpu", "cuda", "auto"):
        return
    if there and devices > there:
        raise InputError(f"trainer.devices={devices}, but this machine has {there} GPU{'s' * (there > 1)}")
    if not there and devices > 1 and main_process():
        print(f"there is no GPU that torch can use: {devices} processes on the CPU")
