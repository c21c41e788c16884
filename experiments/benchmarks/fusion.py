"""Orthogonal fusion with pooling: the closed form and the textbook form, at 1024 x 32 x 32, batch 8.

Textbook: the projection of every position on the global feature, as a map; its subtraction; concatenation with the
global feature at every position; average pooling. Forward alone (as in extraction) and forward with backward (as in
training), in turn, medians of several rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from dolglab.models.fusion import orthogonal_fusion

ROUNDS = 9
BATCH, CHANNELS, SIDE = 8, 1024, 32


def textbook(local: Tensor, global_: Tensor) -> Tensor:
    """Equations 3 to 5 of the paper, map by map."""
    flat = local.flatten(2)
    dot = torch.bmm(global_[:, None], flat)
    projection = torch.bmm(global_[:, :, None], dot) / global_.square().sum(1).view(-1, 1, 1)
    orthogonal = (flat - projection).view_as(local)
    spread = global_[:, :, None, None].expand_as(local)
    return torch.cat([spread, orthogonal], 1).mean((2, 3))


def forward(fuse: Callable[[Tensor, Tensor], Tensor], local: Tensor, global_: Tensor) -> None:
    with torch.no_grad():
        fuse(local, global_)


def backward(fuse: Callable[[Tensor, Tensor], Tensor], local: Tensor, global_: Tensor) -> None:
    local, global_ = local.detach().requires_grad_(), global_.detach().requires_grad_()
    fuse(local, global_).square().sum().backward()


def seconds(work: Callable[..., None], *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def compare(work: Callable[..., None], local: Tensor, global_: Tensor) -> tuple[float, float]:
    """Median seconds of the textbook form and of ours, alternating, after one warm-up round."""
    times = [
        (seconds(work, textbook, local, global_), seconds(work, orthogonal_fusion, local, global_))
        for _ in range(ROUNDS + 1)
    ][1:]
    return statistics.median(t for t, _ in times), statistics.median(t for _, t in times)


def main() -> None:
    torch.manual_seed(0)
    local, global_ = torch.randn(BATCH, CHANNELS, SIDE, SIDE), torch.randn(BATCH, CHANNELS)
    difference = (textbook(local, global_) - orthogonal_fusion(local, global_)).abs().max()
    print(
        f"fusion, {BATCH} x {CHANNELS} x {SIDE} x {SIDE}, {torch.get_num_threads()} threads, "
        f"largest difference {difference:.1e}"
    )
    for name, work in (("forward", forward), ("forward and backward", backward)):
        plain, ours = compare(work, local, global_)
        print(
            f"{name:>21}: textbook {1000 * plain:7.1f} ms, ours {1000 * ours:6.2f} ms, {plain / ours:5.1f} times faster"
        )


if __name__ == "__main__":
    main()
