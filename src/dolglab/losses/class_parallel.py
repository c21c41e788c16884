"""A margin head whose classes are divided among processes, so that millions of classes fit in memory.

Every process gathers all descriptors and computes the cosines to its own classes; the softmax is normalised over
all shards (An et al., Partial FC, CVPR 2022). Works with any backend of torch.distributed, and with one process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from dolglab.errors import UserError
from dolglab.losses.margin import HeadLoss, MarginHead
from dolglab.processes import distributed


@dataclass(frozen=True)
class Shard:
    """One process's classes: `start` to `end` of `classes`, in a weight padded to the largest shard's `size`.

    >>> shard = Shard(rank=1, world=3, classes=10)
    >>> shard.start, shard.end, shard.size
    (3, 6, 4)
    """

    rank: int
    world: int
    classes: int

    @property
    def start(self) -> int:
        return self.rank * self.classes // self.world

    @property
    def end(self) -> int:
        return (self.rank + 1) * self.classes // self.world

    @property
    def size(self) -> int:
        return -(-self.classes // self.world)


class ClassParallel:
    """Divides a head's weight among processes and computes its loss in parallel.

    Args:
        head: a head whose class is `shardable`; `split` reduces its weight to this process's classes.
        sample_rate: the share of its classes that each process compares with in a step; 1 compares with all. The
            classes of the batch are always included.

    Raises UserError for a margin that depends on more than one shard, or a rate outside (0, 1].
    """

    def __init__(self, head: MarginHead, sample_rate: float = 1.0) -> None:
        if not head.shardable:
            names = ", ".join(kind.__name__ for kind in _margin_heads(MarginHead) if kind.shardable)
            raise UserError(f"class_parallel=true does not work with {type(head).__name__}: use one of {names}")
        if not 0 < sample_rate <= 1:
            raise UserError(f"sample_rate must be above 0 and at most 1, not {sample_rate}")
        self.head = head
        self.sample_rate = sample_rate
        self.rows = head.weight.shape[0] // head.num_classes
        self.shard = Shard(0, 1, head.num_classes)

    def split(self, rank: int, world: int) -> None:
        """Keep only this process's part of a complete head. Raises UserError for fewer classes than processes."""
        if self.shard.classes < world:
            raise UserError(f"{self.shard.classes} classes cannot be spread over {world} processes")
        if self.shard.world == world:
            return
        self.shard = Shard(rank, world, self.shard.classes)
        self.head.weight = nn.Parameter(self.part_of(self.head.weight.detach()))

    def part_of(self, whole: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
        """This process's rows of a tensor shaped like the complete weight, padded with zeros."""
        part = whole.new_zeros(self.shard.size * self.rows, *whole.shape[1:])
        mine = whole[self.shard.start * self.rows : self.shard.end * self.rows]
        part[: len(mine)] = mine
        return part

    def whole_of(self, part: Float[Tensor, "m d"]) -> Float[Tensor, "n d"] | None:
        """The rows of all processes in order, on the first process; None on the others."""
        if self.shard.world == 1:
            return part
        if self.shard.rank:
            dist.send(part.contiguous(), 0)
            return None
        # One shard at a time, moved to the host: the complete weight may not fit on one device.
        arriving, pieces = torch.empty_like(part), []
        for shard in (Shard(rank, self.shard.world, self.shard.classes) for rank in range(self.shard.world)):
            if shard.rank:
                dist.recv(arriving, shard.rank)
            piece = arriving if shard.rank else part
            pieces.append(piece[: (shard.end - shard.start) * self.rows].cpu().clone())
        return torch.cat(pieces)

    def loss(self, descriptors: Float[Tensor, "b d"], labels: Int[Tensor, " b"], step: int) -> HeadLoss:
        """The mean margin loss over the batches of all processes, the same on each; batches must have equal size.

        Data parallelism averages gradients over the processes. For the average to be the gradient of the whole batch,
        the descriptors' gradients are multiplied by the number of processes; the weight's are not. `step` and the seed
        decide which classes are sampled; the logged values refer to these classes.
        """
        with torch.autocast(descriptors.device.type, enabled=False):
            everyone = _GatherDescriptors.apply(descriptors.float(), self.shard.world, self.shard.rank)
            labels = _all_gather(labels, self.shard.world)
            classes = self._classes(labels, step)
            cosine = self.head.cosine(everyone, self._rows_of(classes))
            at = _positions(classes, labels - self.shard.start)
            logits, target = self._logits(cosine, at, labels)
            value, cosine = _CrossEntropy.apply(logits, at), cosine.detach()
            target, best = _all_reduce(target.detach()), _all_reduce(cosine.amax(1), "MAX")
            total, count = _all_reduce(torch.stack([cosine.sum(), cosine.new_tensor(float(cosine.numel()))]))
        return HeadLoss(
            loss=value,
            accuracy=(target >= best).float().mean(),
            target_cosine=target.mean(),
            nontarget_cosine=(total - target.sum()) / (count - len(target)).clamp(min=1),
            cosine=cosine,
            at=at,
        )

    def norm(self, parameters: list[nn.Parameter]) -> Float[Tensor, ""]:
        """The gradient norm over replicated parameters and all shards; the head need not be in `parameters`."""
        shared = [p.grad for p in parameters if p.grad is not None and p is not self.head.weight]
        total = torch.stack([grad.float().square().sum() for grad in shared]).sum()
        own = self.head.weight.grad
        if own is not None:
            total = total + _all_reduce(own.float().square().sum())
        return total.sqrt()

    def clip(self, parameters: list[nn.Parameter], max_norm: float) -> None:
        """Scale gradients so that their norm is at most `max_norm`."""
        scale = (max_norm / (self.norm(parameters) + 1e-6)).clamp(max=1)
        for p in {*parameters, self.head.weight}:
            if p.grad is not None:
                p.grad.mul_(scale.to(p.grad.dtype))

    def gather_checkpoint(self, checkpoint: dict[str, Any], key: str, place: int) -> None:
        """Collect the weight and its optimizer state from all processes and put them into a checkpoint."""
        checkpoint["state_dict"][key] = self.whole_of(self.head.weight.detach())
        _replace_states(checkpoint, place, self.head.weight.shape, self.whole_of)

    def scatter_checkpoint(self, checkpoint: dict[str, Any], key: str, place: int) -> None:
        """Reduce the complete weight and its optimizer state in a checkpoint to this process's part."""
        whole = checkpoint["state_dict"][key]
        checkpoint["state_dict"][key] = self.part_of(whole)
        _replace_states(checkpoint, place, whole.shape, self.part_of)

    def _classes(self, labels: Int[Tensor, " b"], step: int) -> Int[Tensor, " c"]:
        """The classes of this shard that take part, numbered from 0, ascending."""
        count = self.shard.end - self.shard.start
        if self.sample_rate == 1:
            return torch.arange(count, device=labels.device)
        inside = labels[(labels >= self.shard.start) & (labels < self.shard.end)] - self.shard.start
        seed = torch.initial_seed() + step * self.shard.world + self.shard.rank
        generator = torch.Generator().manual_seed(seed % 2**63)
        chance = torch.rand(count, generator=generator).to(labels.device)
        chance[inside] = 2.0
        number = max(int(self.sample_rate * count), len(inside.unique()), min(2, count))
        return chance.topk(number).indices.sort().values

    def _rows_of(self, classes: Int[Tensor, " c"]) -> Float[Tensor, "r d"]:
        if len(classes) == self.shard.end - self.shard.start:
            return self.head.weight[: len(classes) * self.rows]
        rows = classes[:, None] * self.rows + torch.arange(self.rows, device=classes.device)
        return self.head.weight[rows.flatten()]

    def _logits(
        self, cosine: Float[Tensor, "b c"], at: Int[Tensor, " b"], labels: Int[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b c"], Float[Tensor, " b"]]:
        """Logits with the margin on this shard's targets, and the targets' cosines, zero for other shards' targets."""
        here = at >= 0
        index = at.clamp(min=0).view(-1, 1)
        before = cosine.gather(1, index)
        after = torch.where(here.view(-1, 1), self.head.target_cosine(before, labels), before)
        return self.head.scale * cosine.scatter(1, index, after), torch.where(here, before.flatten(), 0)


def _margin_heads(base: type[MarginHead]) -> list[type[MarginHead]]:
    return [head for kind in base.__subclasses__() for head in (kind, *_margin_heads(kind))]


class _GatherDescriptors(torch.autograd.Function):
    """The descriptors of all processes, in the order of their ranks."""

    @staticmethod
    def forward(ctx: Any, descriptors: Tensor, world: int, rank: int) -> Tensor:
        ctx.world, ctx.rank = world, rank
        return _all_gather(descriptors, world)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        # Each process has the gradient of its own classes; data parallelism divides by the number of processes.
        return ctx.world * _all_reduce(grads[0].contiguous()).chunk(ctx.world)[ctx.rank], None, None


class _CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of logits whose columns are sharded; `at` is -1 where another shard has the target."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, at: Tensor) -> Tensor:
        here = at >= 0
        index = at.clamp(min=0).view(-1, 1)
        peak = _all_reduce(logits.amax(1), "MAX")
        exponentials = (logits - peak[:, None]).exp()
        total = _all_reduce(exponentials.sum(1))
        target = _all_reduce(torch.where(here, logits.gather(1, index).flatten(), 0))
        ctx.save_for_backward(exponentials / total[:, None], index, here)
        return (total.log() + peak - target).mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        probability, index, here = ctx.saved_tensors
        gradient = probability.scatter_add(1, index, -here.to(probability.dtype).view(-1, 1))
        return gradient * (grads[0] / len(probability)), None


def _replace_states(
    checkpoint: dict[str, Any], place: int, shape: torch.Size, change: Callable[[Tensor], Tensor | None]
) -> None:
    """Change the optimizer states that have one parameter's shape, in copies of the optimizers' dictionaries."""
    for optimizer in checkpoint.get("optimizer_states", []):
        if held := dict(optimizer["state"].get(place, {})):
            for name, value in held.items():
                if isinstance(value, Tensor) and value.shape == shape:
                    held[name] = change(value)
            optimizer["state"] = {**optimizer["state"], place: held}


def _positions(classes: Int[Tensor, " c"], wanted: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """The position of each wanted class in ascending `classes`; -1 if it is not there."""
    at = torch.searchsorted(classes, wanted).clamp(max=len(classes) - 1)
    return torch.where(classes[at] == wanted, at, -1)


def _all_gather(x: Tensor, world: int) -> Tensor:
    if world == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world)]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def _all_reduce(x: Tensor, operation: Literal["SUM", "MAX"] = "SUM") -> Tensor:
    if not distributed():
        return x
    x = x.clone()
    dist.all_reduce(x, getattr(dist.ReduceOp, operation))
    return x
