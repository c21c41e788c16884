"""Every configuration composes, and every choice of a group can be built, also in every recipe."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from dolglab.commands.build_training import build_head, with_network
from dolglab.models.backbone import Backbone
from dolglab.models.checkpoint import RUN_KEY, describe_run
from dolglab.models.delg import DELG
from dolglab.models.dolg import DOLG, GlobalDescriptor
from dolglab.sweeps.jobs import override
from dolglab.sweeps.study import read_space

CONF = Path(__file__).resolve().parents[1] / "conf"
GROUPS = ["backbone", "pooling", "local", "fusion", "model", "margin", "data", "augment", "optim", "trainer"]
GROUPS += ["strategy", "logger", "index", "experiment"]


def names_of(group: str) -> list[str]:
    """The choices of a group."""
    return [file.stem for file in sorted((CONF / group).glob("*.yaml"))]


RECIPES = names_of("experiment")


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def train(*overrides: str) -> DictConfig:
    return compose("train", overrides=["output_dir=out", "name=test", *overrides])


def weights_for(choice: str) -> list[str]:
    """The override that recipes starting from a checkpoint require."""
    return ["weights=before.ckpt"] if choice == "finetune" or choice.endswith("_finish") else []


@pytest.mark.parametrize(("group", "choice"), [(group, name) for group in GROUPS for name in names_of(group)])
def test_every_choice_composes_and_resolves(group: str, choice: str) -> None:
    needed = ["data.root=photos"] if choice in ("photos", "folder", "finetune") else []
    cfg = train(f"{group}={choice}", *needed, *weights_for(choice))
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("choice", RECIPES)
def test_a_recipe_states_the_batch_of_its_learning_rate(choice: str) -> None:
    """The reference batch from which optim.scaling.rule scales."""
    cfg = train(f"experiment={choice}", *weights_for(choice))
    assert cfg.optim.scaling.batch == cfg.data.batch_size * cfg.trainer.accumulate_grad_batches


@pytest.mark.parametrize("choice", names_of("benchmark"))
def test_every_benchmark_composes(choice: str) -> None:
    overrides = ["output_dir=out", f"benchmark={choice}"]
    cfg = compose("evaluate", overrides=overrides)
    if OmegaConf.is_missing(cfg.benchmark, "root"):
        cfg.benchmark.root = "x"
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("choice", names_of("entry"))
def test_every_entry_composes_and_has_a_row_name(choice: str) -> None:
    cfg = compose("evaluate", overrides=["output_dir=out", f"entry={choice}", "backbone=r18"])
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert cfg.method


@pytest.mark.parametrize("choice", names_of("suite"))
def test_every_suite_names_existing_benchmarks(choice: str) -> None:
    cfg = compose("evaluate", overrides=["output_dir=out", f"suite={choice}"], return_hydra_config=True)
    names = str(cfg.hydra.sweeper.params.benchmark).split(",")
    assert all((CONF / "benchmark" / f"{name}.yaml").is_file() for name in names)


def step(*overrides: str, size: tuple[int, int] = (75, 101)) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Network and head after the backward pass of a batch of two images whose sides no patch divides."""
    cfg = train("model.hidden=16", "model.dim=8", *overrides)
    if "pretrained" in cfg.backbone:
        cfg.backbone.update(pretrained=False, weights=None)
    model = instantiate(cfg.model).train()
    head = build_head(cfg.margin, 8, 3, torch.tensor([2, 9, 100]))
    head.loss(model(torch.randn(2, 3, *size)), torch.tensor([0, 2])).loss.backward()
    return model, head


@pytest.mark.parametrize("choice", names_of("backbone"))
def test_every_backbone_builds_and_steps_without_a_download(choice: str) -> None:
    """Every trained tensor has a gradient: DDP fails without one."""
    model, _ = step(f"backbone={choice}")
    assert isinstance(model, DOLG)
    maps = DELG(model.backbone, dim=8).eval().local_maps(torch.randn(1, 3, 75, 101))
    assert maps.features.shape[:2] == (1, 128)
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert model.backbone.licence or not isinstance(model.backbone, Backbone)
    levels = [p for level in model.backbone.levels() for p in level]
    assert {id(p) for p in levels} == {id(p) for p in model.backbone.parameters()}
    assert len(levels) == len(list(model.backbone.parameters()))


