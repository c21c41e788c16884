"""Aggregation heads and SuperGlobal's poolings compared with stored values of their authors' code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dolglab.errors import UserError
from dolglab.extraction.extractor import join_scales
from dolglab.models.boq import BoQ
from dolglab.models.mixvpr import MixVPR
from dolglab.models.netvlad import NetVLAD
from dolglab.models.pooling import GeM, RegionalGeM, regional_gem
from dolglab.models.salad import SALAD, transport
from models.released_weights import head_state

SEED = 7


def filled(head: nn.Module, parity: Path, kind: str) -> nn.Module:
    """A head with the stored weights, which has their names."""
    stored = head_state(parity, kind)
    assert shapes(head.state_dict()) == shapes(stored)
    head.load_state_dict(stored)
    return head.eval()


def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in tensors.items()}


def feature_map(channels: int, height: int, width: int) -> Tensor:
    rng = np.random.default_rng([SEED, channels, height, width])
    return torch.from_numpy(rng.standard_normal((2, channels, height, width)).astype(np.float32))


def token(channels: int) -> Tensor:
    values = np.random.default_rng([SEED, channels]).standard_normal((2, channels))
    return torch.from_numpy(values.astype(np.float32))


def check(found: Tensor, parity: Path, file: str, array: str) -> None:
    expected = np.load(parity / "heads" / f"{file}.npz")[array]
    assert found.shape == expected.shape
    assert np.abs(found.detach().numpy() - expected).max() <= 2e-5 * np.abs(expected).max()


SMALL_BOQ = {"dim_channels": 128, "queries": 5, "blocks": 3, "rows": 2}
SMALL_MIXVPR = {"dim_channels": 10, "rows": 3, "depth": 2, "ratio": 2}
CASES: list[tuple[str, str, str, int, Callable[[int], nn.Module]]] = [
    ("boq", "small/7x5", "boq/small", 24, partial(BoQ, **SMALL_BOQ)),
    ("boq", "small/6x9", "boq/small", 24, partial(BoQ, **SMALL_BOQ)),
    ("boq", "dinov2/16x16", "boq/dinov2", 768, partial(BoQ, dim_channels=384, rows=32)),
    ("mixvpr", "small/7x5", "mixvpr/small/7x5", 24, partial(MixVPR, map_size=[7, 5], **SMALL_MIXVPR)),
    ("mixvpr", "small/6x9", "mixvpr/small/6x9", 24, partial(MixVPR, map_size=[6, 9], **SMALL_MIXVPR)),
    ("mixvpr", "release/20x20", "mixvpr/release/20x20", 1024, MixVPR),
    ("netvlad", "small_v1/7x5", "netvlad/small_v1", 24, partial(NetVLAD, clusters=7)),
    ("netvlad", "small_v1/6x9", "netvlad/small_v1", 24, partial(NetVLAD, clusters=7)),
    ("netvlad", "small_v2/7x5", "netvlad/small_v2", 24, partial(NetVLAD, clusters=7, bias=True)),
    ("netvlad", "small_v2/6x9", "netvlad/small_v2", 24, partial(NetVLAD, clusters=7, bias=True)),
    ("netvlad", "small_v1_nonorm/7x5", "netvlad/small_v1_nonorm", 24, partial(NetVLAD, clusters=7, normalize=False)),
    ("netvlad", "default/16x16", "netvlad/default", 128, NetVLAD),
]


@pytest.mark.parametrize(("file", "array", "keys", "channels", "build"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_equals_the_authors_code(
    file: str, array: str, keys: str, channels: int, build: Callable[[int], Any], parity: Path
) -> None:
    height, width = map(int, array.rpartition("/")[2].split("x"))
    head = filled(build(channels), parity, keys)
    found = head(feature_map(channels, height, width))
    check(found, parity, file, array)
    assert head.dim == found.shape[1]


@pytest.mark.parametrize(("case", "height", "width"), [("small", 7, 5), ("small", 6, 9), ("default", 16, 16)])
def test_salad_equals_the_authors_code(case: str, height: int, width: int, parity: Path) -> None:
    small = {"clusters": 6, "cluster_dim": 10, "token_dim": 12} if case == "small" else {}
    channels = 40 if case == "small" else 768
    head = filled(SALAD(channels, **small), parity, f"salad/{case}")
    assert isinstance(head, SALAD)
    features = feature_map(channels, height, width)
    check(head(features, token(channels)), parity, "salad", f"{case}/{height}x{width}")
    if case == "small":
        check(head.assignment(features), parity, "salad", f"{case}/{height}x{width}/assignment")


@pytest.mark.parametrize("shape", ["7x5", "6x9"])
def test_superglobals_poolings_equal_the_authors_code(shape: str, parity: Path) -> None:
    height, width = map(int, shape.split("x"))
    x = feature_map(16, height, width).clamp(min=0)
    check(GeM(16, p=4.6, eps=1e-8)(x), parity, "superglobal", f"gemp/{shape}")
    check(regional_gem(x), parity, "superglobal", f"rgem/{shape}")
    check(RegionalGeM(16)(x), parity, "superglobal", f"rgem_gemp/{shape}")
    if shape == "7x5":
        check(regional_gem(x, p=3, window=3), parity, "superglobal", f"rgem_pr3_size3/{shape}")


def test_scale_gem_equals_the_authors_code(parity: Path) -> None:
    scales = [
        np.random.default_rng([7, 900 + i]).standard_normal((2, 20)).astype(np.float32) * (1 + i) for i in range(3)
    ]
    descriptors = nn.functional.normalize(torch.from_numpy(np.stack(scales)), dim=2)
    check(join_scales(descriptors, "max"), parity, "superglobal", "sgem_max_normalised")


def test_netvlad_is_initialised_like_its_authors_code(parity: Path) -> None:
    centres = np.random.default_rng([7, 7, 24]).standard_normal((7, 24)).astype(np.float32)
    samples = np.random.default_rng([7, 500, 24]).standard_normal((500, 24)).astype(np.float32)
    samples /= np.linalg.norm(samples, axis=1, keepdims=True)
    head = NetVLAD(24, clusters=7)
    head.start_from(torch.from_numpy(centres), torch.from_numpy(samples))
    check(head.conv.weight, parity, "netvlad", "init_v1/conv.weight")
    check(head.centroids, parity, "netvlad", "init_v1/centroids")


def test_netvlad_with_a_bias_is_initialised_by_distances() -> None:
    """Its logits are -alpha |x - c|^2, up to terms common to all clusters (the paper's equations 2 and 3)."""
    centres, samples = torch.randn(5, 6), nn.functional.normalize(torch.randn(40, 6))
    head = NetVLAD(6, clusters=5, bias=True)
    head.start_from(centres, samples)
    logits = head.conv(samples.T[None, :, :, None])[0, :, :, 0].T
    distances = torch.cdist(samples, centres).square()
    assert head.conv.bias is not None
    alpha = -head.conv.bias[0] / centres[0].square().sum()
    expected = -alpha * (distances - samples.square().sum(1, keepdim=True))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-3)


