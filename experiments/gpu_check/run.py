"""What a GPU changes, looked at within eight minutes: `python experiments/gpu_check/run.py [--out DIR]`.

Needs torch, lightning, timm, torchmetrics and numpy alone, no data and no network; says what of the rest is missing.
Each step runs in a process of its own with a time of its own; what does not fit is named. Writes results.json and
results.md to --out, and ends with 1 where a step failed. `--device cpu --quick` tries every step with a small network.
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
# What deterministic products want; and a look for cards that does not start CUDA, which no fork of this would survive.
os.environ |= {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}

from experiments.gpu_check.packages import NEEDED, missing, stand_in_for_jaxtyping  # noqa: E402

# Seconds for everything, of the eight minutes.
LIMIT = 465.0
# What no run of this looks at.
NOT_CHECKED = (
    "several cards, and several machines",
    "reading photographs, and loaders with worker processes",
    "training to any accuracy: weights, images and labels are random",
    "networks other than DOLG on ResNets",
)


class Step(NamedTuple):
    """A step's name, what it asks, its seconds at most, and the fewest that it is begun with."""

    name: str
    question: str
    seconds: float
    least: float


# In the order in which they should be known.
STEPS = (
    Step("losses", "Are the losses of 20 steps those of the CPU?", 130, 40),
    Step("resume", "Does a run that was stopped end with the unbroken one's weights?", 55, 20),
    Step("process_group", "Does a process group of one (NCCL) train alike?", 35, 15),
    Step("speed", "How many images a second, and how much memory, by batch size and image side?", 100, 30),
    Step("extraction", "Are descriptors at five scales the CPU's, and how fast are they?", 40, 20),
    Step("ranking", "Does the card rank as the CPU does, to the last rank?", 30, 10),
    Step("inductor", "Does torch.compile give the same losses, and what does it gain?", 110, 30),
)


def main() -> int:
    """Run the steps, print and keep what they found."""
    parser = argparse.ArgumentParser(description="What a GPU changes.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a small network and small sizes")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "gpu_check", help="folder for the results")
    parser.add_argument("--only", nargs="*", choices=[step.name for step in STEPS], help="these steps only")
    parser.add_argument("--patience", type=float, default=1.0, help="factor on every limit of time (default 1)")
    options = parser.parse_args()
    absent = missing()
    stand_in_for_jaxtyping()
    # After the stand-in.
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
            found = not_run("not asked for")
        elif not there:
            found = not_run(NEEDS_CUDA)
        elif left < step.least:
            found = not_run(f"{left:.0f} s were left, and it is not begun with less than {step.least:.0f} s")
        else:
            work = getattr(retrieval if step.name in ("extraction", "ranking") else training, step.name)
            found = run_step(work, options.device, sizes, min(step.seconds * options.patience, left))
        results["steps"][step.name] = {"question": step.question, **found}
        results["seconds"] = round(time.monotonic() - START, 1)
        # After each step, for a run that is broken off.
        write(options.out, results)
        print(f"{step.name}: {found['status']}{': ' + found['reason'] if found['reason'] else ''}", flush=True)
    print(f"\n{as_markdown(results)}")
    return 1 if any(found["status"] == "failed" for found in results["steps"].values()) else 0


def not_run(reason: str) -> dict[str, Any]:
    """The result of a step that was not begun."""
    return {"status": "not run", "reason": reason, "left_out": [], "facts": {}, "rows": [], "seconds": 0.0}


def commit() -> str | None:
    """What git calls this checkout; None outside one."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


if __name__ == "__main__":
    sys.exit(main())
