"""The machine on which the check runs."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import warnings
from importlib.metadata import version

import torch
from experiments.gpu_check.check import Check
from experiments.gpu_check.packages import NEEDED
from torch.cuda import nccl


def facts(check: Check) -> None:
    """The card, its driver, versions, and the cores for what runs on the CPU."""
    check.facts |= {
        "card": None,
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        **{package: version(package) for package in NEEDED},
    }
    if not check.cuda or not torch.cuda.is_available():
        return
    properties = torch.cuda.get_device_properties(0)
    check.facts |= {
        "card": properties.name,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "driver": driver(),
        "cudnn": torch.backends.cudnn.version(),
        "nccl": ".".join(map(str, nccl.version())),
    }


def driver() -> str | None:
    """The output of nvidia-smi; None if it is not installed."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True
        )
    except FileNotFoundError:
        return None
    return done.stdout.partition("\n")[0].strip() or None


def quiet() -> None:
    """Suppress Lightning's advertisements and tips."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.simplefilter("ignore")
