"""Training steps: losses compared with the CPU's, compilation, a process group, resuming, and speed by size."""

from __future__ import annotations

import gc
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from experiments.gpu_check.check import NEEDS_CUDA, Check
from experiments.gpu_check.recipe import (
    STEPS,
    Sizes,
    StepLog,
    fit,
    landmark_module,
    noise_batch,
    precisions,
    random_batch,
)
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy

from dolglab.contracts import Batch
from dolglab.training.checkpointing import LAST, AtomicCheckpointIO, LastCheckpoint, StopAtStep

# Allowed relative differences of the first loss, computed with the same weights, and of all losses.
FIRST = {"32-true": 1e-4, "bf16-mixed": 2e-2, "16-mixed": 5e-3}
LARGEST = {"32-true": 2e-2, "bf16-mixed": 0.2, "16-mixed": 0.2}
# Steps before and within a measurement.
WARM_UP, TIMED = 2, 4


def losses(check: Check) -> None:
    """Losses of the first steps in each precision and of the CPU in fp32, from the same weights and batches."""
    sizes = check.sizes
    exact_products()
    check.facts |= {"tf32": False, "batch": sizes.batch, "side": sizes.side, "cpu_threads": torch.get_num_threads()}
    batches = step_batches(sizes)
    made = []
    for network, name in sizes.networks.items():
        for precision in precisions(check.device):
            log = fit(landmark_module(name, sizes), on_device(batches, check), check.device, precision, check.deadline)
            made.append((network, precision, log))
            free(check)
    if not check.cuda:
        check.left_out.append(f"16-mixed: {NEEDS_CUDA}")
    for number, (network, name) in enumerate(sizes.networks.items()):
        share = check.seconds_left / (len(sizes.networks) - number)
        own = fit(landmark_module(name, sizes), batches, "cpu", deadline=time.monotonic() + share)
        if len(own.losses) < STEPS:
            check.left_out.append(f"{network}: steps of the CPU beyond {len(own.losses)}")
        for _, precision, log in (entry for entry in made if entry[0] == network):
            compare_losses(check, network, precision, log, own)


def compare_losses(check: Check, network: str, precision: str, log: StepLog, own: StepLog) -> None:
    """Record a row, and require that differences are within rounding."""
    differences = relative_differences(log.losses, own.losses)
    check.row(
        network=network,
        precision=precision,
        steps=len(differences),
        first_difference=differences[0],
        largest_difference=max(differences),
        skipped_by_scaler=log.skipped,
        losses=[round(loss, 5) for loss in log.losses],
        cpu_losses=[round(loss, 5) for loss in own.losses],
    )
    check.require(
        differences[0] <= FIRST[precision],
        f"{network} {precision}: the first loss differs from the CPU's by {differences[0]:.1e} of it",
    )
    # A step that the scaler skipped leaves different weights.
    if not log.skipped:
        check.require(
            max(differences) <= LARGEST[precision],
            f"{network} {precision}: a loss differs from the CPU's by {max(differences):.1e} of it",
        )


def inductor(check: Check) -> None:
    """The training pass with torch.compile: losses compared with eager execution, and the cost and the gain."""
    sizes = check.sizes
    network, name = next(iter(sizes.networks.items()))
    exact_products()
    batches = on_device(step_batches(sizes), check)
    # On a CPU inductor compiles C++ for minutes.
    backend = "inductor" if check.cuda else "aot_eager"
    with tempfile.TemporaryDirectory() as folder:
        # Nothing was compiled there before.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        for precision in ("bf16-mixed", "32-true") if check.cuda else ("32-true",):
            started = time.monotonic()
            if check.rows and not check.fits(precision, 1.5 * check.rows[-1]["seconds"]):
                continue
            plain = fit(landmark_module(name, sizes), batches, check.device, precision)
            compiled = fit(landmark_module(name, sizes, compiler=backend), batches, check.device, precision)
            differences = relative_differences(compiled.losses, plain.losses)
            check.row(
                network=network,
                backend=backend,
                precision=precision,
                batch=sizes.batch,
                side=sizes.side,
                first_difference=differences[0],
                largest_difference=max(differences),
                seconds_of_first_step=round(compiled.ends[0] - compiled.start, 1),
                seconds_of_first_step_eager=round(plain.ends[0] - plain.start, 1),
                images_a_second=rate(compiled, sizes.batch),
                images_a_second_eager=rate(plain, sizes.batch),
                seconds=round(time.monotonic() - started, 1),
            )
            for found, allowed in ((differences[0], FIRST), (max(differences), LARGEST)):
                check.require(found <= allowed[precision], f"{precision}: a loss differs from eager's by {found:.1e}")
    if not check.cuda:
        check.not_run = f"{NEEDS_CUDA}: only {backend} was tried"


