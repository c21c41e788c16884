"""The released network compared with values of independent reference code."""

from __future__ import annotations

import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dolglab.data.image_reading import Reading, crop_query, decode
from dolglab.data.revisited import load_ground_truth
from dolglab.errors import UserError
from dolglab.extraction.extractor import Extractor
from dolglab.models.released import load_released, read_released
from models.released_weights import state_dict

pytestmark = pytest.mark.slow

KINDS = ["r50_aspp", "r50_noaspp", "r101_aspp", "r101_noaspp"]
SCALES = (0.3535, 0.5, 0.7071, 1.0, 1.4142)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_stage_equals_the_released_network(kind: str, parity: Path) -> None:
    model = load_released(state_dict(parity, kind))
    assert not model.training
    expected = np.load(parity / "dolg" / f"{kind}.npz")
    for height, width in [(224, 224), (192, 320)]:
        rng = np.random.default_rng([0, height, width])
        images = torch.from_numpy(rng.standard_normal((2, 3, height, width)).astype(np.float32))
        features = model.backbone(images)
        normalised, score = model.local.attend(features.local)
        assert score is not None
        found = {
            "res3_mean": features.local.mean((2, 3)),
            "res4_mean": features.global_.mean((2, 3)),
            "attention": score,
            "local_mean": (score * normalised).mean((2, 3)),
            "global": model.fc_global(model.pooling(features.global_)),
            "descriptor": model(images),
        }
        for name, value in found.items():
            reference = expected[f"{height}x{width}/{name}"]
            assert np.abs(value.numpy() - reference).max() / np.abs(reference).max() < 1e-4, name


@torch.no_grad()
def test_the_whole_pipeline_equals_the_released_code(parity: Path, shared_data: Path) -> None:
    root = shared_data / "rparis6k-mini"
    lists = load_ground_truth(root / "gnd_rparis6k-mini.pkl")
    boxes = dict(zip(lists.queries, lists.boxes, strict=True))
    expected = np.load(parity / "dolg" / "pipeline_r50_noaspp.npz")
    model = load_released(state_dict(parity, "r50_noaspp"))
    names = sorted({key.partition("/")[0] for key in expected.files})
    assert len(names) == 4
    for name in names[:2]:  # one of the gallery and a query, which is cut to its box
        pixels = decode((root / "jpg" / f"{name}.jpg").read_bytes(), Reading(colour="ignore"))
        if name in boxes:
            pixels = crop_query(pixels, boxes[name], "trunc")
        image = torch.from_numpy(pixels)
        alone = [Extractor(model, [scale])([image])[0].numpy() for scale in SCALES]
        for found, reference in zip(alone, expected[f"{name}/scales"], strict=True):
            assert found @ reference > 0.99999
        mean = np.mean(alone, axis=0)
        together = Extractor(model, SCALES)([image])[0].numpy() if name in boxes else mean / np.linalg.norm(mean)
        assert together @ expected[f"{name}/descriptor"] > 0.99999


def test_the_head_is_read_too(parity: Path) -> None:
    stored = state_dict(parity, "r50_noaspp")
    released = read_released({f"module.{key}": value for key, value in stored.items()})
    assert torch.equal(released.centres, stored["desc_cls.weight"])
    assert torch.equal(released.mean_cosine, stored["desc_cls.t"])
    first = released.model["backbone.net.conv1.weight"]
    assert torch.equal(first[:, [2, 1, 0]], stored["globalmodel.stem.conv.weight"])


def without(stored: dict[str, Tensor], *keys: str) -> dict[str, Tensor]:
    return {key: value for key, value in stored.items() if key not in keys}


def test_other_networks_are_refused_with_their_keys(parity: Path) -> None:
    stored = state_dict(parity, "r50_aspp")
    half = dict(list(stored.items())[: len(stored) // 2])
    deep = {f"globalmodel.s3.b{block}.f.a.weight": torch.zeros(1) for block in range(1, 37)}
    nan = stored | {"fc.bias": torch.full((512,), float("nan"))}
    for wrong, message in [
        (without(stored, "fc_t.bias", "fc.bias"), r"2 missing \(fc.bias, fc_t.bias\)"),
        (stored | {"extra.weight": torch.zeros(1)}, r"1 unknown \(extra.weight\)"),
        (half, "[0-9]+ missing"),
        (stored | deep, "36 blocks"),
        (nan, "in fc.bias$"),
        (stored | {"fc.bias": torch.zeros(3)}, r"1 of another shape \(fc.bias\)"),
        ({"a": torch.zeros(1)}, r"globalmodel\.s1"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            load_released(wrong)
        assert "\n" not in str(caught.value)


class _Code:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.witness),))


def test_files_are_read_and_code_in_them_is_not_run(parity: Path, tmp_path: Path) -> None:
    stored = state_dict(parity, "r50_noaspp")
    torch.save({"epoch": 3, "model_state": stored, "cfg": "MODEL:"}, tmp_path / "weights.pyth")
    assert load_released(tmp_path / "weights.pyth").dim == 512
    witness = tmp_path / "witness"
    with (tmp_path / "evil.pyth").open("wb") as file:
        pickle.dump({"model_state": _Code(witness)}, file)
    torch.save({"model_state": _Code(witness)}, tmp_path / "evil_too.pyth")
    for name in ("evil.pyth", "evil_too.pyth"):
        with pytest.raises(UserError, match=re.escape(name)):
            load_released(tmp_path / name)
    assert not witness.exists()
    (tmp_path / "text.pyth").write_text("text")
    for name, message in [("gone.pyth", "gone.pyth"), ("text.pyth", "text.pyth is"), ("hf://one/two", "OWNER/NAME")]:
        with pytest.raises(UserError, match=message):
            load_released(name if name.startswith("hf:") else tmp_path / name)


def test_a_file_is_requested_from_the_hub(monkeypatch: pytest.MonkeyPatch, parity: Path, tmp_path: Path) -> None:
    """A replacement for the hub's library, which would use the network."""
    torch.save(state_dict(parity, "r50_noaspp"), tmp_path / "r50.pt")
    asked = []
    hub = type(sys)("huggingface_hub")
    hub.hf_hub_download = lambda repository, file: asked.append((repository, file)) or str(tmp_path / "r50.pt")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert load_released("hf://someone/DOLG/weights/r50.pt").dim == 512
    assert asked == [("someone/DOLG", "weights/r50.pt")]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"dolglab\[hub\]"):
        load_released("hf://someone/DOLG/weights/r50.pt")