def test_transport_has_the_required_row_and_column_sums() -> None:
    """After many iterations both agree: compared with a plain Sinkhorn in float64 with the same masses."""
    scores = torch.randn(1, 4, 9)
    found = transport(scores, iterations=200)[0]
    plain = scores[0].double().exp()
    rows = torch.tensor([1.0, 1, 1, 6]).double()
    for _ in range(200):
        plain *= (rows / plain.sum(1))[:, None]
        plain /= plain.sum(0)
    torch.testing.assert_close(found.double(), plain, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.sum(1), rows.float(), rtol=1e-4, atol=1e-4)


def test_salad_accepts_large_scores() -> None:
    assert transport(torch.randn(1, 4, 9) * 1000).isfinite().all()


def test_salad_uses_the_mean_without_a_token() -> None:
    head = SALAD(8, clusters=3, cluster_dim=4, token_dim=5).eval()
    x = torch.randn(2, 8, 4, 5)
    torch.testing.assert_close(head(x), head(x, x.mean((2, 3))))


def test_mixvpr_resizes_maps_on_request() -> None:
    head = MixVPR(6, map_size=[4, 5], resize=True, dim_channels=3, rows=2, depth=1)
    x = torch.randn(2, 6, 4, 5)
    larger = nn.functional.interpolate(x, scale_factor=3)
    assert head(larger).shape == (2, 6)
    head.resize = False
    expected = head(x)
    head.resize = True
    torch.testing.assert_close(head(x), expected)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: NetVLAD(8, clusters=1), r"clusters"),
        (lambda: MixVPR(8, map_size=[0, 4]), r"map_size"),
        (lambda: MixVPR(8, map_size=[4, 4])(torch.zeros(1, 8, 4, 5)), r"4 x 4 cells.*4 x 5.*image_size"),
        (lambda: BoQ(8, dim_channels=63), r"dim_channels=63"),
        (lambda: BoQ(8, dim_channels=193), r"dim_channels=193"),
        (lambda: BoQ(8, queries=0), r"queries"),
        (lambda: SALAD(8, clusters=0), r"clusters"),
        (lambda: SALAD(8, dropout=1.0), r"dropout"),
        (lambda: SALAD(8)(torch.zeros(1, 8, 8, 8)), r"64 clusters.*8 x 8"),
        (lambda: RegionalGeM(8, window=4), r"window"),
        (lambda: RegionalGeM(8)(torch.zeros(1, 8, 2, 9)), r"2 x 9"),
    ],
)
def test_invalid_settings_are_refused(build: Callable[[], object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build()


@pytest.mark.parametrize("build", [NetVLAD, partial(MixVPR, map_size=[9, 9]), BoQ, SALAD, RegionalGeM])
def test_heads_are_float32_with_finite_gradients_under_autocast(build: Callable[[int], nn.Module]) -> None:
    head = build(8)
    x = (torch.randn(2, 8, 9, 9) * 50).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = head(x)
    assert found.dtype == torch.float32
    (found * torch.randn_like(found)).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters() if p.requires_grad)


def test_regional_gem_has_finite_gradients_for_an_empty_map() -> None:
    x = torch.zeros(1, 2, 5, 5, requires_grad=True)
    RegionalGeM(2)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
