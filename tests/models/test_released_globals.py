"""Released global networks with synthetic weights under official names, compared with torchvision."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from dolglab.errors import UserError
from dolglab.models.released_kinds import KINDS, load_kind
from models.released_weights import head_state

IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1


def resnet(depth: int) -> nn.Sequential:
    """torchvision's network as a sequence of its children up to the last map, with non-trivial statistics."""
    generator = torch.Generator().manual_seed(depth)
    full = getattr(torchvision.models, f"resnet{depth}")()
    for key, value in full.state_dict().items():
        if key.endswith("running_var") or (key.endswith("weight") and value.ndim == 1):
            value.copy_(torch.rand(value.shape, generator=generator) * 0.4 + 0.3)
        if key.endswith("running_mean"):
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    return nn.Sequential(*list(full.children())[:-2]).eval()


def gem(maps: Tensor, p: float) -> Tensor:
    return maps.double().clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p).float()


def linear(out: int, channels: int) -> dict[str, Tensor]:
    return {"weight": torch.randn(out, channels) / channels**0.5, "bias": torch.randn(out) / 10}


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in tensors.items()}


def pycls(trunk: nn.Sequential) -> dict[str, Tensor]:
    """A backbone's tensors under pycls' names, with colours in its order."""
    renamed = {}
    for key, value in trunk.state_dict().items():
        if key.startswith(("0.", "1.")):
            name = f"stem.{'conv' if key[0] == '0' else 'bn'}.{key.partition('.')[2]}"
        else:
            stage, block, rest = key.split(".", 2)
            rest = rest.replace("downsample.0", "proj").replace("downsample.1", "bn")
            rest = re.sub(r"^conv(\d)", lambda match: f"f.{' abc'[int(match[1])]}", rest)
            rest = re.sub(r"^bn(\d)", lambda match: f"f.{' abc'[int(match[1])]}_bn", rest)
            name = f"s{int(stage) - 3}.b{int(block) + 1}.{rest}"
        renamed[name] = value
    return renamed | {"stem.conv.weight": renamed["stem.conv.weight"].flip(1)}


def save(path: Path, tensors: dict[str, Tensor]) -> str:
    torch.save(tensors, path)
    return str(path)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("kind", "depth", "channels"), [("cosplace", 18, 512), ("eigenplaces", 50, 2048)])
@torch.no_grad()
def test_place_recognition_normalises_cells_pools_and_projects(
    kind: str, depth: int, channels: int, tmp_path: Path
) -> None:
    trunk, layer = resnet(depth), linear(24, channels)
    stored = below("backbone.", trunk.state_dict()) | below("aggregation.3.", layer)
    stored["aggregation.1.p"] = torch.tensor([2.7])
    model = load_kind(kind, save(tmp_path / "a.pth", stored))
    expected = F.linear(gem(F.normalize(trunk(IMAGES)), 2.7), layer["weight"], layer["bias"])
    close(model(IMAGES), expected)
    licence = {"cosplace": "not stated", "eigenplaces": "mit"}[kind]
    assert (model.dim, model.backbone.licence, model.training) == (24, licence, False)
    assert model.protocol is not None
    assert model.protocol.scales == (1.0,)


@torch.no_grad()
def test_cirtorch_whitens_the_normalised_feature_or_leaves_it(tmp_path: Path) -> None:
    trunk, layer = resnet(34), linear(512, 512)
    stored = below("features.", trunk.state_dict()) | {"pool.p": torch.tensor([2.9])}
    pooled = gem(trunk(IMAGES), 2.9)
    plain = load_kind("cirtorch", save(tmp_path / "plain.pth", stored))
    close(F.normalize(plain(IMAGES)), F.normalize(pooled))
    # Besides tensors, the files contain metadata and whitenings learned with numpy.
    about = {"meta": {"architecture": "resnet34", "Lw": {"m": np.zeros(3)}}}
    torch.save({**about, "state_dict": stored | below("whiten.", layer)}, tmp_path / "w.pth")
    whitened = load_kind("cirtorch", str(tmp_path / "w.pth"))
    close(whitened(IMAGES), F.linear(F.normalize(pooled), layer["weight"], layer["bias"]))
    assert (whitened.side, whitened.protocol and whitened.protocol.max_side) == (1024, 1024)


@pytest.mark.parametrize(("kind", "prefix"), [("cvnet", "encoder_q."), ("cvnet", ""), ("delg", "globalmodel.")])
@torch.no_grad()
def test_pycls_networks_use_bgr_and_ignore_other_tensors(kind: str, prefix: str, tmp_path: Path) -> None:
    trunk, layer = resnet(50), linear(20, 2048)
    stored = pycls(trunk) | below("head.fc.", layer) | {"head.pool.p": torch.tensor([3.1])}
    beside = {"conv2ds.0.weight": torch.zeros(2), "localmodel.conv1.bias": torch.zeros(2)} if prefix else {}
    path = save(tmp_path / "a.pyth", {"model_state": below(prefix, stored) | beside})  # pyright: ignore[reportArgumentType]
    model = load_kind(kind, path)
    close(model(IMAGES), F.linear(gem(trunk(IMAGES), 3.1), layer["weight"], layer["bias"]))
    assert model.protocol is not None
    assert (model.protocol.scales, model.protocol.scale_pooling) == ((0.7071, 1.0, 1.4142), "mean")


@torch.no_grad()
def test_superglobal_equals_its_public_code(parity: Path, tmp_path: Path) -> None:
    stored = below("encoder_q.", head_state(parity, "superglobal/r50"))
    model = load_kind("superglobal", save(tmp_path / "a.pyth", stored))
    expected = np.load(parity / "heads" / "superglobal.npz")
    for height, width in [(160, 192), (97, 131)]:
        rng = np.random.default_rng([7, height, width])
        images = torch.from_numpy(rng.standard_normal((2, 3, height, width)).astype(np.float32))
        reference = expected[f"r50_relup/{height}x{width}/single"]
        # The public code gets colours in its own order.
        found = model(images.flip(1)).numpy()
        assert np.abs(found - reference).max() / np.abs(reference).max() < 2e-5
    assert model.protocol is not None
    assert model.protocol.scale_pooling == "max"


def test_other_networks_are_refused_in_one_line(tmp_path: Path) -> None:
    trunk = resnet(18)
    whole = below("backbone.", trunk.state_dict()) | below("aggregation.3.", linear(8, 512))
    whole["aggregation.1.p"] = torch.tensor([3.0])
    without = {key: value for key, value in whole.items() if not key.startswith("backbone.4.1.conv2")}
    for kind, tensors, message in [
        ("cosplace", without, r"1 missing \(backbone\.4\.1\.conv2\.weight\)"),
        ("cosplace", whole | {"extra": torch.zeros(1)}, r"1 unknown \(extra\)"),
        ("cosplace", whole | {"aggregation.3.bias": torch.full((8,), float("nan"))}, "not finite"),
        ("cosplace", whole | {"aggregation.1.p": torch.ones(512)}, r"another shape \(aggregation\.1\.p\)"),
        ("cosplace", {"backbone.0.weight": torch.zeros(64, 3, 3, 3)}, "no ResNet of 18"),
        ("cirtorch", whole, "no ResNet of 18"),
        ("cvnet", whole, "no ResNet of 50"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            load_kind(kind, save(tmp_path / "a.pth", tensors))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="not found"):
        load_kind("delg", str(tmp_path / "none.pth"))


@pytest.mark.parametrize("kind", KINDS)
def test_released_networks_need_no_download_and_run_no_code(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match="refused"):
        load_kind(kind, str(tmp_path / "a.pth"))
