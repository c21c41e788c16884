"""A training step compared with a textbook implementation: all of R50 + ASPP, and local branch with fusion.

    PYTHONPATH=. python experiments/benchmarks/train_step.py

Textbook: the same network and weights with contiguous tensors, complete dilated convolutions, the pooled branch
expanded over the map, the projection of every position as a map, and pooling after the fusion. Both alternate. Prints
medians, and the peak memory in addition to what the process used before, each measured in its own process that
returns freed blocks at once: otherwise memory would vary between runs by more than the difference of the two.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from experiments.benchmarks.fusion import textbook
from torch import Tensor, nn

from dolglab.losses.margin import ArcFace
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import DOLG
from dolglab.models.fusion import orthogonal_fusion
from dolglab.models.local_branch import ASPP, DilatedConv, LocalBranch

ROUNDS = 5
CLASSES = 100
STEPS = ((224, 16), (512, 2))
MAPS = ((14, 16), (32, 2))

Step = Callable[[], None]


class TextbookASPP(ASPP):
    """Every branch as a map, concatenated and projected."""

    def forward(self, features: Tensor) -> Tensor:
        pooled = F.relu(self.pool(features.mean((-2, -1), keepdim=True))).expand(-1, -1, *features.shape[-2:])
        return F.relu(self.project(torch.cat([pooled, *(branch(features) for branch in self.branches)], dim=1)))


def as_textbook(module: nn.Module) -> nn.Module:
    """A copy, contiguous, with whole convolutions."""
    module = copy.deepcopy(module).to(memory_format=torch.contiguous_format)
    for parent in list(module.modules()):
        if isinstance(parent, ASPP):
            parent.__class__ = TextbookASPP
        for name, child in parent.named_children():
            if isinstance(child, DilatedConv):
                reach = child.dilation[0]
                plain = nn.Conv2d(child.in_channels, child.out_channels, 3, padding=reach, dilation=reach)
                plain.load_state_dict(child.state_dict())
                setattr(parent, name, plain)
    return module


def whole_steps(size: int, batch: int) -> dict[str, Step]:
    """A step of SGD on random images, ours and the textbook's."""
    torch.manual_seed(0)
    ours = DOLG(Backbone("resnet50.tv_in1k", pretrained=False)).to(memory_format=torch.channels_last)
    plain = as_textbook(ours)
    assert isinstance(plain, DOLG)
    plain.fusion = textbook
    images = torch.randn(batch, size, size, 3).permute(0, 3, 1, 2)
    labels = torch.randint(0, CLASSES, (batch,))
    return {"textbook": trainer(plain, images.contiguous(), labels), "ours": trainer(ours, images, labels)}


def trainer(model: nn.Module, images: Tensor, labels: Tensor) -> Step:
    """Forward, backward and update of a network with its head."""
    head = ArcFace(512, CLASSES)
    optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], 1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(head(model(images), labels), labels).backward()
        optimizer.step()

    return step


def branch_steps(side: int, batch: int) -> dict[str, Step]:
    """Forward and backward of the local branch and the fusion alone, ours and the textbook's."""
    torch.manual_seed(0)
    ours = LocalBranch(1024, 1024).to(memory_format=torch.channels_last)
    maps, global_ = torch.randn(batch, side, side, 1024).permute(0, 3, 1, 2), torch.randn(batch, 1024)

    def step(branch: nn.Module, fuse: Callable[[Tensor, Tensor], Tensor], maps: Tensor) -> Step:
        def run() -> None:
            x, g = maps.detach().requires_grad_(), global_.detach().requires_grad_()
            fuse(branch(x), g).square().sum().backward()

        return run

    return {
        "textbook": step(as_textbook(ours), textbook, maps.contiguous()),
        "ours": step(ours, orthogonal_fusion, maps),
    }


def compare(build: Callable[[int, int], dict[str, Step]], size: int, batch: int) -> str:
    """The median ratio of seconds, textbook's over ours, and both peaks of memory."""
    steps = build(size, batch)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(ROUNDS + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    ratio = statistics.median(a / b for a, b in zip(seconds["textbook"], seconds["ours"], strict=True))
    peaks = {name: in_a_process(peak_megabytes, build, size, batch, name) for name in steps}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return (
        f"textbook {medians['textbook']:6.2f} s {peaks['textbook']:6.0f} MB, ours {medians['ours']:6.2f} s "
        f"{peaks['ours']:6.0f} MB: {ratio:5.2f} times as fast"
    )


def peak_megabytes(build: Callable[[int, int], dict[str, Step]], size: int, batch: int, name: str) -> float:
    """The most memory the process held during two steps, beyond what it held before them (Linux)."""
    step = build(size, batch)[name]
    before = status_megabytes("VmRSS")
    # "5" resets the peak, so that building both networks does not count.
    Path("/proc/self/clear_refs").write_text("5")
    step()
    step()
    return status_megabytes("VmHWM") - before


def status_megabytes(field: str) -> float:
    """A value of /proc/self/status, in MB (there in kB)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def in_a_process(work: Callable[..., float], *arguments: object) -> float:
    """The result of `work` in a new process that returns freed blocks to the system (glibc)."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def main() -> None:
    """Print a line for each size."""
    print(f"{torch.get_num_threads()} threads, medians of {ROUNDS} rounds")
    for size, batch in STEPS:
        print(f"R50 + ASPP, {batch:2} x {size} px:            {compare(whole_steps, size, batch)}", flush=True)
    for side, batch in MAPS:
        print(f"local branch + fusion, {batch:2} x {side} x {side}: {compare(branch_steps, side, batch)}", flush=True)


if __name__ == "__main__":
    main()
