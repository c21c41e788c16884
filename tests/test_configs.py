"""Every config composes, and every choice of a group builds what it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from dolglab.commands.build_training import build_head
from dolglab.models.delg import DELG
from dolglab.models.dolg import DOLG

CONF = Path(__file__).resolve().parents[1] / "conf"
GROUPS = ["backbone", "pooling", "local", "fusion", "model", "margin", "data", "augment", "optim", "trainer"]
GROUPS += ["strategy", "logger", "index", "experiment"]
CHOICES = [(group, file.stem) for group in GROUPS for file in sorted((CONF / group).glob("*.yaml"))]


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def train(*overrides: str) -> DictConfig:
    return compose("train", overrides=["output_dir=out", "name=test", *overrides])


def weights_for(choice: str) -> list[str]:
    """What a recipe that goes on from a checkpoint asks for."""
    return ["weights=before.ckpt"] if choice == "finetune" or choice.endswith("_finish") else []


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_resolves(group: str, choice: str) -> None:
    needed = ["data.root=photos"] if choice in ("photos", "folder", "finetune") else []
    cfg = train(f"{group}={choice}", *needed, *weights_for(choice))
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("choice", [file.stem for file in sorted((CONF / "experiment").glob("*.yaml"))])
def test_a_recipe_says_which_batch_its_learning_rate_is_for(choice: str) -> None:
    """By which optim.scaling.rule scales it to another."""
    cfg = train(f"experiment={choice}", *weights_for(choice))
    assert cfg.optim.scaling.batch == cfg.data.batch_size * cfg.trainer.accumulate_grad_batches


@pytest.mark.parametrize("choice", [file.stem for file in sorted((CONF / "benchmark").glob("*.yaml"))])
def test_every_benchmark_composes(choice: str) -> None:
    overrides = [
        "output_dir=out",
        f"benchmark={choice}",
        *(["benchmark.root=x"] if choice == "folder" else []),
    ]
    cfg = compose("evaluate", overrides=overrides)
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def step(*overrides: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Network and head after the backward pass of one batch, two images that no patch divides."""
    cfg = train("backbone.pretrained=false", "backbone.weights=null", "model.hidden=16", "model.dim=8", *overrides)
    model = instantiate(cfg.model).train()
    head = build_head(cfg.margin, 8, 3, torch.tensor([2, 9, 100]))
    labels = torch.tensor([0, 2])
    torch.nn.functional.cross_entropy(head(model(torch.randn(2, 3, 75, 101)), labels), labels).backward()
    return model, head


@pytest.mark.parametrize("choice", [file.stem for file in sorted((CONF / "backbone").glob("*.yaml"))])
def test_every_backbone_builds_and_steps_without_a_download(choice: str) -> None:
    """Every trained tensor has a gradient: DDP stops where one has none."""
    model, _ = step(f"backbone={choice}")
    assert isinstance(model, DOLG)
    maps = DELG(model.backbone, dim=8).eval().local_maps(torch.randn(1, 3, 75, 101))
    assert maps.features.shape[:2] == (1, 128)
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert model.backbone.licence
    levels = [p for level in model.backbone.levels() for p in level]
    assert {id(p) for p in levels} == {id(p) for p in model.backbone.parameters()}
    assert len(levels) == len(list(model.backbone.parameters()))


@pytest.mark.parametrize(
    "overrides",
    [
        *(["margin=" + file.stem] for file in sorted((CONF / "margin").glob("*.yaml"))),
        *(["pooling=" + file.stem] for file in sorted((CONF / "pooling").glob("*.yaml"))),
        *(
            [f"fusion={name}", f"fusion.pool={pool}"]
            for name in ("orthogonal", "concat", "hadamard")
            for pool in ("avg", "gem")
        ),
        *(
            [f"local.aspp={aspp}", f"local.attention={attention}"]
            for aspp in ("true", "false")
            for attention in ("true", "false")
        ),
        ["pooling.learnable=true", "pooling.per_channel=true"],
        ["backbone.reductions=[8,32]"],
        ["backbone.reductions=[32,32]"],
        ["local.dilations=[2,4]", "local.pointwise=true"],
        ["backbone=efficientnet_lite0", "backbone.reductions=[8,16]"],
    ],
)
def test_every_ablation_builds_and_steps(overrides: list[str]) -> None:
    model, head = step(*(overrides if overrides[0].startswith("backbone=") else ["backbone=r18", *overrides]))
    parameters = [*model.named_parameters(), *head.named_parameters()]
    assert not [name for name, p in parameters if p.requires_grad and p.grad is None]
    assert all(torch.isfinite(p.grad).all() for _, p in parameters if p.grad is not None)


