"""SALAD: local features brought to clusters by optimal transport, beside the class token."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dolglab.errors import UserError

# Channels between the two layers of each perceptron.
HIDDEN = 512


class SALAD(nn.Module):
    """Sums of features, one a cluster, by optimal transport with a dustbin (Izquierdo and Civera, CVPR 2024).

    The vector is the token's, of `token_dim` numbers, then `cluster_dim` x `clusters`. A backbone without a class token
    gives the mean of its map instead, which the paper, of DINOv2 alone, does not speak of.

    Args:
        channels: channels of the map and of the token.
        clusters: m; the map must have more cells.
        cluster_dim: numbers of each cluster.
        token_dim: numbers of the token's part.
        dropout: of the perceptrons of cells.

    Attributes:
        dim: length of the vector.
        trial_map: cells of a map that it can be tried on.

    Raises UserError for a size below 1, and for a map of no more cells than clusters.
    """

    takes_token = True

    def __init__(
        self, channels: int, clusters: int = 64, cluster_dim: int = 128, token_dim: int = 256, dropout: float = 0.3
    ) -> None:
        super().__init__()
        if min(clusters, cluster_dim, token_dim) < 1 or not 0 <= dropout < 1:
            raise UserError(
                "pooling.clusters, .cluster_dim and .token_dim must be at least 1, and .dropout from 0 to below 1"
            )
        self.clusters = clusters
        self.dim = token_dim + cluster_dim * clusters
        side = max(8, math.isqrt(clusters) + 1)
        self.trial_map = (side, side)
        self.token_features = nn.Sequential(nn.Linear(channels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, token_dim))
        self.cluster_features = _perceptron(channels, cluster_dim, dropout)
        self.score = _perceptron(channels, clusters, dropout)
        # The first step over rows takes up whatever it is: it is learnt in name only, as in the released weights.
        self.dust_bin = nn.Parameter(torch.ones(()))

    def forward(
        self, features: Float[Tensor, "b c h w"], token: Float[Tensor, "b c"] | None = None
    ) -> Float[Tensor, "b d"]:
        """A map and the class token to a vector, float32."""
        height, width = features.shape[-2:]
        # Not while it is compiled, where sides are symbols.
        if not torch.compiler.is_compiling() and height * width <= self.clusters:
            raise UserError(
                f"SALAD of {self.clusters} clusters takes maps of more cells than that, not {height} x {width}: take "
                "larger images or a lower pooling.clusters"
            )
        whole = self.token_features(features.mean((-2, -1)) if token is None else token)
        cells = self.cluster_features(features).flatten(2)
        assignment = self.assignment(features)[:, :-1]
        with torch.autocast(features.device.type, enabled=False):
            sums = F.normalize(cells.float() @ assignment.mT, dim=1)
            return F.normalize(torch.cat([F.normalize(whole.float()), sums.flatten(1)], dim=1))

    def assignment(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k n"]:
        """Shares of each cell, row by row of the map, that go to the clusters and, last, to the dustbin; float32."""
        scores = self.score(features).flatten(2).float()
        dustbin = torch.zeros_like(scores[:, :1]) + self.dust_bin.float()
        return transport(torch.cat([scores, dustbin], dim=1))


def transport(scores: Float[Tensor, "b k n"], iterations: int = 3) -> Float[Tensor, "b k n"]:
    """Entropic optimal transport by Sinkhorn's iterations in log space (Cuturi, NeurIPS 2013): rows, then columns.

    Each column gives 1; each row but the last takes about 1, and the last, the dustbin, what is left, n - (k - 1).

    >>> transport(torch.zeros(1, 2, 4)).mT[0, 0]
    tensor([0.2500, 0.7500])
    """
    rows = torch.zeros_like(scores[:, :, 0])[..., None]
    # Counted by a tensor: an exported network takes maps of any size.
    rows[:, -1] = (torch.ones_like(scores[0, 0]).sum() - (scores.shape[1] - 1)).log()
    columns = torch.zeros_like(scores[:, :1])
    taken = torch.zeros_like(rows)
    for _ in range(iterations):
        taken = rows - (scores + columns).logsumexp(2, keepdim=True)
        columns = -(scores + taken).logsumexp(1, keepdim=True)
    return (scores + taken + columns).exp()


def _perceptron(channels: int, out: int, dropout: float) -> nn.Sequential:
    """Of each cell by itself."""
    return nn.Sequential(nn.Conv2d(channels, HIDDEN, 1), nn.Dropout(dropout), nn.ReLU(), nn.Conv2d(HIDDEN, out, 1))
