"""Every config composes, and every choice of a group builds what it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

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


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_resolves(group: str, choice: str) -> None:
    cfg = train(f"{group}={choice}", *(["data.root=photos"] if "photos" in choice or choice == "folder" else []))
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("choice", [file.stem for file in sorted((CONF / "benchmark").glob("*.yaml"))])
def test_every_benchmark_composes(choice: str) -> None:
    overrides = [
        "output_dir=out",
        f"benchmark={choice}",
        *(["benchmark.root=x"] if choice == "folder" else []),
    ]
    cfg = compose("evaluate", overrides=overrides)
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("choice", [file.stem for file in sorted((CONF / "backbone").glob("*.yaml"))])
def test_every_backbone_builds_without_a_download(choice: str) -> None:
    cfg = train(f"backbone={choice}", "backbone.pretrained=false", "backbone.weights=null")
    assert instantiate(cfg.backbone).reductions == (16, 32)


@pytest.mark.parametrize("model", ["dolg", "gem", "imagenet_gem"])
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
    assert ("local" in dict(network.named_children())) is (model == "dolg")


def test_the_paper_is_the_default() -> None:
    cfg = train()
    assert (cfg.data.image_size, cfg.data.batch_size, cfg.trainer.max_epochs) == (512, 128, 100)
    assert (cfg.optim.optimizer.lr, cfg.optim.optimizer.momentum) == (0.05, 0.9)
    assert cfg.optim.optimizer.weight_decay == pytest.approx(1e-4)
    assert (cfg.margin.margin, cfg.margin.scale) == (0.15, 30)
    assert cfg.backbone.name == "resnet50.tv_in1k"
    assert list(cfg.test_scales) == [0.3535, 0.5, 0.7071, 1.0, 1.4142]


def test_eight_devices_need_nothing_else() -> None:
    cfg = train("backbone=r101", "trainer.devices=8", "trainer=cpu", "logger=none")
    trainer = instantiate(cfg.trainer)
    assert trainer.world_size == 8
    assert type(trainer.strategy).__name__ == "DDPStrategy"