def process_group(check: Check) -> None:
    """Steps in a process group of one, as with strategy=ddp, compared with the same steps without."""
    sizes = check.sizes
    network, name = next(iter(sizes.networks.items()))
    exact_products()
    batches = on_device(step_batches(sizes), check)
    backend = "nccl" if check.cuda else "gloo"
    strategy = DDPStrategy(
        process_group_backend=backend, gradient_as_bucket_view=True, static_graph=False, timeout=timedelta(seconds=60)
    )
    seen = Backend()
    alone = fit(landmark_module(name, sizes), batches, check.device, deterministic="warn")
    group = fit(
        landmark_module(name, sizes),
        batches,
        check.device,
        deterministic="warn",
        callbacks=[seen],
        strategy=strategy,
        sync_batchnorm=check.cuda,
    )
    differences = relative_differences(group.losses, alone.losses)
    check.row(network=network, backend=seen.name, steps=len(differences), largest_difference=max(differences))
    check.require(seen.name == backend, f"the process group uses {seen.name}, not {backend}")
    check.require(max(differences) <= 1e-5, f"a loss differs by {max(differences):.1e} of it")
    if not check.cuda:
        check.not_run = f"{NEEDS_CUDA}: only gloo was tried"


class Backend(Callback):
    """Reads the backend of the process group."""

    name: str | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read it when the group exists."""
        self.name = torch.distributed.get_backend()


def resume(check: Check) -> None:
    """Two epochs, twice uninterrupted and once resumed in between: the weights must be equal bit by bit."""
    sizes = check.sizes
    network, name = next(iter(sizes.networks.items()))
    half = STEPS // 2
    batches = on_device(step_batches(sizes)[:half], check)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")

        def trained(precision: str, *callbacks: Callback, **options: Any) -> tuple[dict[str, torch.Tensor], int]:
            module = landmark_module(name, sizes)
            log = fit(
                module, batches, check.device, precision, callbacks=callbacks, epochs=2, deterministic="warn", **options
            )
            return {key: value.cpu() for key, value in module.state_dict().items()}, len(log.losses)

        for precision in precisions(check.device):
            started = time.monotonic()
            if check.rows and not check.fits(precision, check.rows[-1]["seconds"]):
                continue
            run = Path(folder, precision)
            keep = {"plugins": [AtomicCheckpointIO()]}
            whole, _ = trained(precision)
            again, _ = trained(precision)
            _, before = trained(precision, LastCheckpoint(run), StopAtStep(half), **keep)
            rest, after = trained(precision, LastCheckpoint(run), checkpoint=run / LAST, **keep)
            repeats, same = largest_difference(whole, again), largest_difference(whole, rest)
            check.row(
                network=network,
                precision=precision,
                steps=f"{before} + {after}",
                largest_difference=same,
                largest_difference_of_two_unbroken=repeats,
                seconds=round(time.monotonic() - started, 1),
            )
            check.require((before, after) == (half, half), f"{precision}: {before} steps, then {after}")
            check.require(same == 0, f"{precision}: weights differ by {same:.1e}; two whole runs by {repeats:.1e}")
    named = {str(warning.message).split(" does not have")[0] for warning in seen if "determini" in str(warning.message)}
    check.facts["operations_without_a_deterministic_implementation"] = sorted(named)


def speed(check: Check) -> None:
    """Images per second and memory of training steps by network, precision, image side and batch size."""
    sizes = check.sizes
    check.facts |= {
        "tf32": "in convolutions, as torch has it" if torch.backends.cudnn.allow_tf32 else False,
        "landmarks": sizes.landmarks,
        "steps_timed": TIMED,
    }
    for precision in ("bf16-mixed", "32-true"):
        for side in sizes.sides:
            for network in sizes.networks:
                fits = True
                for batch in sizes.batches:
                    if fits and check.fits(f"{network} {precision} {batch} x {side} px", 0):
                        fits = measure_speed(check, network, precision, side, batch)
    if not check.cuda:
        check.left_out.append(f"memory: {NEEDS_CUDA}")
    elif check.seconds_left > 0:
        # As with trainer=gpu; tried once, since benchmarking takes seconds for every shape.
        network, batch = next(iter(sizes.networks)), sizes.batches[len(sizes.batches) // 2]
        measure_speed(check, network, "bf16-mixed", sizes.sides[0], batch, cudnn_benchmark=True)


def measure_speed(
    check: Check, network: str, precision: str, side: int, batch: int, cudnn_benchmark: bool = False
) -> bool:
    """Record a row; returns whether there was enough memory, since a larger batch needs more."""
    settings = {
        "network": network,
        "precision": precision,
        "side": side,
        "batch": batch,
        "cudnn_benchmark": cudnn_benchmark,
    }
    free(check)
    if check.cuda:
        torch.cuda.reset_peak_memory_stats()
    module = landmark_module(check.sizes.networks[network], check.sizes)
    try:
        images = [noise_batch(batch, side, check.sizes.landmarks, check.device)] * (WARM_UP + TIMED)
        log = fit(module, images, check.device, precision, benchmark=cudnn_benchmark)
    except torch.OutOfMemoryError:
        check.row(**settings, out_of_memory=True)
        return False
    check.row(**settings, images_a_second=rate(log, batch, WARM_UP), **memory_gb(check))
    return True


def step_batches(sizes: Sizes) -> list[Batch]:
    """The batches of compared steps."""
    return [random_batch(sizes.batch, sizes.side, sizes.landmarks, seed) for seed in range(STEPS)]


def on_device(batches: Sequence[Batch], check: Check) -> list[Batch]:
    """The batches on the network's device."""
    return [batch.to(check.device) for batch in batches]


