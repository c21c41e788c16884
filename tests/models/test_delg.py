"""DELG: the same descriptor as without a local head, which does not change the network."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from dolglab.errors import UserError
from dolglab.losses.local import LocalLoss
from dolglab.models.backbone import Backbone
from dolglab.models.delg import DELG, LocalHead
from dolglab.models.dolg import GlobalDescriptor


def r18() -> Backbone:
    return Backbone("resnet18.tv_in1k", pretrained=False)


def delg(**options: bool) -> DELG:
    return DELG(r18(), local=partial(LocalHead, code=6, hidden=5, **options), dim=8)


def one_by_one(x: torch.Tensor, conv: torch.nn.Conv2d) -> torch.Tensor:
    """A 1x1 convolution as a matrix product."""
    assert conv.bias is not None
    return torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], x) + conv.bias.view(-1, 1, 1)


def test_the_papers_sizes_are_the_defaults() -> None:
    model = DELG(r18())
    assert model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 2048)
    assert model.local_maps(torch.randn(1, 3, 64, 64)).features.shape == (1, 128, 4, 4)


def test_the_descriptor_equals_that_of_the_global_branch() -> None:
    model = delg().eval()
    plain = GlobalDescriptor(r18(), dim=8).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("local.")})
    x = torch.randn(2, 3, 96, 64)
    torch.testing.assert_close(model(x), plain(x))
    torch.testing.assert_close(model.training_features(model.backbone(x))[0], plain(x))


@pytest.mark.parametrize("relu", [True, False])
def test_the_local_head_equals_its_formula(relu: bool) -> None:
    head = LocalHead(4, code=3, hidden=5, relu=relu).eval()
    mean, deviation = torch.randn(5, 1, 1), torch.rand(5, 1, 1) + 0.5
    head.attention[1].running_mean.copy_(mean.flatten())
    head.attention[1].running_var.copy_(deviation.flatten() ** 2 - 1e-5)
    x = torch.randn(2, 4, 3, 7)
    codes = one_by_one(x, head.encoder)
    decoded = one_by_one(codes, head.decoder)
    hidden = (one_by_one(x, head.attention[0]) - mean) / deviation
    scores = torch.log1p(one_by_one(hidden.clamp(min=0), head.attention[3]).exp())
    features, reconstruction, found = head(x)
    assert torch.equal(features, x)
    torch.testing.assert_close(reconstruction, decoded.clamp(min=0) if relu else decoded)
    torch.testing.assert_close(found, scores)
    maps = head.maps(x)
    torch.testing.assert_close(maps.features, codes / codes.norm(dim=1, keepdim=True))
    torch.testing.assert_close(maps.scores, scores)


@pytest.mark.parametrize("size", [(1, 1), (33, 17), (10, 400)])
def test_local_maps_work_for_any_image_and_a_batch_of_one(size: tuple[int, int]) -> None:
    maps = delg().eval().local_maps(torch.randn(1, 3, *size))
    cells = tuple(-(-side // 16) for side in size)
    assert maps.features.shape == (1, 6, *cells)
    assert maps.scores.shape == (1, 1, *cells)
    torch.testing.assert_close(maps.features.norm(dim=1), torch.ones(1, *cells))
    assert (maps.scores > 0).all()


def gradients(model: DELG, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients by name, of the parameters that have one."""
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_local_and_global_losses_have_separate_gradients() -> None:
    model, auxiliary = delg().train(), LocalLoss(256, 3)
    x, labels = torch.randn(2, 3, 96, 96), torch.tensor([0, 2])
    alone = gradients(model, model(x).square().sum())
    assert not [name for name in alone if name.startswith("local.")]
    descriptors, local = model.training_features(model.backbone(x))
    both = gradients(model, descriptors.square().sum() + auxiliary(*local, labels).loss)
    assert both.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, grad in alone.items():
        torch.testing.assert_close(both[name], grad, msg=name)
    only_local = gradients(model, auxiliary(*model.training_features(model.backbone(x))[1], labels).loss)
    assert only_local.keys() == {f"local.{name}" for name, _ in model.local.named_parameters()}


def test_training_passes_through_the_backbone_once() -> None:
    model, passes = delg().train(), []
    model.backbone.register_forward_hook(lambda *_: passes.append(1))
    model.training_features(model.backbone(torch.randn(2, 3, 64, 64)))
    assert len(passes) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_descriptors_scores_and_codes_are_float32_under_autocast(dtype: torch.dtype) -> None:
    model = delg().eval()
    with torch.autocast("cpu", dtype):
        descriptors, local = model.training_features(model.backbone(torch.randn(2, 3, 64, 64)))
        maps = model.local_maps(torch.randn(2, 3, 64, 64))
    assert {x.dtype for x in (descriptors, local.scores, maps.features, maps.scores)} == {torch.float32}
    torch.testing.assert_close(maps.features.norm(dim=1), torch.ones(2, 4, 4))


@pytest.mark.parametrize("sizes", [{"code": 0}, {"hidden": -1}])
def test_sizes_below_one_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(UserError, match=rf"model\.local\.{next(iter(sizes))} \b"):
        LocalHead(4, **sizes)
