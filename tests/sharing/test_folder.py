"""Exported folders give the descriptors of their source, and their weights can start another training."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch

from dolglab.errors import UserError
from dolglab.losses.local import LocalLoss
from dolglab.losses.margin import ArcFace, CurricularFace
from dolglab.models.checkpoint import build_model, load_model, selection_of, tensor_file
from dolglab.models.released import load_released, released_config
from dolglab.sharing.export import Weights, from_checkpoint, from_released, new_folder, write_model
from dolglab.training.checkpointing import init_from
from models.released_weights import state_dict
from training.test_checkpoints import DATA, write, write_delg
from warm_python import run_python

ROOT = Path(__file__).resolve().parents[2]


def written(weights: Weights, out: Path) -> Path:
    with new_folder(out) as folder:
        write_model(folder, *weights)
    return out


def test_a_checkpoint_is_exported_as_a_folder(tmp_path: Path) -> None:
    network = write(tmp_path / "best.ckpt")
    folder = written(from_checkpoint(tmp_path / "best.ckpt"), tmp_path / "a" / "model")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    loaded, config = load_model(folder)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded(x), network(x))
    assert config["model"]["dim"] == 8
    assert selection_of(folder) == DATA["validation"]
    assert tensor_file(folder) == folder / "model.safetensors"
    assert json.loads((folder / "config.json").read_text())["classes"] == ["a", "b"]
    with pytest.raises(UserError, match=re.escape(str(folder))):
        written(from_checkpoint(tmp_path / "best.ckpt"), folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99}'])
def test_a_folder_without_a_valid_description_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path / "best.ckpt")
    folder = written(from_checkpoint(tmp_path / "best.ckpt"), tmp_path / "model")
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError):
        load_model(folder)


@pytest.mark.process
def test_the_command_exports_released_weights(parity: Path, tmp_path: Path) -> None:
    torch.save({"model_state": state_dict(parity, "r50_noaspp")}, tmp_path / "weights.pyth")

    def export(*options: str) -> subprocess.CompletedProcess[str]:
        return run_python(["-m", "src.export", *options, "--out", str(tmp_path / "my model")])

    for options in ([], ["--released", str(tmp_path / "gone.pyth")]):
        refused = export(*options)
        assert refused.returncode == 2
        assert refused.stderr.startswith("error: ")
        assert len(refused.stderr.splitlines()) == 1
    done = export("--released", str(tmp_path / "weights.pyth"))
    assert done.returncode == 0, done.stderr
    loaded, _ = load_model(tmp_path / "my model")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), load_released(tmp_path / "weights.pyth")(x))


def test_training_starts_from_released_weights_and_their_head(parity: Path, tmp_path: Path, capsys) -> None:
    stored = state_dict(parity, "r50_noaspp") | {"desc_cls.t": torch.tensor([0.3])}
    torch.save({"model_state": stored}, tmp_path / "weights.pyth")
    exported = written(from_released(tmp_path / "weights.pyth"), tmp_path / "model")
    model, head = build_model(released_config("resnet50.tv_in1k", aspp=False)), CurricularFace(512, 100)
    for source in (tmp_path / "weights.pyth", exported):
        init_from(model, head, str(source), [str(i) for i in range(100)])
        assert torch.equal(model.state_dict()["fc.bias"], stored["fc.bias"])
    assert torch.equal(head.weight, stored["desc_cls.weight"])
    assert head.mean_cosine.item() == pytest.approx(0.3)
    other = ArcFace(512, 7)
    before = other.weight.clone()
    init_from(model, other, str(tmp_path / "weights.pyth"), [str(i) for i in range(7)])
    assert torch.equal(other.weight, before)
    assert "its head is not used: its shape differs" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"weights\.pyth"):
        init_from(build_model(released_config("resnet50.tv_in1k", aspp=True)), head, str(tmp_path / "weights.pyth"), [])


def test_class_centres_are_used_with_another_margin(tmp_path: Path) -> None:
    network = write(tmp_path / "a.ckpt")
    head = CurricularFace(8, 2)
    init_from(network, head, str(tmp_path / "a.ckpt"), ["a", "b"])
    assert (head.weight == 0).all()


def test_the_export_of_a_last_checkpoint_was_not_selected(tmp_path: Path) -> None:
    write(tmp_path / "last.ckpt")
    assert selection_of(written(from_checkpoint(tmp_path / "last.ckpt"), tmp_path / "model")) == {}


@pytest.mark.parametrize("missing", ["classes", "data", "config"])
def test_a_missing_file_of_a_folder_is_named(tmp_path: Path, missing: str) -> None:
    write(tmp_path / "best.ckpt")
    folder = written(from_checkpoint(tmp_path / "best.ckpt"), tmp_path / "model")
    about = json.loads((folder / "config.json").read_text())
    del about[missing]
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=missing):
        load_model(folder)


def test_the_head_is_used_only_for_the_same_landmarks(tmp_path: Path) -> None:
    network = write(tmp_path / "a.ckpt")
    for classes, same in [(["a", "b"], True), (["a", "c"], False)]:
        head = ArcFace(8, 2)
        init_from(network, head, str(tmp_path / "a.ckpt"), classes)
        assert bool((head.weight == 0).all()) is same


def test_parts_of_a_network_initialise_another(tmp_path: Path, capsys) -> None:
    trained = write(tmp_path / "a.ckpt")
    other = write(tmp_path / "b.ckpt")
    head, before = ArcFace(8, 2), {key: value.clone() for key, value in other.state_dict().items()}
    centres = head.weight.clone()
    init_from(other, head, str(tmp_path / "a.ckpt"), ["a", "b"], ["backbone"])
    for key, value in other.state_dict().items():
        taken = trained.state_dict()[key] if key.startswith("backbone.") else before[key]
        assert torch.equal(value, taken), key
    assert torch.equal(head.weight, centres)
    assert "backbone; the rest keeps its initialisation" in capsys.readouterr().out
    with pytest.raises(UserError, match="weights_parts=neck"):
        init_from(other, head, str(tmp_path / "a.ckpt"), ["a", "b"], ["neck"])


def test_a_local_head_and_its_classifier_are_exported(tmp_path: Path) -> None:
    network = write_delg(tmp_path / "a.ckpt")
    stored = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]["auxiliary.classifier.weight"]
    folder = written(from_checkpoint(tmp_path / "a.ckpt"), tmp_path / "model")
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(vars(load_model(folder)[0].local_maps(x)), vars(network.local_maps(x)))
    for source, classes, same in [
        (tmp_path / "a.ckpt", ["a", "b"], True),
        (folder, ["a", "b"], True),
        (folder, ["a", "c"], False),
    ]:
        auxiliary = LocalLoss(256, 2)
        init_from(network, ArcFace(8, 2), str(source), classes, auxiliary=auxiliary)
        assert torch.equal(auxiliary.classifier.weight, stored) is same


def test_the_parts_of_a_local_head_are_named(tmp_path: Path) -> None:
    trained, other = write_delg(tmp_path / "a.ckpt"), write_delg(tmp_path / "b.ckpt")
    init_from(other, ArcFace(8, 2), str(tmp_path / "a.ckpt"), ["a", "b"], ["local"], LocalLoss(256, 2))
    same = [key for key, value in other.state_dict().items() if torch.equal(value, trained.state_dict()[key])]
    assert {"local.encoder.weight", "local.decoder.weight", "local.attention.0.weight"} <= set(same)
    assert "fc.weight" not in same
    with pytest.raises(UserError, match=r"weights_parts=aspp.*local"):
        init_from(other, ArcFace(8, 2), str(tmp_path / "a.ckpt"), ["a", "b"], ["aspp"])
