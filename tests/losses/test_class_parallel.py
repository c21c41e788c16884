"""A head divided among processes, compared with the same head in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dolglab.errors import UserError
from dolglab.losses.class_parallel import ClassParallel, Shard
from dolglab.losses.margin import (
    ArcFace,
    CosFace,
    CurricularFace,
    DynamicArcFace,
    MarginHead,
    Softmax,
    SubCenterArcFace,
)
from warm_python import run_ranks

ROOT = Path(__file__).resolve().parents[2]
HEADS = {"ArcFace": ArcFace, "CosFace": CosFace, "Softmax": Softmax, "SubCenterArcFace": SubCenterArcFace}
DIM, CLASSES, BATCH, CLIP = 8, 7, 6, 0.1

PROCESS = """
import os
import sys
import torch
import torch.distributed as dist
from dolglab.losses import margin
from dolglab.losses.class_parallel import ClassParallel

rank, name, init, out = int(sys.argv[1]), *sys.argv[2:]
dist.init_process_group("gloo", init_method="file://" + init, rank=rank, world_size=2)
stored = torch.load(out + "/given.pt")
head = getattr(margin, name)(8, 7)
head.weight.data.copy_(stored["weight"])
layer = torch.nn.Linear(8, 8, bias=False)
layer.weight.data.copy_(stored["layer"])
parallel = ClassParallel(head)
parallel.split(rank, 2)
model = torch.nn.parallel.DistributedDataParallel(layer)
mine = slice(rank * 3, rank * 3 + 3)
result = parallel.loss(model(stored["x"][mine]), stored["labels"][mine], step=0)
result.loss.backward()
grads = {"layer": layer.weight.grad.clone(), "weight": parallel.whole_of(head.weight.grad)}
norm = parallel.norm([*layer.parameters(), head.weight])
parallel.clip([*layer.parameters(), head.weight], 0.1)
found = {
    "loss": result.loss.detach(),
    "accuracy": result.accuracy,
    "target_cosine": result.target_cosine,
    "nontarget_cosine": result.nontarget_cosine,
    "norm": norm,
    "clipped": layer.weight.grad,
    "rows": torch.tensor(head.weight.shape[0]),
    **grads,
}
torch.save(found, f"{out}/found{rank}.pt")
# Neither ends while the other communicates. Gloo's threads can abort a process during shutdown, so it exits directly.
dist.barrier()
os._exit(0)
"""


def both(script: str, name: str, folder: Path) -> None:
    run_ranks(script, name, str(folder / "init"), str(folder))


@pytest.mark.process
@pytest.mark.parametrize("name", list(HEADS))
def test_two_processes_give_the_loss_and_gradients_of_one(name: str, tmp_path: Path) -> None:
    head, layer = HEADS[name](DIM, CLASSES), torch.nn.Linear(DIM, DIM, bias=False)
    x, labels = torch.randn(BATCH, DIM), torch.tensor([0, 6, 3, 3, 2, 5])
    given = {"weight": head.weight.detach(), "layer": layer.weight.detach(), "x": x, "labels": labels}
    torch.save(given, tmp_path / "given.pt")
    both(PROCESS, name, tmp_path)
    one = head.loss(layer(x), labels)
    one.loss.backward()
    assert layer.weight.grad is not None
    assert head.weight.grad is not None
    expected = {"layer": layer.weight.grad.clone(), "weight": head.weight.grad.clone()}
    norm = torch.nn.utils.clip_grad_norm_([*layer.parameters(), *head.parameters()], CLIP)
    assert norm > CLIP
    for rank in range(2):
        found = torch.load(tmp_path / f"found{rank}.pt")
        close = {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(found["loss"], one.loss.detach(), **close)
        for figure in ("accuracy", "target_cosine", "nontarget_cosine"):
            torch.testing.assert_close(found[figure], getattr(one, figure), **close)
        torch.testing.assert_close(found["layer"], expected["layer"], **close)
        torch.testing.assert_close(found["norm"], norm, **close)
        torch.testing.assert_close(found["clipped"], layer.weight.grad, **close)
        assert found["rows"] == 4 * head.weight.shape[0] // CLASSES
        assert (found["weight"] is None) is bool(rank)
    torch.testing.assert_close(torch.load(tmp_path / "found0.pt")["weight"], expected["weight"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", HEADS.values())
def test_one_process_equals_the_plain_head(head: type[MarginHead]) -> None:
    layer = head(DIM, CLASSES)
    x, labels = torch.randn(BATCH, DIM, requires_grad=True), torch.arange(BATCH)
    plain = layer.loss(x, labels)
    parallel = ClassParallel(layer).loss(x, labels, step=3)
    torch.testing.assert_close(parallel.loss, plain.loss)
    wanted = torch.autograd.grad(plain.loss, [x, layer.weight])
    torch.testing.assert_close(torch.autograd.grad(parallel.loss, [x, layer.weight]), wanted)


def test_sampled_negatives_always_include_the_batchs_classes() -> None:
    head = ArcFace(DIM, 100)
    parallel = ClassParallel(head, sample_rate=0.2)
    labels = torch.tensor([99, 0, 50, 50])
    picked = parallel._classes(labels, step=4)
    assert len(picked) == 20
    assert {0, 50, 99} <= set(picked.tolist())
    assert torch.equal(picked, parallel._classes(labels, step=4))
    assert not torch.equal(picked, parallel._classes(labels, step=5))
    x = torch.randn(4, DIM)
    found = parallel.loss(x, labels, step=4)
    small = ArcFace(DIM, 20)
    small.weight.data.copy_(head.weight[picked])
    among = torch.searchsorted(picked, labels)
    torch.testing.assert_close(found.loss, small.loss(x, among).loss)
    found.loss.backward()
    assert head.weight.grad is not None
    assert set(head.weight.grad.abs().sum(1).nonzero().flatten().tolist()) <= set(picked.tolist())


@pytest.mark.parametrize("classes", [2, 7, 8, 81_313])
@pytest.mark.parametrize("world", [1, 2])
def test_shards_cover_every_class_once(classes: int, world: int) -> None:
    shards = [Shard(rank, world, classes) for rank in range(world)]
    covered = [c for shard in shards for c in range(shard.start, shard.end)]
    assert covered == list(range(classes))
    assert max(shard.end - shard.start for shard in shards) == shards[0].size


def test_heads_that_cannot_be_sharded_are_refused() -> None:
    sizes = torch.ones(4, dtype=torch.int64)
    for head in (CurricularFace(8, 4), DynamicArcFace(8, 4, class_sizes=sizes)):
        with pytest.raises(UserError, match=type(head).__name__):
            ClassParallel(head)
    for rate in (0, 1.5):
        with pytest.raises(UserError, match="sample_rate"):
            ClassParallel(ArcFace(8, 4), rate)
    with pytest.raises(UserError, match=r"\b4 .*\b5 "):
        ClassParallel(ArcFace(8, 4)).split(0, 5)


def test_a_shard_is_padded() -> None:
    parallel = ClassParallel(SubCenterArcFace(2, 5, centres=2))
    whole = parallel.head.weight.detach().clone()
    parallel.split(0, 2)
    assert torch.equal(parallel.head.weight[:4], whole[:4])
    assert (parallel.head.weight[4:] == 0).all()
    assert len(parallel.head.weight) == 6
    assert (parallel.shard.start, parallel.shard.end) == (0, 2)
