"""The complete networks: shapes, and the descriptor computed by hand."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from dolglab.errors import UserError
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import DOLG, GlobalDescriptor, maps_by_norm
from dolglab.models.fusion import concat_fusion, hadamard_fusion
from dolglab.models.local_branch import LocalBranch


def r18() -> Backbone:
    return Backbone("resnet18.tv_in1k", pretrained=False)


def test_dolg_works_without_a_config() -> None:
    assert DOLG(r18()).eval()(torch.randn(2, 3, 64, 96)).shape == (2, 512)


def test_the_descriptor_equals_the_papers_formula() -> None:
    model = DOLG(r18(), hidden=32, dim=16).eval()
    x = torch.randn(2, 3, 96, 64)
    features = model.backbone(x)
    pooled = features.global_.double().clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3).float()
    g = F.linear(pooled, model.fc_global.weight, model.fc_global.bias)
    f = model.local(features.local)
    dot = torch.einsum("bchw,bc->bhw", f, g) / (g * g).sum(1).view(-1, 1, 1)
    orthogonal = f - dot[:, None] * g[..., None, None]
    expected = F.linear(torch.cat([g, orthogonal.mean((2, 3))], 1), model.fc.weight, model.fc.bias)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (33, 17), (10, 400)])
def test_any_image_size_and_a_batch_of_one_work(size: tuple[int, int]) -> None:
    out = DOLG(r18(), hidden=16, dim=8).eval()(torch.randn(1, 3, *size))
    assert out.shape == (1, 8)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize(("fusion", "width"), [(concat_fusion, 32), (hadamard_fusion, 16)])
def test_the_last_layer_fits_the_fusion(fusion, width: int) -> None:
    model = DOLG(r18(), fusion=fusion, hidden=16, dim=8)
    assert model.fc.in_features == width
    assert model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 8)


def test_every_parameter_gets_a_gradient() -> None:
    model = DOLG(r18(), hidden=16, dim=8).train()
    model(torch.randn(2, 3, 96, 96)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def orthonormal(weight: torch.Tensor) -> bool:
    """Whether the vectors of the shorter side are orthonormal."""
    rows = weight if len(weight) <= weight.shape[1] else weight.T
    return torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-5)


@pytest.mark.parametrize("local_weight", [0.0, 0.5, 1.0])
def test_layers_are_initialised_orthogonally(local_weight: float) -> None:
    model = DOLG(r18(), hidden=32, dim=16, init="orthogonal", local_weight=local_weight)
    assert orthonormal(model.fc_global.weight)
    assert orthonormal(model.fc.weight[:, :32])
    local = model.fc.weight[:, 32:]
    assert not local.any() if local_weight == 0 else orthonormal(local / local_weight)
    assert not model.fc_global.bias.any()
    assert not model.fc.bias.any()
    gem = GlobalDescriptor(r18(), dim=16, init="orthogonal")
    assert gem.fc is not None
    assert orthonormal(gem.fc.weight)
    assert not gem.fc.bias.any()


def test_a_local_weight_of_zero_starts_as_the_global_branch() -> None:
    # As many channels as the map has, and a descriptor of them all: no angle between pooled features is lost.
    model = DOLG(r18(), hidden=512, dim=512, init="orthogonal", local_weight=0.0).eval()
    x = torch.randn(4, 3, 64, 96)
    pooled = F.normalize(model.pooling(model.backbone(x).global_))
    descriptors = F.normalize(model(x))
    torch.testing.assert_close(descriptors @ descriptors.T, pooled @ pooled.T, rtol=0, atol=1e-4)
    # The local half gets a gradient nevertheless.
    model(x).square().sum().backward()
    assert model.fc.weight.grad is not None
    assert model.fc.weight.grad[:, 512:].abs().max() > 0


def test_an_unknown_initialisation_is_refused() -> None:
    with pytest.raises(UserError, match="default or orthogonal"):
        GlobalDescriptor(r18(), dim=8, init="zero")
    with pytest.raises(UserError, match="local_weight"):
        DOLG(r18(), fusion=hadamard_fusion, hidden=16, dim=8, local_weight=0.0)


@pytest.mark.parametrize("make", [partial(DOLG, hidden=16), GlobalDescriptor])
def test_batch_norm_balances_the_features(make) -> None:
    model = make(r18(), dim=8, batch_norm=True).train()
    seen = []
    model.fc.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.randn(8, 3, 64, 64)).dtype == torch.float32
    deviation, mean = torch.std_mean(seen[0], 0, correction=0)
    # The deviation of nearly constant channels is smaller than batch norm's epsilon.
    assert mean.abs().max() < 1e-4
    assert 0.5 < deviation.median() <= deviation.max() < 1.01


def test_batch_norm_precedes_a_layer() -> None:
    with pytest.raises(UserError, match=r"model\.batch_norm"):
        GlobalDescriptor(r18(), dim=None, batch_norm=True)


def test_gem_is_pooling_and_one_layer() -> None:
    model = GlobalDescriptor(r18(), dim=8).eval()
    x = torch.randn(2, 3, 64, 64)
    pooled = model.pooling(model.backbone(x).global_)
    assert model.fc is not None
    torch.testing.assert_close(model(x), F.linear(pooled, model.fc.weight, model.fc.bias))


def test_without_a_layer_the_pooled_feature_is_the_descriptor() -> None:
    model = GlobalDescriptor(r18(), dim=None).eval()
    assert model.dim == 512
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(x), model.pooling(model.backbone(x).global_))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_descriptors_stay_float32_under_autocast(dtype: torch.dtype) -> None:
    model = DOLG(r18(), hidden=16, dim=8).eval()
    with torch.autocast("cpu", dtype):
        assert model(torch.randn(2, 3, 64, 64)).dtype == torch.float32


@pytest.mark.parametrize("sizes", [{"dim": 0}, {"hidden": 0}])
def test_sizes_below_one_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(UserError, match=rf"model\.{next(iter(sizes))}\b"):
        DOLG(r18(), **sizes)


def test_local_maps_are_unit_features_with_attention_scores() -> None:
    model = DOLG(r18(), hidden=16, dim=8).eval()
    x = torch.randn(2, 3, 96, 64)
    maps = model.local_maps(x)
    assert maps.features.shape == (2, 16, 6, 4)
    torch.testing.assert_close(maps.features.norm(dim=1), torch.ones(2, 6, 4))
    torch.testing.assert_close(maps.features * maps.scores, model.local(model.backbone(x).local))


@pytest.mark.parametrize("attention", [True, False])
def test_local_maps_stay_float32_under_autocast(attention: bool) -> None:
    model = DOLG(r18(), local=partial(LocalBranch, attention=attention), hidden=16, dim=8).eval()
    with torch.autocast("cpu", torch.bfloat16):
        maps = model.local_maps(torch.randn(1, 3, 64, 64))
    assert maps.features.dtype == maps.scores.dtype == torch.float32
    torch.testing.assert_close(maps.features.norm(dim=1), torch.ones(1, 4, 4))


def test_without_attention_the_norms_are_the_scores() -> None:
    x = torch.randn(2, 3, 64, 96)
    dolg = DOLG(r18(), local=partial(LocalBranch, attention=False), hidden=16, dim=8).eval()
    gem = GlobalDescriptor(dolg.backbone, dim=None).eval()
    for model, expected in [(dolg, dolg.local(dolg.backbone(x).local)), (gem, gem.backbone(x).local)]:
        maps = model.local_maps(x)
        torch.testing.assert_close(maps.scores[:, 0], expected.square().sum(1).sqrt())
        torch.testing.assert_close(maps.features * maps.scores, expected)


def test_a_position_without_activation_has_no_feature_and_no_score() -> None:
    map_ = torch.zeros(1, 3, 1, 2)
    map_[0, :, 0, 1] = torch.tensor([3.0, 0.0, -4.0])
    maps = maps_by_norm(map_)
    torch.testing.assert_close(maps.scores, torch.tensor([[[[0.0, 5.0]]]]))
    torch.testing.assert_close(maps.features[0, :, 0], torch.tensor([[0.0, 0.6], [0.0, 0.0], [0.0, -0.8]]))
