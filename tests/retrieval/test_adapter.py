"""Adapters: their effect on descriptors, and their files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.numpy import save_file

from dolglab.errors import UserError
from dolglab.retrieval.adapter import Adapter, ApplyAdapter, read_adapter, write_adapter

CONF = Path(__file__).resolve().parents[2] / "conf"


def made(dim: int = 3, given: int = 5, seed: int = 0) -> Adapter:
    generator = np.random.default_rng(seed)
    weight = generator.normal(size=(dim, given)).astype(np.float32)
    return Adapter(weight, generator.normal(size=dim).astype(np.float32), "network", {"kind": "made up"})


def rows(count: int, dim: int = 5) -> np.ndarray:
    found = np.random.default_rng(1).normal(size=(count, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_an_adapter_equals_a_loop_and_keeps_zeros() -> None:
    adapter, given = made(), rows(7)
    given[4] = 0
    found = adapter(given)
    assert found.dtype == np.float32
    for x, y in zip(given.tolist(), found.tolist(), strict=True):
        moved = [
            sum(w * v for w, v in zip(line, x, strict=True)) + b
            for line, b in zip(adapter.weight.tolist(), adapter.bias.tolist(), strict=True)
        ]
        length = math.sqrt(sum(value**2 for value in moved))
        np.testing.assert_allclose(y, [value / length if any(x) else 0.0 for value in moved], atol=1e-6)


def test_a_file_gives_the_same_adapter(tmp_path: Path) -> None:
    adapter = made()
    again = read_adapter(write_adapter(tmp_path / "a.safetensors", adapter))
    np.testing.assert_array_equal(again(rows(9)), adapter(rows(9)))
    assert (again.fingerprint, again.model, again.card) == (adapter.fingerprint, "network", {"kind": "made up"})


def test_the_fingerprint_covers_the_map_and_the_network() -> None:
    one = made()
    others = [made(seed=1), Adapter(one.weight, one.bias, "another"), Adapter(one.weight, one.bias + 1, one.model)]
    assert len({each.fingerprint for each in (one, *others)}) == 4
    assert Adapter(one.weight, one.bias, one.model, {"seed": 3}).fingerprint == one.fingerprint


@pytest.mark.parametrize(
    ("tensors", "about"),
    [
        ({"weight": np.ones((2, 3), np.float32)}, {"model": "m", "card": "{}"}),
        ({"weight": np.ones((2, 3), np.float32), "bias": np.ones(2, np.float32)}, {"model": "m"}),
        ({"weight": np.ones((2, 3), np.float32), "bias": np.ones(2, np.float32)}, {"model": "m", "card": "[]"}),
        ({"weight": np.ones((2, 3), np.float32), "bias": np.ones(2, np.float32)}, {"model": "m", "card": "{"}),
        ({"weight": np.ones((2, 3), np.float32), "bias": np.ones(3, np.float32)}, {"model": "m", "card": "{}"}),
        ({"weight": np.ones((4, 3), np.float32), "bias": np.ones(4, np.float32)}, {"model": "m", "card": "{}"}),
        ({"weight": np.ones((2, 3)), "bias": np.ones(2)}, {"model": "m", "card": "{}"}),
        ({"weight": np.full((2, 3), np.nan, np.float32), "bias": np.ones(2, np.float32)}, {"model": "m", "card": "{}"}),
    ],
)
def test_files_that_are_not_adapters_are_refused(
    tmp_path: Path, tensors: dict[str, np.ndarray], about: dict[str, str]
) -> None:
    save_file(tensors, tmp_path / "a.safetensors", about)
    with pytest.raises(UserError, match="no adapter"):
        read_adapter(tmp_path / "a.safetensors")


def test_truncated_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a.safetensors", made())
    path.write_bytes(path.read_bytes()[:-4])
    for name in ("a.safetensors", "b.safetensors"):
        with pytest.raises(UserError, match="no adapter"):
            read_adapter(tmp_path / name)


def test_an_adapter_belongs_to_one_network_and_length() -> None:
    adapter = made()
    adapter.check("network", 5)
    for model, dim in (("another", 5), ("network", 6)):
        with pytest.raises(UserError, match="another"):
            adapter.check(model, dim)


def test_the_step_of_an_evaluation_adapts_gallery_and_queries(tmp_path: Path) -> None:
    adapter = made()
    config = OmegaConf.load(CONF / "post" / "adapter.yaml")
    config["adapter"]["path"] = str(write_adapter(tmp_path / "a.safetensors", adapter))
    step = instantiate(config["adapter"])
    gallery, queries = step(rows(8), rows(3))
    np.testing.assert_array_equal(gallery, adapter(rows(8)))
    np.testing.assert_array_equal(queries, adapter(rows(3)))
    assert step.config()["adapter"] == adapter.fingerprint
    with pytest.raises(UserError, match="5 values"):
        step(rows(8, 6), rows(3, 6))
    with pytest.raises(UserError, match="path"):
        ApplyAdapter()
