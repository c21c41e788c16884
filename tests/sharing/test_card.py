"""The model card states what is known, and marks the rest as unknown."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from dolglab.errors import UserError
from dolglab.io import sha256_of
from dolglab.results.card import write_card
from dolglab.sharing.export import export
from models.released_weights import state_dict


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path, make_card_of, make_ranking) -> Path:
    """A run's folder with the card of its best checkpoint."""
    shutil.copytree(checkpoint.parent, tmp_path / "run" / "checkpoints")
    card = make_card_of("DOLG", make_ranking("toy", digest="2" * 16), scales=[1.0], selection={"held out": "2" * 16})
    write_card(
        {**card, "checkpoint": {"path": "best.ckpt", "sha256": sha256_of(checkpoint)}}, tmp_path / "run" / "card.json"
    )
    return tmp_path / "run"


def test_a_run_finds_its_own_card(run: Path, tmp_path: Path, capsys) -> None:
    out = export(str(tmp_path / "my model"), checkpoint=str(run / "checkpoints" / "best.ckpt"), licence="cc-by-4.0")
    text = (out / "README.md").read_text()
    about = front_matter(text)
    assert about["license"] == "cc-by-4.0"
    assert about["base_model"] == "timm/resnet18.tv_in1k"
    assert "landmark-retrieval" in about["tags"]
    assert "(1 result cards)" in capsys.readouterr().out
    for line in (
        'model = dolglab.load("my model")',
        "- images trained on: not known",
        "- landmarks trained on: 2",
        "- chosen on: held out (digest 2222222222222222)",
        "- model.pooling: GeM p=2.5",
        "- these weights: cc-by-4.0",
        "- the weights that training started from: resnet18.tv_in1k: bsd-3-clause",
        "- the code: MIT",
    ):
        assert line in text, line
    # The figures come with their protocol and footnotes.
    assert "75.00" in text
    assert "selected on this set" in text
    assert "scales" in text


def test_a_card_of_other_weights_is_refused(run: Path, tmp_path: Path) -> None:
    best, last = run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt"
    stored = torch.load(best, weights_only=True)
    torch.save({**stored, "epoch": 7}, last)
    text = (export(str(tmp_path / "a"), checkpoint=str(last)) / "README.md").read_text()
    assert "No result card was given" in text
    assert "validated, and not chosen, on: held out" in text
    assert "license" not in front_matter(text)
    with pytest.raises(UserError, match=re.escape(str(run / "card.json"))):
        export(str(tmp_path / "b"), checkpoint=str(last), cards=[str(run / "card.json")])
    assert not (tmp_path / "b").exists()
    exported = export(str(tmp_path / "c"), checkpoint=str(best), cards=[str(run / "card.json")])
    assert "75.00" in (exported / "README.md").read_text()


def test_unknown_information_about_released_weights_is_marked(parity: Path, tmp_path: Path) -> None:
    torch.save({"model_state": state_dict(parity, "r50_noaspp")}, tmp_path / "weights.pyth")
    text = (export(str(tmp_path / "a"), released=str(tmp_path / "weights.pyth")) / "README.md").read_text()
    assert text.count("not known") == 6
    assert "- these weights: not stated" in text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "--checkpoint.*--released"),
        ({"checkpoint": "a", "released": "b"}, "--checkpoint.*--released"),
        ({"checkpoint": "a", "int8": True}, "--onnx"),
        ({"checkpoint": "a", "onnx": True, "int8": True}, "--calibrate"),
        ({"checkpoint": "a", "push": "model"}, "^model "),
    ],
)
def test_conflicting_options_are_refused(tmp_path: Path, asked: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        export(str(tmp_path / "out"), **asked)
