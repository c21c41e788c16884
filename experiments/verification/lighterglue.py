"""LighterGlue's network, LightGlue (Lindenberger et al., ICCV 2023) for XFeat: matches the features of two images."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dolglab.models.weights import below, check_fit, read_pickle, tensors_of

# Length of XFeat's descriptors, length within the network, and number of layers, with one attention head each.
INPUT, DIM, LAYERS = 64, 96, 6
# The prefix of this network in the released weights; its parts for stopping early on easy pairs are not used.
PREFIX, UNUSED = "matcher.", ("token_confidence.", *(f"log_assignment.{layer}." for layer in range(LAYERS - 1)))

Rows = Float[Tensor, "b n c"]
Rotation = tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]


class LighterGlue(nn.Module):
    """LightGlue of six layers for XFeat's descriptors; its parameters have the names of the released weights."""

    def __init__(self) -> None:
        super().__init__()
        self.input_proj = nn.Linear(INPUT, DIM)
        self.posenc = Rotations()
        self.transformers = nn.ModuleList([Layer() for _ in range(LAYERS)])
        self.log_assignment = nn.ModuleDict({str(LAYERS - 1): Assignment()})

    def forward(
        self,
        places_a: Float[Tensor, "b n 2"],
        descriptors_a: Float[Tensor, "b n 64"],
        places_b: Float[Tensor, "b m 2"],
        descriptors_b: Float[Tensor, "b m 64"],
    ) -> Float[Tensor, "b n m"]:
        """The log probability that a feature of one image matches one of the other.

        Positions are those of `normalised_places`; descriptors have length 1.
        """
        a, b = self.input_proj(descriptors_a), self.input_proj(descriptors_b)
        rotation_a, rotation_b = self.posenc(places_a), self.posenc(places_b)
        for layer in self.transformers:
            a, b = layer(a, b, rotation_a, rotation_b)
        return self.log_assignment[str(LAYERS - 1)](a, b)


def normalised_places(keypoints: Float[Tensor, "n 2"], shape: tuple[int, int]) -> Float[Tensor, "n 2"]:
    """Pixels x, y of an image (height, width), relative to its centre; the longer side is from -1 to 1."""
    height, width = shape
    return (keypoints - keypoints.new_tensor([width, height]) / 2) / (max(shape) / 2)


class Rotations(nn.Module):
    """Learned frequencies of positions; their phases rotate pairs of channels (rotary encoding)."""

    def __init__(self) -> None:
        super().__init__()
        self.Wr = nn.Linear(2, DIM // 2, bias=False)

    def forward(self, places: Float[Tensor, "b n 2"]) -> Rotation:
        phases = self.Wr(places).repeat_interleave(2, -1)
        return phases.cos(), phases.sin()


def _rotated(x: Rows, rotation: Rotation) -> Rows:
    cosines, sines = rotation
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cosines + torch.stack([-second, first], -1).flatten(-2) * sines


class SelfAttention(nn.Module):
    """Self-attention within an image, which depends on relative positions."""

    def __init__(self) -> None:
        super().__init__()
        self.Wqkv = nn.Linear(DIM, 3 * DIM)
        self.out_proj = nn.Linear(DIM, DIM)
        self.ffn = _ffn()

    def forward(self, x: Rows, rotation: Rotation) -> Rows:
        # Query, key and value of a channel are adjacent.
        query, key, value = self.Wqkv(x).unflatten(-1, (-1, 3)).unbind(-1)
        seen = F.scaled_dot_product_attention(_rotated(query, rotation), _rotated(key, rotation), value)
        return x + self.ffn(torch.cat([x, self.out_proj(seen)], -1))


class CrossAttention(nn.Module):
    """Cross-attention between the images; one product serves both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.to_qk, self.to_v, self.to_out = (nn.Linear(DIM, DIM) for _ in range(3))
        self.ffn = _ffn()

    def forward(self, a: Rows, b: Rows) -> tuple[Rows, Rows]:
        similar = self.to_qk(a) @ self.to_qk(b).mT / DIM**0.5
        seen_by_a, seen_by_b = similar.softmax(-1) @ self.to_v(b), similar.mT.softmax(-1) @ self.to_v(a)
        return self._updated(a, seen_by_a), self._updated(b, seen_by_b)

    def _updated(self, x: Rows, seen: Rows) -> Rows:
        return x + self.ffn(torch.cat([x, self.to_out(seen)], -1))


class Layer(nn.Module):
    """Self-attention, then cross-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.cross_attn = SelfAttention(), CrossAttention()

    def forward(self, a: Rows, b: Rows, rotation_a: Rotation, rotation_b: Rotation) -> tuple[Rows, Rows]:
        return self.cross_attn(self.self_attn(a, rotation_a), self.self_attn(b, rotation_b))


class Assignment(nn.Module):
    """Double softmax of similarities, times the probabilities that both features have a match at all."""

    def __init__(self) -> None:
        super().__init__()
        self.matchability = nn.Linear(DIM, 1)
        self.final_proj = nn.Linear(DIM, DIM)

    def forward(self, a: Rows, b: Rows) -> Float[Tensor, "b n m"]:
        similar = self.final_proj(a) @ self.final_proj(b).mT / DIM**0.5
        matchable = F.logsigmoid(self.matchability(a)) + F.logsigmoid(self.matchability(b)).mT
        return similar.log_softmax(-1) + similar.log_softmax(-2) + matchable


def _ffn() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2 * DIM, 2 * DIM), nn.LayerNorm(2 * DIM), nn.GELU(), nn.Linear(2 * DIM, DIM))


def read_lighterglue(path: Path) -> LighterGlue:
    """The network with the weights of a file, ready for inference. Raises UserError for a file with other tensors."""
    network = LighterGlue()
    tensors = below(tensors_of(read_pickle(path, path), path), PREFIX)
    own = {key: value for key, value in tensors.items() if not key.startswith(UNUSED)}
    check_fit(network.state_dict(), own, path)
    network.load_state_dict(own)
    return network.eval()
