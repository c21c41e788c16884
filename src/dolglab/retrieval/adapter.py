"""A linear map that adapts the descriptors of one network to a set of photos, and its file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dolglab.contracts import BoolArray, FloatArray
from dolglab.errors import UserError
from dolglab.io import write_bytes
from dolglab.retrieval.large_arrays import assemble, l2_normalized, read_chunks

# The keys of the file's metadata.
MODEL, CARD = "model", "card"


@dataclass(frozen=True, eq=False)
class Adapter:
    """Maps L2-normalised descriptors x of a network to W x + b, L2-normalised.

    Attributes:
        weight: W, (d, D) float32, with d at most D: adapted descriptors are never slower to search.
        bias: b, (d,) float32.
        model: fingerprint of the network of the descriptors.
        card: how it was learned and its gains, as plain JSON values.
    """

    weight: FloatArray
    bias: FloatArray
    model: str
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        """Length of an adapted descriptor, d."""
        return len(self.weight)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the map and of the network's fingerprint."""
        digest = hashlib.blake2b(f"{self.model} {self.weight.shape}".encode(), digest_size=12)
        digest.update(np.ascontiguousarray(self.weight).tobytes())
        digest.update(self.bias.tobytes())
        return digest.hexdigest()

    def __call__(self, descriptors: FloatArray) -> FloatArray:
        """Adapt descriptors, (N, D) to (N, d), L2-normalised; a row of zeros stays zeros."""
        adapted = l2_normalized(descriptors @ self.weight.T + self.bias)
        adapted[~descriptors.any(axis=1)] = 0
        return adapted

    def summary(self) -> str:
        """How it was learned and its gains, from its card; incomplete cards were not written by this project."""
        try:
            gains = [
                f"{100 * self.card[which]['gain']:+.2f} points of mAP on held-out photos of {what}"
                for which, what in (("seen", "the same landmarks"), ("unseen", "landmarks that it never saw"))
            ]
            learnt = (
                f"{self.card['kind']}, learnt on {self.card['photos']} photos of {self.card['landmarks']} landmarks"
            )
        except (KeyError, TypeError, ValueError):
            return "its card does not say how"
        return f"{learnt}: {', '.join(gains)}"

    def check(self, model: str, dim: int) -> None:
        """Raise UserError unless it is for descriptors of this length from the network with this fingerprint."""
        if model != self.model:
            raise UserError(
                f"the adapter was learnt for network {self.model}, and this is {model}: take that network, or learn "
                "another adapter"
            )
        self.check_dim(dim)

    def check_dim(self, dim: int) -> None:
        """Raise UserError unless it is for descriptors of this length."""
        if dim != self.weight.shape[1]:
            raise UserError(
                f"the adapter is for descriptors of {self.weight.shape[1]} values, and these have {dim}: learn another"
            )


def write_adapter(path: Path, adapter: Adapter) -> Path:
    """Write an adapter as safetensors: `weight`, `bias`, and in the metadata its network and its card."""
    from safetensors.numpy import save

    tensors = {"weight": np.ascontiguousarray(adapter.weight), "bias": adapter.bias}
    return write_bytes(path, save(tensors, {MODEL: adapter.model, CARD: json.dumps(dict(adapter.card))}))


def read_adapter(path: Path) -> Adapter:
    """Read a file of `write_adapter`. Raises UserError if it is missing, damaged, or something else."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"no adapter at {path}: dolglab library adapt learns one")
    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
        model, card = about[MODEL], json.loads(about[CARD])
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, OSError) as error:
        raise UserError(f"{path} is damaged, or no adapter ({type(error).__name__})") from error
    whole = weight.dtype == bias.dtype == np.float32 and weight.ndim == 2 and bias.shape == weight.shape[:1]
    whole = whole and 0 < weight.shape[0] <= weight.shape[1] and isinstance(card, dict)
    if not (whole and np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise UserError(f"{path} is damaged, or no adapter: it holds no finite weight and bias that fit")
    return Adapter(weight, bias, model, card)


class ApplyAdapter:
    """A step of post-processing that applies an adapter to descriptors.

    Args:
        path: the file written by `dolglab library adapt`, `adapter.safetensors` in a library.

    Raises UserError like `read_adapter`, and without a path.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        if path is None:
            raise UserError("which adapter? post.adapter.path=library/adapter.safetensors")
        self.adapter = read_adapter(Path(path))

    def __call__(
        self, gallery: FloatArray, queries: FloatArray, available: BoolArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Adapt gallery, (N, D), and queries, (Q, D). Raises UserError for descriptors of another length."""
        self.adapter.check_dim(gallery.shape[1])
        adapted = assemble(len(gallery), self.adapter.dim, map(self.adapter, read_chunks(gallery)))
        return adapted, self.adapter(queries)

    def config(self) -> dict[str, object]:
        card = self.adapter.card
        return {"adapter": self.adapter.fingerprint, "dim": self.adapter.dim, "learned_on": card.get("labels")}
