"""Is anything lost when a training is killed? `python experiments/chaos/run.py [--kills 20] [overrides of src.train]`.

A short training runs once without interruption, and once killed at random moments (SIGKILL, with its loader workers,
other processes and anything it is writing) and resumed each time. The final weights and optimizer must be equal bit
by bit, a repeated step must draw the same samples as before, and an epoch each sample once. Otherwise the exit code
is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OUT = ROOT / "outputs" / "chaos"
# Drop path, batch norm and momentum: results that depend on random numbers and on earlier steps.
RECIPE = [
    "experiment=demo",
    "backbone.freeze_until=0",
    "backbone.drop_path=0.2",
    "data._target_=witness.WitnessedData.from_gldv2",
    "data.image_size=64",
    "data.batch_size=32",
    "data.workers=1",
    "data.test.demo=null",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "freeze_epochs=1",
    "checkpoint_steps=2",
]
# The longest training time of a killed run in seconds, after its start.
BEYOND = 4.0


def main() -> int:
    """Train with and without kills, and compare; returns the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--minutes", type=float, default=20, help="give up after this long")
    options.add_argument("--seed", type=int, default=0, help="seed of the moments")
    given, overrides = options.parse_known_args()
    shutil.rmtree(OUT, ignore_errors=True)
    end = time.monotonic() + 60 * given.minutes
    startup = unbroken(overrides, end)
    kills = broken(overrides, given.kills, startup, random.Random(given.seed), end)
    faults = [*differences(), *repeats()]
    print(f"{kills} kills, {redone()} steps made again; " + ("; ".join(faults) or "nothing was lost"))
    return 1 if faults or kills < given.kills else 0


def unbroken(overrides: list[str], end: float) -> float:
    """Train without interruption; returns the seconds until the first checkpoint."""
    start, first = time.monotonic(), OUT / "unbroken" / "checkpoints" / "last.ckpt"
    with subprocess.Popen(command("unbroken", overrides), cwd=ROOT, env=environment()) as process:
        while not first.exists() and process.poll() is None:
            time.sleep(0.05)
        startup = time.monotonic() - start
        if process.wait(end - time.monotonic()):
            raise SystemExit("the uninterrupted training failed")
    return startup


def broken(overrides: list[str], kills: int, startup: float, chance: random.Random, end: float) -> int:
    """Train with kills at random moments; returns their number."""
    done = 0
    while time.monotonic() < end:
        resume = ["resume=true"] if (OUT / "broken" / "config.yaml").exists() else []
        limit = chance.uniform(0, startup + BEYOND) if done < kills else end - time.monotonic()
        process = subprocess.Popen(
            command("broken", [*overrides, *resume]),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            if process.wait(limit):
                raise SystemExit("a resumed training failed")
            return done
        except subprocess.TimeoutExpired:
            done += 1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    raise SystemExit(f"{done} kills, and the training has not ended: increase --minutes")


def differences() -> list[str]:
    """The differences between the last checkpoints of the two runs."""
    files = (OUT / name / "checkpoints" / "last.ckpt" for name in ("unbroken", "broken"))
    whole, killed = (flat(torch.load(file, weights_only=True)) for file in files)
    wrong = [key for key in whole if not torch.equal(whole[key], killed.get(key, torch.empty(0)))]
    print(f"{len(whole)} tensors of weights and optimizer, {len(wrong)} differ", *wrong[:3])
    return [f"{len(wrong)} tensors differ, such as {wrong[0]}"] if wrong else []


def flat(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights and momenta by name."""
    momenta = checkpoint["optimizer_states"][0]["state"]
    return {
        **checkpoint["state_dict"],
        **{f"momentum {key}": state["momentum_buffer"] for key, state in momenta.items() if state},
    }


def repeats() -> list[str]:
    """Steps that drew other samples when repeated, or than without kills, and samples drawn twice in an epoch."""
    whole, killed = drawn("unbroken"), drawn("broken")
    faults = [f"step {step} drew other samples" for step, draws in killed.items() if len(set(draws)) > 1]
    faults += [f"step {step} drew other samples without kills" for step in whole if whole[step][0] not in killed[step]]
    epochs: dict[str, list[str]] = {}
    for (epoch, *_), draws in killed.items():
        epochs.setdefault(epoch, []).extend(draws[-1])
    for epoch, samples in epochs.items():
        print(f"epoch {epoch}: {len(samples)} samples, {len(set(samples))} different")
        faults += [f"epoch {epoch} drew a sample twice"] if len(set(samples)) < len(samples) else []
    return faults


def redone() -> int:
    """The number of repeated steps."""
    return sum(len(draws) > 1 for draws in drawn("broken").values())


def drawn(name: str) -> dict[tuple[str, str, str], list[tuple[str, ...]]]:
    """By epoch, step and process, the samples of each time it ran, without lines that a kill cut off."""
    found: dict[tuple[str, str, str], list[tuple[str, ...]]] = {}
    for file in sorted((OUT / "witness" / name).glob("samples.*.txt")):
        lines = [line.split() for line in file.read_text().splitlines()]
        size = max(map(len, lines))
        for epoch, step, *ids in (line for line in lines if len(line) == size):
            found.setdefault((epoch, step, file.name), []).append(tuple(ids))
    return found


def command(name: str, overrides: list[str]) -> list[str]:
    """A training of one of the two runs."""
    own = [f"name=chaos/{name}", f"+data.witness={OUT / 'witness' / name}"]
    return [sys.executable, "-W", "ignore", "-m", "src.train", *RECIPE, *own, *overrides]


def environment() -> dict[str, str]:
    """The environment in which this folder's data module is found."""
    return os.environ | {"PYTHONPATH": str(HERE), "OMP_WAIT_POLICY": "PASSIVE"}


if __name__ == "__main__":
    sys.exit(main())
