"""Checks on a GPU within eight minutes: `python experiments/gpu_check/run.py [--out DIR]`.

Needs only torch, lightning, timm, torchmetrics and numpy, no data and no network; lists other missing packages.
Each step has its own process and time limit; what does not fit is listed. Writes results.json and
results.md to --out, and exits with 1 if a step failed. `--device cpu --quick` tries every step with a small network.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

START = time.monotonic()
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
# Required for deterministic products; and GPUs are detected without starting CUDA, which forks would not survive.
os.environ |= {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}

from experiments.gpu_check.packages import NEEDED, missing, stand_in_for_jaxtyping  # noqa: E402

# Seconds for everything, of the eight minutes.
LIMIT = 465.0
# What this script never checks.
NOT_CHECKED = (
    "several cards, and several machines",
    "reading photographs, and loaders with worker processes",
    "training to any accuracy: weights, images and labels are random",
    "networks other than DOLG on ResNets",
)


class Step(NamedTuple):
    """A step's name, its question, its time limit, and the least time left with which it is started, in seconds."""

    name: str
    question: str
    seconds: float
    least: float


# In the order in which they should be known.
STEPS = (
    Step("losses", "Are the losses of 20 steps those of the CPU?", 130, 40),
    Step("resume", "Does a resumed run end with the same weights as an uninterrupted one?", 55, 20),
    Step("process_group", "Does a process group of one (NCCL) give the same training?", 35, 15),
    Step("speed", "How many images per second, and how much memory, by batch size and image side?", 100, 30),
    Step("extraction", "Are descriptors at five scales the same as on the CPU, and how fast are they?", 40, 20),
    Step("ranking", "Are rankings on the GPU the same as on the CPU, to the last rank?", 30, 10),
    Step("inductor", "Does torch.compile give the same losses, and what does it gain?", 110, 30),
)


def main() -> int:
    """Run the steps, and print and write their results."""
    parser = argparse.ArgumentParser(description="Checks on a GPU.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a small network and small sizes")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "gpu_check", help="folder for the results")
    parser.add_argument("--only", nargs="*", choices=[step.name for step in STEPS], help="these steps only")
    parser.add_argument("--patience", type=float, default=1.0, help="factor on every limit of time (default 1)")
    options = parser.parse_args()
    absent = missing()
    stand_in_for_jaxtyping()
    # After the replacement for jaxtyping.
    from experiments.gpu_check import machine, retrieval, training
    from experiments.gpu_check.check import NEEDS_CUDA, run_step
    from experiments.gpu_check.recipe import QUICK, Sizes
    from experiments.gpu_check.report import as_markdown, write

    machine.quiet()
    sizes = QUICK if options.quick else Sizes()
    described = run_step(machine.facts, options.device, sizes, 60 * options.patience)
    results: dict[str, Any] = {
        "options": {"device": options.device, "quick": options.quick},
        "commit": commit(),
        "machine": described["facts"],
        "needed": NEEDED,
        "missing": absent,
        "not_checked": NOT_CHECKED,
        "steps": {},
    }
    there = options.device == "cpu" or described["facts"].get("card") is not None
    for step in STEPS:
        left = LIMIT * options.patience - (time.monotonic() - START)
        if options.only is not None and step.name not in options.only:
            found = not_run("not selected")
        elif not there:
            found = not_run(NEEDS_CUDA)
        elif left < step.least:
            found = not_run(f"{left:.0f} s were left, and it needs at least {step.least:.0f} s")
        else:
            work = getattr(retrieval if step.name in ("extraction", "ranking") else training, step.name)
            found = run_step(work, options.device, sizes, min(step.seconds * options.patience, left))
        results["steps"][step.name] = {"question": step.question, **found}
        results["seconds"] = round(time.monotonic() - START, 1)
        # After each step, in case the run is interrupted.
        write(options.out, results)
        print(f"{step.name}: {found['status']}{': ' + found['reason'] if found['reason'] else ''}", flush=True)
    print(f"\n{as_markdown(results)}")
    return 1 if any(found["status"] == "failed" for found in results["steps"].values()) else 0


def not_run(reason: str) -> dict[str, Any]:
    """The result of a step that was not started."""
    return {"status": "not run", "reason": reason, "left_out": [], "facts": {}, "rows": [], "seconds": 0.0}


def commit() -> str | None:
    """The git description of this checkout; None outside one."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


if __name__ == "__main__":
    sys.exit(main())