@pytest.mark.parametrize(
    "overrides",
    [
        *([f"margin={name}"] for name in names_of("margin")),
        *([f"pooling={name}"] for name in names_of("pooling")),
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
    # SALAD needs more cells than clusters, MixVPR its own size.
    size = {"pooling=salad": (257, 289), "pooling=mixvpr": (640, 640)}.get(overrides[0], (75, 101))
    model, head = step(
        *(overrides if overrides[0].startswith("backbone=") else ["backbone=r18", *overrides]), size=size
    )
    parameters = [*model.named_parameters(), *head.named_parameters()]
    assert not [name for name, p in parameters if p.requires_grad and p.grad is None]
    assert all(torch.isfinite(p.grad).all() for _, p in parameters if p.grad is not None)


@pytest.mark.parametrize("model", ["dolg", "gem", "pooled", "imagenet_gem", "delg"])
@pytest.mark.parametrize("fusion", ["orthogonal", "concat", "hadamard"])
def test_every_model_builds_from_the_parts_at_the_root(model: str, fusion: str) -> None:
    overrides = [f"model={model}", f"fusion={fusion}", "backbone=r18", "backbone.pretrained=false", "pooling.p=2"]
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
    descriptors, local = network.training_features(network.backbone(torch.randn(2, 3, 75, 101)))
    (descriptors.square().sum() + auxiliary(*local, torch.tensor([0, 2])).loss).backward()
    parameters = [*network.named_parameters(), *auxiliary.named_parameters()]
    assert not [name for name, p in parameters if p.requires_grad and p.grad is None]


# The objects built from a recipe's choices, by group.
FREE = ["backbone", "pooling", "local", "fusion", "model", "margin", "data", "augment", "optim", "trainer", "strategy"]
FREE += ["logger", "index", "model@baseline"]


def choices_of(group: str) -> list[str]:
    """One backbone of each kind, since options are alike; without model=any, which uses no other group."""
    names = [name for name in names_of(group.partition("@")[0]) if name != "any"]
    return list({str(load_plain(f"backbone/{n}").keys()) if group == "backbone" else n: n for n in names}.values())


def rounds(groups: list[str]) -> list[list[str]]:
    """As few lists of overrides as contain every choice of every group."""
    choices = {group: choices_of(group) for group in groups}
    count = max(map(len, choices.values()))
    return [[f"{group}={names[place % len(names)]}" for group, names in choices.items()] for place in range(count)]


def load_plain(name: str) -> dict[str, Any]:
    loaded = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items()}


class StandIn(Backbone):
    """A backbone that is cheap to build."""

    name, licence, reductions = "stand-in", None, (16, 32)

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.out_channels = (6, 8)


class Parts:
    """Builds parts of configurations, each distinct one once."""

    def __init__(self) -> None:
        self.built: set[str] = set()

    def build(self, name: str, cfg: Any, check: Callable[[Any], object] = lambda built: None, **given: Any) -> None:
        plain = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
        key = json.dumps([name, plain], sort_keys=True)
        if key not in self.built:
            check(instantiate(plain, **given))
            self.built.add(key)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return Parts()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stored network without its tensors, which no test here loads."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = OmegaConf.to_container(train("experiment=photos", "data.root=x"), resolve=True)
    assert isinstance(cfg, dict)
    path = tmp_path_factory.mktemp("before") / "best.ckpt"
    torch.save({"state_dict": {}, RUN_KEY: describe_run(cfg, ["a"], {"validation": {}})}, path)  # pyright: ignore
    return path


def accepts(built: Any, *given: Any, **more: Any) -> None:
    """A partial accepts its configured arguments and those passed later."""
    inspect.signature(built.func).bind(*built.args, *given, **built.keywords, **more)


def build_network(parts: Parts, cfg: DictConfig) -> None:
    """Without a backbone, which costs seconds: see test_every_backbone_composes_with_every_recipe."""

    def runs(network: nn.Module) -> None:
        assert isinstance(network, DOLG | GlobalDescriptor)
        # The smallest map for SALAD, which MixVPR does not accept.
        side = getattr(network.pooling, "trial_map", None) or (9, 9)
        pooled = network.pooling(torch.rand(2, 8, *side))
        assert pooled.shape == (2, getattr(network.pooling, "dim", 8))
        if isinstance(network, DOLG):
            assert network.local(torch.rand(2, 6, 9, 9)).shape[0] == 2

    parts.build("model", cfg.model, runs, backbone=StandIn())


def build_training_parts(parts: Parts, cfg: DictConfig) -> None:
    build_network(parts, cfg)
    if cfg.get("baseline") and "backbone" in cfg.baseline:
        parts.build("model", cfg.baseline, backbone=StandIn())
    build_head(cfg.margin, 8, 3, torch.tensor([2, 9, 100]))
    parts.build("auxiliary", cfg.auxiliary, channels=6, num_classes=3)
    parts.build("augment", cfg.augment)
    parts.build("index", cfg.index, lambda index: index())
    parts.build("optimizer", cfg.optim.optimizer, lambda build: build([nn.Parameter(torch.zeros(1))]))
    parts.build("schedule", cfg.optim.schedule, lambda build: accepts(build, None, 100))
    parts.build("groups", cfg.optim.groups, lambda build: accepts(build, [], []))
    assert cfg.optim.scaling.batch > 0
    parts.build("trainer", cfg.trainer, accelerator="cpu", logger=False, enable_checkpointing=False)
    # A data module reads its files immediately: check its arguments and its benchmarks.
    data = dict(cfg.data)
    for benchmark in [*(data.get("validation") or {}).values(), *(data.get("test") or {}).values()]:
        parts.build("benchmark", benchmark, accepts)
    inspect.signature(get_method(data.pop("_target_"))).bind(**data, augmentation=None)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["", *RECIPES])
