"""The prediction head at GLDv2-clean's size: in one process, copied to two gloo processes, and class-parallel.

    PYTHONPATH=. python experiments/benchmarks/head.py

81,313 classes, descriptors of 512 values, a global batch of 128, SGD with momentum. A step is forward, backward, the
averaging of the gradient if the head is copied, and the update; medians. Memory is that of the head, its gradient and
its momentum, and the peak of a process in addition to what it used before the head was created (Linux).
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dolglab.losses.class_parallel import ClassParallel
from dolglab.losses.margin import ArcFace

CLASSES, DIM, BATCH, ROUNDS = 81_313, 512, 128, 5


def measure(kind: str, rank: int, world: int, meeting: str) -> tuple[float, float, float, float]:
    """Seconds per step, loss of the first step, megabytes of weight, gradient and momentum, and peak megabytes."""
    torch.set_num_threads(2 // world)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    before = status_megabytes("VmRSS")
    torch.manual_seed(0)
    head = ArcFace(DIM, CLASSES)
    parallel = ClassParallel(head) if kind == "class-parallel" else None
    if parallel:
        parallel.split(rank, world)
    share = BATCH // world
    x = torch.randn(BATCH, DIM)[rank * share : (rank + 1) * share].requires_grad_()
    labels = torch.randint(0, CLASSES, (BATCH,))[rank * share : (rank + 1) * share]
    optimizer = torch.optim.SGD(head.parameters(), 0.01, momentum=0.9)
    Path("/proc/self/clear_refs").write_text("5")
    times, first = [], 0.0
    for turn in range(ROUNDS + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = parallel.loss(x, labels, turn).loss if parallel else head.loss(x, labels).loss
        loss.backward()
        if world > 1 and not parallel:
            average(head.weight, loss, world)
        optimizer.step()
        times.append(time.perf_counter() - start)
        first = first if turn else float(mean(loss.detach(), 1 if parallel else world))
    if world > 1:
        dist.destroy_process_group()
    held = 3 * head.weight.numel() * 4 / 2**20
    return statistics.median(times[1:]), first, held, status_megabytes("VmHWM") - before


def average(weight: nn.Parameter, loss: Tensor, world: int) -> None:
    """Average the gradient of a head that every process has a copy of, as DDP does."""
    assert weight.grad is not None
    dist.all_reduce(weight.grad)
    weight.grad /= world


def mean(x: Tensor, world: int) -> Tensor:
    """The mean over processes."""
    if world > 1:
        dist.all_reduce(x)
    return x / world


def status_megabytes(field: str) -> float:
    """A value of /proc/self/status, in MB (there in kB)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    """Print a line for each arrangement."""
    print(f"{CLASSES} classes, {DIM}-d, global batch {BATCH}, medians of {ROUNDS} steps, two cores in all")
    for kind, world in (("plain", 1), ("copied", 2), ("class-parallel", 2)):
        with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(world) as pool:
            arguments = [(kind, rank, world, f"{folder}/meeting") for rank in range(world)]
            found = pool.starmap(measure, arguments, chunksize=1)
        seconds, loss, held, peak = found[0]
        print(
            f"{kind:>14}, {world} process{'es' if world > 1 else '  '}: {seconds:5.2f} s per step, loss {loss:.4f}, "
            f"{held:4.0f} MB of weight, gradient and momentum per process, peak {peak:5.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
