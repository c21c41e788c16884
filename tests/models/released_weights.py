"""Tensors for the released network, as the expected values of ../shared/parity were computed with them."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def state_dict(parity: Path, kind: str) -> dict[str, Tensor]:
    """The state of one of r50_aspp, r50_noaspp, r101_aspp, r101_noaspp, with 100 classes."""
    keys = json.loads((parity / "dolg" / "official_keys.json").read_text())["keys"][kind]
    return {key: _tensor(key, tuple(shape)) for key, shape in keys}


def _tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    values = _values(key, shape, np.random.default_rng([0, zlib.crc32(key.encode())]))
    return torch.from_numpy(np.asarray(values, np.float32))


def _values(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray | float:
    if key == "pool_g.p":
        return np.full(shape, 3.0)
    if key == "desc_cls.t":
        return np.zeros(shape)
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if key.endswith("running_mean"):
        return rng.normal(0, 0.1, shape)
    if key == "desc_cls.weight":
        return rng.normal(0, 1, shape)
    if key.endswith("c_bn.weight"):
        return rng.uniform(0.1, 0.3, shape)
    if key.endswith(".weight") and len(shape) == 1:
        return rng.uniform(0.5, 1.5, shape)
    if key.endswith(".bias"):
        return rng.normal(0, 0.05, shape)
    return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
