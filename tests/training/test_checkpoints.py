"""Checkpoints restore their network, and foreign contents are refused."""

from __future__ import annotations

import pickle
import re
from functools import partial
from pathlib import Path

import pytest
import torch

from dolglab.errors import UserError
from dolglab.losses.local import LocalLoss
from dolglab.losses.margin import ArcFace
from dolglab.models.backbone import Backbone
from dolglab.models.checkpoint import (
    RUN_KEY,
    changes,
    check_resumable,
    describe_run,
    load_model,
    read_checkpoint,
    selection_of,
)
from dolglab.models.delg import DELG, LocalHead
from dolglab.models.dolg import DOLG
from dolglab.models.fusion import concat_fusion
from dolglab.models.pooling import GeM
from dolglab.training.checkpointing import AtomicCheckpointIO

MODEL = {
    "_target_": "dolglab.models.dolg.DOLG",
    "backbone": {
        "_target_": "dolglab.models.backbone.Backbone",
        "name": "resnet18.tv_in1k",
        "pretrained": True,
        "weights": None,
    },
    "pooling": {"_target_": "dolglab.models.pooling.GeM", "_partial_": True, "p": 2.5},
    "local": {"_target_": "dolglab.models.local_branch.LocalBranch", "_partial_": True},
    "fusion": {"_target_": "dolglab.models.fusion.concat_fusion", "_partial_": True},
    "hidden": 16,
    "dim": 8,
}

DELG_MODEL = {
    "_target_": "dolglab.models.delg.DELG",
    "backbone": MODEL["backbone"],
    "pooling": {"_target_": "dolglab.models.pooling.GeM", "_partial_": True},
    "local": {"_target_": "dolglab.models.delg.LocalHead", "_partial_": True, "code": 6, "hidden": 4},
    "dim": 8,
}

DATA = {"training": "1" * 16, "validation": {"held out": "2" * 16}, "test": {"toy": "3" * 16}}
EVIL = ["os.system", "dolglab.models.dolg.torch.os.system", "dolglab.models.dolg.nn", "dolglab.models.dolg.Tensor"]
EVIL += [
    "dolglab.models.backbone._read_tensors",
    "dolglab.models.weights.read_file",
    "dolglab.models.dolg",
    "dolglab.commands.hydra_cli.configure_process",
]


def write(path: Path, model: dict | None = None, **changes: object) -> DOLG:
    network = DOLG(
        Backbone("resnet18.tv_in1k", pretrained=False), partial(GeM, p=2.5), fusion=concat_fusion, hidden=16, dim=8
    )
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    run = describe_run({"model": model or MODEL}, ["a", "b"], DATA)
    torch.save({"state_dict": state | {"head.weight": torch.zeros(2, 8)}, RUN_KEY: run | changes}, path)
    return network.eval()


def test_the_network_is_loaded_without_a_download(tmp_path: Path) -> None:
    network = write(tmp_path / "a.ckpt")
    loaded, config = load_model(tmp_path / "a.ckpt")
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded(x), network(x))
    assert not loaded.training
    assert config["model"]["dim"] == 8


def write_delg(path: Path) -> DELG:
    """A run of a network with a local head, as in its training module."""
    network = DELG(Backbone("resnet18.tv_in1k", pretrained=False), local=partial(LocalHead, code=6, hidden=4), dim=8)
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    state |= {f"head.{key}": value for key, value in ArcFace(8, 2).state_dict().items()}
    state |= {f"auxiliary.{key}": value for key, value in LocalLoss(256, 2).state_dict().items()}
    torch.save({"state_dict": state, RUN_KEY: describe_run({"model": DELG_MODEL}, ["a", "b"], DATA)}, path)
    return network.eval()


def test_a_network_with_a_local_head_is_loaded_without_its_classifier(tmp_path: Path) -> None:
    network = write_delg(tmp_path / "a.ckpt")
    loaded, _ = load_model(tmp_path / "a.ckpt")
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded(x), network(x))
    torch.testing.assert_close(vars(loaded.local_maps(x)), vars(network.local_maps(x)))


def test_refusals_give_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    write(tmp_path / "format.ckpt", format=99)
    write(tmp_path / "other.ckpt", MODEL | {"hidden": 32})
    for place, target in enumerate(EVIL):
        write(tmp_path / f"evil{place}.ckpt", MODEL | {"fusion": {"_target_": target, "command": "true"}})
    whole = tmp_path / "whole.ckpt"
    write(whole)
    (tmp_path / "cut.ckpt").write_bytes(whole.read_bytes()[:-2000])
    for name, value in [
        ("gone.ckpt", "gone.ckpt"),
        ("text.ckpt", "text.ckpt"),
        ("cut.ckpt", "cut.ckpt"),
        ("foreign.ckpt", "foreign.ckpt"),
        ("format.ckpt", "format.ckpt .* 99"),
        ("other.ckpt", r"other.ckpt .*fc\.weight"),
        *((f"evil{place}.ckpt", re.escape(target)) for place, target in enumerate(EVIL)),
    ]:
        with pytest.raises(UserError, match=value) as caught:
            load_model(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"pooling": "${oc.create:{_target_:builtins.print,_args_:[ran]}}"},
        {"${oc.env:HOME}": 1},
        {"backbone": {**MODEL["backbone"], "options": {"checkpoint_path": "/etc/passwd"}}},
        {"pooling": {"_target_": "dolglab.models.weights.read_file", "source": "hf://a/b/c"}},
    ],
)
def test_a_configuration_can_call_nothing_else(tmp_path: Path, change: dict, capsys) -> None:
    write(tmp_path / "a.ckpt", {**MODEL, **change})
    with pytest.raises(UserError):
        load_model(tmp_path / "a.ckpt")
    assert "ran" not in capsys.readouterr().out