def exact_products() -> None:
    """Disable TF32, which torch uses for convolutions by default."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def rate(log: StepLog, batch: int, warm_up: int = STEPS // 2) -> float:
    """Images per second after the first steps."""
    return round(batch * (len(log.ends) - warm_up) / (log.ends[-1] - log.ends[warm_up - 1]), 1)


def relative_differences(losses: Sequence[float], reference: Sequence[float]) -> list[float]:
    """The relative differences of the losses of common steps."""
    count = min(len(losses), len(reference))
    mine, theirs = np.array(losses[:count]), np.array(reference[:count])
    return (abs(mine - theirs) / abs(theirs)).tolist()


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest difference between two states of the same network."""
    return max(float((a[key].double() - b[key].double()).abs().max()) for key in a)


def memory_gb(check: Check) -> dict[str, float]:
    """Peak memory of tensors, and reserved by torch, in GB; empty without a GPU."""
    if not check.cuda:
        return {}
    peaks = {"allocated_gb": torch.cuda.max_memory_allocated(), "reserved_gb": torch.cuda.max_memory_reserved()}
    return {name: round(value / 1e9, 2) for name, value in peaks.items()}


def free(check: Check) -> None:
    """Release the GPU's memory, including objects in reference cycles."""
    gc.collect()
    if check.cuda:
        torch.cuda.empty_cache()
