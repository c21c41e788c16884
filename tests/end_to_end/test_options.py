"""Training options, by their effects on a run's files."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
import torch
from hydra.utils import instantiate

from dolglab.commands.evaluate import main as evaluate
from dolglab.commands.train import main as train
from dolglab.models.backbone import Backbone
from dolglab.models.checkpoint import load_model
from dolglab.training.optim import cosine_factor
from end_to_end.runs import NARROW, SMALL, card, command, config, losses, metrics
from warm_python import run_python

pytestmark = pytest.mark.process


def test_a_warm_start_works_with_averaged_weights_and_other_options(
    trained: tuple[Path, float], world: Path, tmp_path: Path, capsys
) -> None:
    before = trained[0] / "checkpoints" / "best.ckpt"
    options = [f"output_dir={tmp_path}", "data=demo", f"data.root={world}", *SMALL, *NARROW, "data.image_size=96"]
    options += [f"weights={before}", "ema=0.9", "trainer.precision=bf16-mixed"]
    options += ["optim.groups.layer_decay=0.5", "optim.groups.decay_norms=false", "trainer.accumulate_grad_batches=2"]
    train(config("train", *options, "trainer.max_epochs=1"))
    said = capsys.readouterr().out
    assert "and the head's class centres" in said
    assert "licence of its weights: apache-2.0" in said
    assert card(tmp_path)["config"]["licence"] == "apache-2.0"
    train(config("train", *options, "trainer.max_epochs=2", "resume=true"))
    stored = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    averaged, current = stored["state_dict"], stored["current_model_state"]
    assert averaged.keys() == current.keys()
    assert not torch.equal(averaged["model.fc.weight"], current["model.fc.weight"])
    assert {group["name"] for group in stored["optimizer_states"][0]["param_groups"]} >= {"level0", "new_flat"}
    best = [f"checkpoint={tmp_path / 'checkpoints' / 'best.ckpt'}", f"benchmark.root={world / 'test'}"]
    medium = evaluate(
        config("evaluate", f"output_dir={tmp_path / 'again'}", *best, "trainer=cpu", "trainer.precision=bf16-mixed")
    )
    assert "precision bf16-mixed" in capsys.readouterr().out
    assert card(tmp_path)["benchmarks"][0]["map"]["medium"] == pytest.approx(medium, abs=1e-6)
    model, _ = load_model(tmp_path / "checkpoints" / "last.ckpt")
    assert torch.equal(model.state_dict()["fc.weight"], averaged["model.fc.weight"])


def test_a_compiled_training_pass_gives_the_same_losses(world: Path, tmp_path: Path) -> None:
    """Run as commands, because the checker of shape annotations, which tests add to functions, cannot be compiled."""
    options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, "trainer.max_epochs=1"]
    for name, compiler in [("plain", "null"), ("compiled", "aot_eager")]:
        done = run_python(command(f"hydra.run.dir={tmp_path / name}", *options, f"compiler={compiler}"))
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-3)


def test_a_backbone_is_frozen_for_its_epochs_and_trained_afterwards(world: Path, tmp_path: Path) -> None:
    options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, "trainer.max_epochs=3", "test=false"]
    options += ["freeze_epochs=2", "optim.optimizer.weight_decay=0.1", "model.batch_norm=true"]
    cfg = config("train", f"output_dir={tmp_path}", *options, "trainer.check_val_every_n_epoch=3")
    train(cfg)
    L.seed_everything(cfg.seed, verbose=False)
    before = instantiate(cfg.model).state_dict()
    after = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    norm, new = "backbone.net.bn1.num_batches_tracked", "norm.num_batches_tracked"
    steps = len(losses(tmp_path)) // 3
    assert (after[f"model.{norm}"] - before[norm], after[f"model.{new}"]) == (steps, 3 * steps)
    # The learning rate of two schedules: the first ends before the backbone is trained.
    rates = [float(row["lr-SGD/backbone"]) for row in metrics(tmp_path) if row.get("lr-SGD/backbone")]
    schedule = [cosine_factor(step, length, 0, 0) for length in (2 * steps, steps) for step in range(length)]
    assert rates == pytest.approx([0.01 * factor for factor in schedule])


@pytest.mark.parametrize("epochs", [-1, 5])
def test_a_backbone_frozen_throughout_does_not_change(world: Path, tmp_path: Path, epochs: int) -> None:
    options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, "trainer.max_epochs=1", "test=false"]
    options += [f"freeze_epochs={epochs}", "optim.optimizer.weight_decay=0.1"]
    cfg = config("train", f"output_dir={tmp_path}", *options)
    train(cfg)
    steps = len(losses(tmp_path))
    rates = [float(row["lr-SGD/new"]) for row in metrics(tmp_path) if row.get("lr-SGD/new")]
    assert rates == pytest.approx([0.01 * cosine_factor(step, steps, 0, 0) for step in range(steps)])
    L.seed_everything(cfg.seed, verbose=False)
    before = instantiate(cfg.model).state_dict()
    after = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    same = {name: torch.equal(after[f"model.{name}"], tensor) for name, tensor in before.items()}
    assert all(same[name] for name in same if name.startswith("backbone."))
    assert not any(same[name] for name in ("fc.weight", "fc_global.weight", "local.attention.conv.weight"))


def test_frozen_layers_do_not_change_during_training(photos: Path, tmp_path: Path) -> None:
    options = ["backbone=efficientnet_lite0", "backbone.freeze_until=4", "model=gem", "model.dim=16", "data=folder"]
    cfg = config("train", f"output_dir={tmp_path}", *SMALL[2:], *options, f"data.root={photos}", "trainer.max_epochs=1")
    train(cfg)
    after, _ = load_model(tmp_path / "checkpoints" / "last.ckpt")
    moved = {
        key.split(".")[2] if key.startswith("net.blocks") else "stem"
        for key, value in Backbone(cfg.backbone.name, weights=cfg.backbone.weights).state_dict().items()
        if not torch.equal(value, after.backbone.state_dict()[key])
    }
    assert moved == {"2", "3", "4", "5", "6"}


def test_two_images_with_maps_of_one_cell_can_be_trained_on(photos: Path, tmp_path: Path) -> None:
    options = [*SMALL, *NARROW, "data=folder", f"data.root={photos}", "data.batch_size=2", "data.image_size=32"]
    options += ["local.dilations=[1]"]
    train(config("train", f"output_dir={tmp_path}", *options, "trainer.max_epochs=1", "trainer.limit_train_batches=3"))
    assert len(metrics(tmp_path)) >= 3
