"""Forged checkpoints and configurations: each reader refuses them in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dolglab.commands.build_training import with_network
from dolglab.commands.training_cards import baseline_card
from dolglab.errors import UserError
from dolglab.losses.margin import CurricularFace
from dolglab.models.checkpoint import (
    RUN_KEY,
    build_model,
    changes,
    check_resumable,
    describe_run,
    load_model,
    read_run,
    selection_of,
    trained_on,
)
from dolglab.models.dolg import DOLG
from dolglab.sharing.export import from_checkpoint, model_card, new_folder, write_model
from dolglab.training.checkpointing import init_from
from end_to_end.runs import config
from training.test_checkpoints import DATA
from training.test_checkpoints import MODEL as LARGER

BIAS = "model.fc.bias"
BACKBONE: dict[str, Any] = {**LARGER["backbone"], "name": "test_resnet.r160_in1k"}
MODEL: dict[str, Any] = {**LARGER, "backbone": BACKBONE}


def model(**options: object) -> dict[str, Any]:
    return {"config": {"model": {**MODEL, **options}}}


def backbone(**options: object) -> dict[str, Any]:
    return model(backbone={**BACKBONE, **options})


def itself() -> dict[str, Any]:
    endless: dict[str, Any] = {}
    endless["model"] = endless
    return endless


def wide(depth: int = 60) -> dict[str, Any]:
    """2 to the power of `depth` values, made of only `depth` containers."""
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value, "b": value}
    return value


def deep(depth: int = 100) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


RUNS = {
    "no format": {"format": None},
    "format of lists": {"format": [1]},
    "no config": {"config": None},
    "config of lists": {"config": [1]},
    "a text as config": {"config": "text"},
    "no model": {"config": {"model": None}},
    "model of lists": {"config": {"model": [MODEL]}},
    "empty model": {"config": {"model": {}}},
    "only a pooling": {"config": {"model": {"_target_": "dolglab.models.pooling.GeM"}}},
    "half a model": model(_partial_=True),
    "flags": model(_partial_="text"),
    "arguments": model(_args_=5),
    "recursion": model(_recursive_="text"),
    "a number as target": model(_target_=5),
    "no target": model(_target_=None),
    "long target": model(_target_=f"src.{'a' * 400}.x"),
    "a text as size": model(dim="text"),
    "a negative size": model(dim=-1),
    "half a size": model(dim=8.5),
    "a large size": model(dim=10**12),
    "a larger size": model(dim=10**40),
    "no backbone": model(backbone=None),
    "a text as backbone": model(backbone="text"),
    "backbone of lists": model(backbone=[1]),
    "a number as name": backbone(name=5),
    "a name elsewhere": backbone(name="hf-hub:a/b"),
    "a number as strides": backbone(reductions=5),
    "no strides": backbone(reductions=[]),
    "a number as options": backbone(options=5),
    "unknown options": backbone(options={"x": 1}),
    "options of another type": backbone(options={"layers": "text"}),
    "rates": backbone(drop_path="text"),
    "stages": backbone(freeze_until="text"),
    "no pooling": model(pooling=None),
    "a text as exponent": model(pooling={**MODEL["pooling"], "p": "text"}),
    "parts exchanged": model(local=MODEL["fusion"], fusion=MODEL["pooling"]),
    "unknown argument": model(nonsense=3),
    "names": {"config": {"model": {**MODEL, 3: 3}}},
    "names of two": {"config": {"model": {**MODEL, (1, 2): 3}}},
    "a tensor": model(dim=torch.tensor(8)),
    "itself": {"config": itself()},
    "wide": model(more=wide()),
    "deep": model(more=deep()),
    "no classes": {"classes": None},
    "a text as classes": {"classes": "ab"},
    "numbers as classes": {"classes": [1, 2]},
    "no data": {"data": None},
    "data of lists": {"data": [1]},
    "validation of lists": {"data": {**DATA, "validation": ["a"]}},
    "a number as data": {"config": {"model": MODEL, "data": 5}},
}
STATES = {
    "NaN": torch.full((8,), torch.nan),
    "complex": torch.zeros(8, dtype=torch.complex64),
    "whole numbers": torch.zeros(8, dtype=torch.int8),
    "truths": torch.zeros(8, dtype=torch.bool),
    "sparse": torch.zeros(8).to_sparse(),
    "one value spread": torch.zeros(1).expand(8),
    "no values": torch.zeros(8, device="meta"),
    "beyond float32": torch.full((8,), 1e300, dtype=torch.float64),
    "another shape": torch.zeros(()),
    "a number": 3,
}


def readers(network: DOLG, path: Path) -> dict[str, Callable[[], object]]:
    """All readers of checkpoints."""
    holder = nn.Module()
    holder.model, holder.head = network, nn.Module()
    holder.head.weight = nn.Parameter(torch.zeros(2, 8))
    now = describe_run({"model": MODEL}, ["a", "b"], DATA)

    def export() -> str:
        _, about = from_checkpoint(path)
        return model_card(network, about, "title", "name", None, [], [])

    def finetune() -> object:
        cfg = config("train", "experiment=finetune", f"weights={path}", "data.root=photos", "output_dir=out")
        return with_network(cfg, None), baseline_card(cfg, {}, {}, [])

    return {
        "load": lambda: load_model(path),
        "describe": lambda: (selection_of(path), trained_on(read_run(path))),
        "start": lambda: init_from(network, CurricularFace(8, 2), str(path), ["a", "b"]),
        "resume": lambda: (check_resumable(path, holder, now), changes(path, now)),
        "finetune": finetune,
        "export": export,
    }


def outcomes(network: DOLG, path: Path) -> dict[str, str]:
    """The one-line refusal of each reader; any other error fails the test."""
    found = {}
    for name, read in readers(network, path).items():
        try:
            read()
        except UserError as error:
            found[name] = str(error)
            assert "\n" not in found[name]
    return found


@pytest.fixture(scope="module")
def checkpoint() -> tuple[DOLG, Mapping[str, Any]]:
    network = build_model(MODEL)
    assert isinstance(network, DOLG)
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    run = describe_run({"model": MODEL}, ["a", "b"], DATA)
    return network, {"state_dict": {**state, "head.weight": torch.zeros(2, 8)}, RUN_KEY: run}


def test_a_valid_checkpoint_is_read_by_all(checkpoint: tuple[DOLG, Mapping[str, Any]], tmp_path: Path) -> None:
    network, stored = checkpoint
    torch.save(stored, tmp_path / "a.ckpt")
    assert outcomes(network, tmp_path / "a.ckpt") == {}


@pytest.mark.parametrize("wrong", RUNS)
def test_a_forged_description_is_refused(
    wrong: str, checkpoint: tuple[DOLG, Mapping[str, Any]], tmp_path: Path
) -> None:
    network, stored = checkpoint
    torch.save({**stored, RUN_KEY: {**stored[RUN_KEY], **RUNS[wrong]}}, tmp_path / "a.ckpt")
    assert "load" in outcomes(network, tmp_path / "a.ckpt")


@pytest.mark.parametrize("wrong", STATES)
def test_forged_tensors_are_refused_as_by_the_importer(
    wrong: str, checkpoint: tuple[DOLG, Mapping[str, Any]], tmp_path: Path
) -> None:
    network, stored = checkpoint
    torch.save({**stored, "state_dict": {**stored["state_dict"], BIAS: STATES[wrong]}}, tmp_path / "a.ckpt")
    refused = outcomes(network, tmp_path / "a.ckpt")
    assert {"load", "start", "export"} <= refused.keys()
    assert all("fc.bias" in refused[reader] for reader in ("load", "start", "export"))


@pytest.mark.parametrize("whole", [None, [1], "text", {RUN_KEY: None}, {RUN_KEY: [1]}, {RUN_KEY: "text"}])
def test_files_that_are_not_checkpoints_are_refused_by_all(
    whole: object, checkpoint: tuple[DOLG, Mapping[str, Any]], tmp_path: Path
) -> None:
    network, _ = checkpoint
    torch.save(whole, tmp_path / "a.ckpt")
    assert outcomes(network, tmp_path / "a.ckpt").keys() == readers(network, tmp_path / "a.ckpt").keys()


@pytest.mark.parametrize("state", [None, [1], "text", {}, {"a": 1}])
def test_a_checkpoint_without_tensors_is_refused(
    state: object, checkpoint: tuple[DOLG, Mapping[str, Any]], tmp_path: Path
) -> None:
    network, stored = checkpoint
    torch.save({**stored, "state_dict": state}, tmp_path / "a.ckpt")
    assert {"load", "start", "resume", "export"} <= outcomes(network, tmp_path / "a.ckpt").keys()


@pytest.mark.parametrize(
    "change",
    [
        lambda about, tensors: (json.dumps({**about, "config": {"model": None}}), tensors),
        lambda about, tensors: ('{"a":' * 100_000, tensors),
        lambda about, tensors: ("[1]", tensors),
        lambda about, tensors: (json.dumps(about), {**tensors, BIAS: torch.full((8,), torch.inf)}),
    ],
)
def test_an_exported_folder_is_checked_like_a_checkpoint(
    change: Callable[..., tuple[str, dict[str, Any]]], checkpoint: tuple[DOLG, Mapping[str, Any]], tmp_path: Path
) -> None:
    network, stored = checkpoint
    tensors, about = stored["state_dict"], stored[RUN_KEY]
    text, changed = change(about, tensors)
    with new_folder(tmp_path / "model") as folder:
        write_model(folder, changed, about)
        (folder / "config.json").write_text(text)
    assert {"load", "start", "export"} <= outcomes(network, tmp_path / "model").keys()
