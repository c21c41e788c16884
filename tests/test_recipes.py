"""Recipes have the published values, and recipes with a common budget share it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hydra.utils import instantiate

from dolglab.commands.build_training import build_head
from end_to_end.runs import config

train = partial(config, "train", "output_dir=out", "name=test")


def test_the_paper_is_the_default() -> None:
    cfg = train()
    assert (cfg.data.image_size, cfg.data.batch_size, cfg.trainer.max_epochs) == (512, 128, 100)
    assert (cfg.optim.optimizer.lr, cfg.optim.optimizer.momentum) == (0.05, 0.9)
    assert cfg.optim.optimizer.weight_decay == pytest.approx(1e-4)
    assert (cfg.margin.margin, cfg.margin.scale) == (0.15, 30)
    assert cfg.backbone.name == "resnet50.tv_in1k"
    assert list(cfg.test_scales) == [0.3535, 0.5, 0.7071, 1.0, 1.4142]


@pytest.mark.parametrize("name", ["dolg_r50", "dolg_r101"])
def test_the_paper_has_a_recipe(name: str) -> None:
    cfg, plain = train(f"experiment={name}"), train(f"backbone={name.removeprefix('dolg_')}")
    assert cfg == plain


@pytest.mark.parametrize("name", ["dolg_r50_released", "dolg_r101_released"])
def test_the_released_yaml_has_a_recipe(name: str) -> None:
    cfg = train(f"experiment={name}")
    assert (cfg.data.image_size, cfg.data.batch_size, cfg.data.holdout) == (224, 64, 0)
    assert (cfg.optim.optimizer.lr, cfg.optim.optimizer.nesterov, cfg.optim.schedule.warmup) == (0.01, True, 0.05)
    assert cfg.margin._target_.endswith("CurricularFace")
    assert (cfg.local.aspp, cfg.pooling.learnable, cfg.crop) == (False, True, "trunc")
    assert (cfg.augment.flip, cfg.augment.colour_pca) == (0.5, 0.1)
    assert cfg.backbone.name.startswith(f"resnet{name.split('_')[1][1:]}.")


@pytest.mark.parametrize("backbone", ["r50", "r101"])
def test_delg_is_trained_on_the_budget_of_dolg(backbone: str) -> None:
    dolg = train(f"experiment=dolg_{backbone}", "margin={margin:0.1,scale:45.25}", "optim.optimizer.lr=0.01")
    cfg = train(f"experiment=delg_{backbone}")
    for part in ("backbone", "augment", "margin", "optim"):
        assert cfg[part] == dolg[part]
    assert (cfg.data.image_size, cfg.data.batch_size, cfg.trainer.max_epochs) == (512, 128, 100)
    assert (cfg.trainer.gradient_clip_val, cfg.max_side, cfg.model.dim) == (10, 1024, 2048)
    assert list(cfg.test_scales) == [0.7071, 1.0, 1.4142]


def test_delg_has_the_budget_of_the_demo() -> None:
    delg, dolg = train("experiment=delg_demo"), train("experiment=demo")
    for part in ("data", "optim", "trainer", "backbone", "pooling", "margin"):
        assert delg[part] == dolg[part]
    assert delg.model.local.code == 128


def test_the_last_epochs_see_larger_images() -> None:
    first, last = train("experiment=dolg_modern"), train("experiment=dolg_modern_finish", "weights=x")
    assert last.data.image_size > first.data.image_size
    assert last.model == first.model
    assert (last.ema, last.trainer.precision, last.backbone.name) == (0.9999, "bf16-mixed", first.backbone.name)


@pytest.mark.parametrize("backbone", ["vit_small_patch14_dinov2", "vit_small_patch16_dinov3"])
def test_the_recipe_of_salad_can_be_trained(backbone: str) -> None:
    """Two landmarks with two images each, in place of 60 with 4."""
    cfg = train("experiment=salad_dinov2", f"backbone={backbone}", "backbone.pretrained=false")
    assert (cfg.data.batch_size, cfg.data.images_per_landmark, cfg.optim.optimizer.lr) == (240, 4, 6e-5)
    model = instantiate(cfg.model).train()
    head = build_head(cfg.margin, model.dim, 2, torch.tensor([2, 2]))
    result = head.loss(model(torch.randn(4, 3, 144, 144)), torch.tensor([0, 0, 1, 1]))
    result.loss.backward()
    assert (model.dim, len(list(head.parameters()))) == (8448, 0)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert {int(name.split(".")[4]) for name in trained if ".blocks." in name} == {8, 9, 10, 11}
    assert any(name.startswith("backbone.net.model.norm.") for name in trained)


def test_eight_devices_need_no_other_setting() -> None:
    cfg = train("backbone=r101", "trainer.devices=8", "trainer=cpu", "logger=none")
    trainer = instantiate(cfg.trainer)
    assert trainer.world_size == 8
    assert type(trainer.strategy).__name__ == "DDPStrategy"
