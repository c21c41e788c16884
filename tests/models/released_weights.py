"""Synthetic tensors under the names of released networks, from which ../shared/parity was computed."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# Tensors by their whole names: normal with mean 0 and this deviation.
NORMAL = {"conv.weight": 5, "score.3.weight": 0.3, "head.fc.weight": 1, "desc_cls.weight": 1}


def state_dict(parity: Path, kind: str) -> dict[str, Tensor]:
    """The state of one of r50_aspp, r50_noaspp, r101_aspp, r101_noaspp, with 100 classes."""
    keys = json.loads((parity / "dolg" / "official_keys.json").read_text())["keys"][kind]
    return {key: made_up(key, tuple(shape), seed=0) for key, shape in keys}


def head_state(parity: Path, kind: str) -> dict[str, Tensor]:
    """The state of a head or of SuperGlobal's network, under the official names in the official order."""
    keys = json.loads((parity / "heads" / "keys.json").read_text())["keys"][kind]
    return {key: made_up(key, tuple(shape), seed=7) for key, shape in keys}


def made_up(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """The tensor of a name, as described in the README files of parity."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    values = _values(key, shape, np.random.default_rng([seed, zlib.crc32(key.encode())]))
    return torch.from_numpy(np.asarray(values, np.float32))


def _values(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray | float:
    if key in ("pool_g.p", "head.pool.p"):
        return np.full(shape, 3.0)
    if key == "desc_cls.t":
        return np.zeros(shape)
    if key == "dust_bin":
        return rng.uniform(1, 3, shape)
    if key in NORMAL:
        return rng.normal(0, NORMAL[key], shape)
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if key.endswith("running_mean"):
        return rng.normal(0, 0.1, shape)
    if key.endswith("queries"):
        return rng.normal(0, 1, shape)
    if key.endswith("bias"):
        return rng.normal(0, 0.05, shape)
    if key.endswith("c_bn.weight"):
        return rng.uniform(0.1, 0.3, shape)
    if len(shape) == 1:
        return rng.uniform(0.5, 1.5, shape)
    return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