def test_every_recipe_composes_with_every_choice(recipe: str, parts: Parts, checkpoint: Path) -> None:
    """A choice fails if a recipe sets an option that only another choice has."""
    chosen = rounds(FREE)
    if recipe:
        own = OmegaConf.load(CONF / "experiment" / f"{recipe}.yaml")
        # A recipe that only selects choices equals the default, or another recipe, with other choices.
        chosen = [[], *chosen] if own.keys() - {"defaults"} else [[]]
    for overrides in chosen:
        needed = ["data.root=photos", f"weights={checkpoint}"]
        cfg = train(*([f"experiment={recipe}"] if recipe else []), *overrides, *needed)
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        build_training_parts(parts, with_network(cfg, None))


# Recipes set options that timm's backbones have.
TIMM = [name for name in names_of("backbone") if load_plain(f"backbone/{name}")["_target_"].endswith(".Backbone")]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", TIMM)
def test_every_backbone_composes_with_every_recipe(backbone: str, parts: Parts) -> None:
    """Built without memory or weights, in as few builds as cover every value that recipes set for backbones."""
    asked: dict[str, list[Any]] = {}
    for recipe in RECIPES:
        for key, value in (load_plain(f"experiment/{recipe}").get("backbone") or {}).items():
            asked.setdefault(key, []).append(value)
    values = {key: sorted(set(given)) for key, given in asked.items()}
    choice = load_plain(f"backbone/{backbone}") | {"pretrained": False, "weights": None}
    for place in range(max(map(len, values.values()))):
        with torch.device("meta"):
            parts.build("backbone", choice | {key: given[place % len(given)] for key, given in values.items()})


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in ("finetune", "salad_dinov2")])
def test_every_search_composes_with_every_recipe(recipe: str, parts: Parts) -> None:
    """Except recipes without a margin and a GeM to search: finetune's network is a checkpoint's."""
    space = [part for search in choices_of("search") for part in read_space(load_plain(f"search/{search}"))]
    values = [override(part.key, part.example()) for part in space]
    cfg = train(f"experiment={recipe}", "data.root=x", "weights=x", *values)
    build_training_parts(parts, cfg)


def test_every_choice_of_an_evaluation_builds(parts: Parts) -> None:
    groups = ["backbone", "pooling", "local", "fusion", "model", "benchmark", "benchmark@learn_on", "index", "rerank"]
    groups += ["aggregate", "features", "trainer", "strategy"]
    for overrides in rounds(groups):
        if "model=from_checkpoint" in overrides:
            overrides[overrides.index("model=from_checkpoint")] = "model=gem"
        cfg = compose("evaluate", overrides=["name=x", "output_dir=o", *overrides, "post=[whitening,alpha_qe,dba]"])
        build_network(parts, cfg)
        parts.build("index", cfg.index, lambda index: index())
        for name, step in [*cfg.post.items(), ("rerank", cfg.get("rerank")), ("aggregate", cfg.get("aggregate"))]:
            if step is not None:
                parts.build(name, step)
        for benchmark in (cfg.benchmark, cfg.learn_on):
            benchmark.root = "x"
            parts.build("benchmark", benchmark, accepts)
        parts.build("features", cfg.features, lambda features: accepts(features, None))
        parts.build("trainer", cfg.trainer, accelerator="cpu", logger=False, enable_checkpointing=False)


@pytest.mark.parametrize("task", choices_of("task"))
def test_every_preparation_is_called_with_valid_arguments(task: str, parts: Parts) -> None:
    groups = ["pooling", "local", "fusion", "model", "benchmark", "benchmark@also", "features", "trainer"]
    for overrides in rounds(groups) if task == "overlap" else [[]]:
        cfg = compose("prepare", overrides=[f"task={task}", *overrides])
        call = dict(cfg.call)
        call.pop("_convert_", None)
        inspect.signature(get_method(call.pop("_target_"))).bind(**call)
        if task == "overlap":
            parts.build("features", cfg.features, lambda features: accepts(features, None))
            parts.build("spatial", cfg.spatial)