@pytest.mark.parametrize("model", ["dolg", "gem", "imagenet_gem", "delg"])
@pytest.mark.parametrize("fusion", ["orthogonal", "concat", "hadamard"])
def test_every_model_builds_from_the_parts_at_the_root(model: str, fusion: str) -> None:
    overrides = [
        f"model={model}",
        f"fusion={fusion}",
        "backbone=r18",
        "backbone.pretrained=false",
        "pooling.p=2",
    ]
    network = instantiate(train(*overrides).model)
    assert network.pooling.p.item() == 2
    assert ("local" in dict(network.named_children())) is (model in ("dolg", "delg"))


@pytest.mark.parametrize(("model", "backbone"), [("delg", "r18"), ("delg_small", "efficientnet_lite0")])
def test_a_local_head_steps_with_its_losses(model: str, backbone: str) -> None:
    cfg = train(f"model={model}", f"backbone={backbone}", "backbone.pretrained=false", "backbone.weights=null")
    network = instantiate(cfg.model, dim=8).train()
    auxiliary = instantiate(cfg.auxiliary, channels=network.backbone.out_channels[0], num_classes=3)
    assert (auxiliary.reconstruction, auxiliary.attention) == (10, 1)
    assert network.local.relu is (model == "delg")
    descriptors, local = network.training_features(torch.randn(2, 3, 75, 101))
    (descriptors.square().sum() + auxiliary(*local, torch.tensor([0, 2])).loss).backward()
    parameters = [*network.named_parameters(), *auxiliary.named_parameters()]
    assert not [name for name, p in parameters if p.requires_grad and p.grad is None]


def test_the_paper_is_the_default() -> None:
    cfg = train()
    assert (cfg.data.image_size, cfg.data.batch_size, cfg.trainer.max_epochs) == (512, 128, 100)
    assert (cfg.optim.optimizer.lr, cfg.optim.optimizer.momentum) == (0.05, 0.9)
    assert cfg.optim.optimizer.weight_decay == pytest.approx(1e-4)
    assert (cfg.margin.margin, cfg.margin.scale) == (0.15, 30)
    assert cfg.backbone.name == "resnet50.tv_in1k"
    assert list(cfg.test_scales) == [0.3535, 0.5, 0.7071, 1.0, 1.4142]


@pytest.mark.parametrize("name", ["dolg_r50", "dolg_r101"])
def test_the_paper_has_a_recipe_of_its_own(name: str) -> None:
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


def test_delg_has_the_demos_budget() -> None:
    delg, dolg = train("experiment=delg_demo"), train("experiment=demo")
    for part in ("data", "optim", "trainer", "backbone", "pooling", "margin"):
        assert delg[part] == dolg[part]
    assert delg.model.local.code == 128


def test_the_last_epochs_see_larger_images() -> None:
    first, last = train("experiment=dolg_modern"), train("experiment=dolg_modern_finish", "weights=x")
    assert last.data.image_size > first.data.image_size
    assert last.model == first.model
    assert (last.ema, last.trainer.precision, last.backbone.name) == (0.9999, "bf16-mixed", first.backbone.name)


def test_eight_devices_need_nothing_else() -> None:
    cfg = train("backbone=r101", "trainer.devices=8", "trainer=cpu", "logger=none")
    trainer = instantiate(cfg.trainer)
    assert trainer.world_size == 8
    assert type(trainer.strategy).__name__ == "DDPStrategy"
