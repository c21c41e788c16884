"""Several processes give the same results as one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from dolglab.commands.evaluate import main as evaluate
from end_to_end.runs import NARROW, SMALL, card, command, config, kill_when, losses, metrics, wait_until
from end_to_end.system import children, free_port
from warm_python import run_python, started

pytestmark = pytest.mark.process

# A network in which every part needs a gradient, including the local head's classifier.
LOCAL = ["model=delg", "model.dim=16", "model.local.code=8", "model.local.hidden=8"]
TERMS = ("margin", "reconstruction", "attention")


def test_two_processes_share_the_batch_and_the_benchmark_and_resume(world: Path, tmp_path: Path, capsys) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    here = f"hydra.run.dir={run}"
    options = ["data=demo", f"data.root={world}", *SMALL, *LOCAL, "strategy=ddp_gloo", "trainer.devices=2"]
    # Gradients that DDP waits for and that a frozen backbone lacks.
    options += ["freeze_epochs=1"]
    # One process has 12 of the 23 test images, in two batches, the other 11, in one.
    options += ["+data.eval_batch=11"]
    kill_when((run / "checkpoints" / "last.ckpt").exists, command(here, *options, "checkpoint_steps=1"))
    resumed = run_python(command(here, "resume=true"))
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("page: ") == 1
    assert "epoch 2/2" in resumed.stdout
    assert len(losses(run)) == 2 * 3
    for row in metrics(run):
        if row["train/loss"]:
            margin, error, attention = (float(row[f"train/{name}_loss"]) for name in TERMS)
            assert float(row["train/loss"]) == pytest.approx(margin + 10 * error + attention, rel=1e-4)
    checkpoint = f"checkpoint={run / 'checkpoints' / 'best.ckpt'}"
    root = f"benchmark.root={world / 'test'}"
    medium = evaluate(config("evaluate", f"output_dir={alone}", checkpoint, root, "trainer=cpu", "workers=0"))
    assert card(run)["benchmarks"][0]["map"]["medium"] == pytest.approx(medium, abs=1e-6)
    assert card(alone)["protocol"] == card(run)["protocol"]
    held = [f"output_dir={tmp_path / 'held'}", f"benchmark.root={world / 'validation'}", "benchmark.name=held"]
    selected = evaluate(config("evaluate", *held, checkpoint, "trainer=cpu", "workers=0"))
    scores = [float(row["val/medium"]) for row in metrics(run) if row.get("val/medium")]
    assert selected == pytest.approx(max(scores), abs=1e-6)
    assert "selected on this set" in capsys.readouterr().out


def test_a_head_divided_among_two_processes_trains_like_one(world: Path, tmp_path: Path) -> None:
    """Also from a checkpoint of the other number of processes; it contains the complete head."""
    options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, "class_parallel=true", "trainer.gradient_clip_val=5"]
    options += ["backbone.freeze_bn=true", "trainer.max_epochs=2", "local.attention=false"]
    two = ["strategy=ddp_gloo", "trainer.devices=2"]
    whole, parts = tmp_path / "one", tmp_path / "two"
    for run, extra in [(whole, []), (parts, two)]:
        done = run_python(command(f"hydra.run.dir={run}", *options, *extra))
        assert done.returncode == 0, done.stderr
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-3)
    kept = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, parts)]
    assert kept[0]["state_dict"]["head.weight"].shape == kept[1]["state_dict"]["head.weight"].shape == (4, 16)
    momenta = [state_of(checkpoint) for checkpoint in kept]
    for found in ((c["state_dict"]["head.weight"] for c in kept), momenta):
        one, other = found
        torch.testing.assert_close(other, one, rtol=1e-2, atol=1e-3)
    for run, extra in [(whole, two), (parts, ["strategy=auto", "trainer.devices=1"])]:
        done = run_python(command(f"hydra.run.dir={run}", "resume=true", "trainer.max_epochs=3", *extra))
        assert done.returncode == 0, done.stderr
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-2)
    assert len(losses(parts)) == 9


def state_of(checkpoint: dict) -> torch.Tensor:
    """The momentum of the head's weight."""
    return checkpoint["optimizer_states"][0]["state"][checkpoint["dolg_head_place"]]["momentum_buffer"]


def test_images_that_any_process_skipped_are_on_the_card(world: Path, tmp_path: Path) -> None:
    broken = tmp_path / "test"
    shutil.copytree(world / "test", broken)
    for victim in sorted((broken / "jpg").iterdir())[:2]:
        victim.write_bytes(b"")
    options = ["model=imagenet_gem", "backbone=r18", "backbone.pretrained=false", f"benchmark.root={broken}"]
    options += ["scales=[0.5]", "trainer=cpu", "trainer.devices=2", "strategy=ddp_gloo", "workers=0", "on_error=skip"]
    finished = run_python([*command(f"hydra.run.dir={tmp_path / 'run'}", *options, module="src.evaluate")])
    assert finished.returncode == 0, finished.stderr
    assert len(card(tmp_path / "run")["benchmarks"][0]["bad_images"]) == 2


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_other_within_a_minute(world: Path, tmp_path: Path, victim: int) -> None:
    options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, "strategy=ddp_gloo", "trainer.devices=2"]
    run = [f"hydra.run.dir={tmp_path}", "trainer.max_epochs=200"]
    with started(command(*options, *run)) as process:
        wait_until((tmp_path / "checkpoints" / "last.ckpt").exists, process)
        (child,) = children(process.pid)
        os.kill([process.pid, child][victim], signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        # The pipe closes when the last of them has ended.
        assert process.returncode != 0
        assert "Traceback" not in said
        if victim:
            assert "another process of this run ended" in said


# Without anything that is drawn or counted per process, two processes equal one, up to rounding.
ALIKE = ["backbone.freeze_bn=true", "local.attention=false", "trainer.max_epochs=7", "trainer.max_steps=20"]


@pytest.fixture(scope="module")
def alone(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty steps of one process."""
    run = tmp_path_factory.mktemp("alone")
    done = run_python(command(f"hydra.run.dir={run}", "data=demo", f"data.root={world}", *SMALL, *NARROW, *ALIKE))
    assert done.returncode == 0, done.stderr
    return run


def test_two_processes_train_and_measure_as_one_does(alone: Path, world: Path, tmp_path: Path) -> None:
    options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, *ALIKE, "strategy=ddp_gloo", "trainer.devices=2"]
    done = run_python(command(f"hydra.run.dir={tmp_path}", *options))
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path)) == 20
    assert losses(tmp_path) == pytest.approx(losses(alone), rel=1e-4)


@pytest.mark.parametrize("nodes", [1, 2])
def test_torchrun_needs_no_configuration(alone: Path, world: Path, tmp_path: Path, nodes: int) -> None:
    """Two processes of one node, and one of each of two nodes on the loopback device."""
    options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, *ALIKE, f"hydra.run.dir={tmp_path}"]
    port = f"--master-port={free_port()}"
    node = ["-m", "torch.distributed.run", f"--nproc-per-node={2 // nodes}"]
    at = ([f"--nnodes={nodes}", f"--node-rank={rank}", "--master-addr=127.0.0.1", port] for rank in range(nodes))
    with contextlib.ExitStack() as stack:
        agents = [stack.enter_context(started([*node, *place, "-m", "src.train", *options])) for place in at]
        said = [agent.communicate(timeout=200)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0] * nodes, said
    assert losses(tmp_path) == pytest.approx(losses(alone), rel=1e-4)
    assert card(tmp_path)["benchmarks"]