class _Code:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("/tmp/should_not_exist_dolg"),))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps(_Code()))
    with pytest.raises(UserError):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not Path("/tmp/should_not_exist_dolg").exists()


def test_a_checkpoint_stores_the_sets_that_selected_it(tmp_path: Path) -> None:
    for name in ("best.ckpt", "moved.ckpt", "last.ckpt"):
        write(tmp_path / name)
    assert selection_of(tmp_path / "best.ckpt") == selection_of(tmp_path / "moved.ckpt") == DATA["validation"]
    assert selection_of(tmp_path / "last.ckpt") == {}


def test_a_failed_write_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)
    with pytest.raises(AttributeError, match="pickle"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2, "code": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}


def test_a_run_cannot_resume_with_another_network(tmp_path: Path) -> None:
    write(tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt .*head\.weight"):
        check_resumable(tmp_path / "a.ckpt", torch.nn.Linear(2, 2), describe_run({"model": MODEL}, ["a", "b"], DATA))


def test_a_run_cannot_resume_with_other_classes_or_another_optimizer(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    write(path)
    for run, message in [
        (describe_run({"model": MODEL}, ["a", "c"], DATA), r"data\.root"),
        (describe_run({"model": MODEL}, ["a", "b"], DATA | {"training": "4" * 16}), r"data\.\*"),
        (describe_run({"model": MODEL}, ["a", "b"], DATA | {"validation": {}}), r"data\.\*"),
        (describe_run({"model": MODEL, "optim": {"lr": 1}}, ["a", "b"], DATA), r"^optim=\.\.\."),
        (describe_run({"model": MODEL, "ema": 0.9}, ["a", "b"], DATA), r"^ema=\.\.\."),
        (describe_run({"model": MODEL, "backbone": {"freeze_bn": True}}, ["a", "b"], DATA), r"freeze_bn=\.\.\."),
    ]:
        with pytest.raises(UserError, match=message):
            check_resumable(path, torch.nn.Linear(2, 2), run)


@pytest.mark.parametrize("within", [True, False])
def test_within_an_epoch_its_order_cannot_change(tmp_path: Path, within: bool) -> None:
    path = tmp_path / "a.ckpt"
    write(path)
    progress = {"fit_loop": {"epoch_progress": {"current": {"started": 2, "processed": 1 if within else 2}}}}
    torch.save(torch.load(path, weights_only=True) | {"loops": progress}, path)
    for changed in ({"seed": 3}, {"data": {"batch_size": 4}}, {"data": {"sampling": "balanced"}}):
        run = describe_run({"model": MODEL} | changed, ["a", "b"], DATA)
        with pytest.raises(UserError, match=f"{next(iter(changed))}.*=" if within else r"head\.weight"):
            check_resumable(path, torch.nn.Linear(2, 2), run)


def test_changed_settings_of_a_resumed_run_are_named(tmp_path: Path) -> None:
    model = {"backbone": {"name": "resnet18"}}
    before = {"model": model, "name": "a", "seed": 0, "optim": {"lr": 0.1, "steps": [1, 2]}, "gone": 1, "empty": {}}
    now = {"model": model, "name": "b", "seed": 1, "optim": {"lr": 0.1, "steps": [1, 3]}, "empty": {}, "new": None}
    path = tmp_path / "last.ckpt"
    torch.save({RUN_KEY: describe_run(before, ["a"], DATA)}, path)
    found = changes(path, describe_run(now, ["a"], DATA))
    assert found == ["seed: 0 -> 1", "optim.steps: [1, 2] -> [1, 3]", "gone: 1 -> None"]
    assert changes(path, describe_run(before, ["a"], DATA)) == []


def test_a_changed_setting_is_named_once(tmp_path: Path) -> None:
    model = {"backbone": {"name": "resnet18"}}

    def config(strategy: object, seed: int, batch: int) -> dict:
        data = {"seed": seed, "batch": batch}
        return {
            "model": model,
            "trainer": {"strategy": strategy, "batch": batch + 1},
            "strategy": strategy,
            "data": data,
            "seed": seed,
        }

    path = tmp_path / "last.ckpt"
    torch.save({RUN_KEY: describe_run(config("auto", 0, 1), ["a"], DATA)}, path)
    found = changes(path, describe_run(config("ddp", 1, 3), ["a"], DATA))
    assert set(found) == {"strategy: auto -> ddp", "seed: 0 -> 1", "data.batch: 1 -> 3", "trainer.batch: 2 -> 4"}
    ddp = {"_target_": "DDP", "timeout": {"_target_": "timedelta", "hours": 3}}
    assert changes(path, describe_run(config(ddp, 0, 1), ["a"], DATA)) == ["strategy: auto -> DDP"]
    torch.save({RUN_KEY: describe_run(config(ddp, 0, 1), ["a"], DATA)}, path)
    fsdp = {"_target_": "FSDP", "timeout": {"_target_": "timedelta", "hours": 4}, "state": "sharded"}
    found = changes(path, describe_run(config(fsdp, 0, 1), ["a"], DATA))
    assert set(found) == {"strategy: DDP -> FSDP", "strategy.timeout.hours: 3 -> 4"}
