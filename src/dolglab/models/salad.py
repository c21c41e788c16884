"""SALAD: local features assigned to clusters by optimal transport, together with the class token."""

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
    """Sums of features, one per cluster, by optimal transport with a dustbin (Izquierdo and Civera, CVPR 2024).

    The vector is the token's part (`token_dim` numbers), then `cluster_dim` x `clusters` numbers. For a backbone
    without a class token, the mean of its map is used instead; the paper covers DINOv2 only.

    Args:
        channels: channels of the map and of the token.
        clusters: number of clusters (m); the map must have more cells.
        cluster_dim: numbers per cluster.
        token_dim: numbers of the token's part.
        dropout: dropout of the perceptrons on cells.

    Attributes:
        dim: length of the vector.
        trial_map: size in cells of a map to try it on.

    Raises UserError for a size below 1, and for a map that does not have more cells than there are clusters.
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
        # The first step over rows cancels it, so it has no effect; it is a parameter because the released weights have
        # it.
        self.dust_bin = nn.Parameter(torch.ones(()))

    def forward(
        self, features: Float[Tensor, "b c h w"], token: Float[Tensor, "b c"] | None = None
    ) -> Float[Tensor, "b d"]:
        """Pool a map and the class token to a vector, float32."""
        height, width = features.shape[-2:]
        # Not during compilation, where sides are symbols.
        if not torch.compiler.is_compiling() and height * width <= self.clusters:
            raise UserError(
                f"SALAD with {self.clusters} clusters needs maps with more cells than that, not {height} x {width}: "
                "use larger images or a lower pooling.clusters"
            )
        whole = self.token_features(features.mean((-2, -1)) if token is None else token)
        cells = self.cluster_features(features).flatten(2)
        assignment = self.assignment(features)[:, :-1]
        with torch.autocast(features.device.type, enabled=False):
            sums = F.normalize(cells.float() @ assignment.mT, dim=1)
            return F.normalize(torch.cat([F.normalize(whole.float()), sums.flatten(1)], dim=1))

    def assignment(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k n"]:
        """The shares of each cell (row by row) that go to the clusters and, last, to the dustbin; float32."""
        scores = self.score(features).flatten(2).float()
        dustbin = torch.zeros_like(scores[:, :1]) + self.dust_bin.float()
        return transport(torch.cat([scores, dustbin], dim=1))


def transport(scores: Float[Tensor, "b k n"], iterations: int = 3) -> Float[Tensor, "b k n"]:
    """Entropic optimal transport by Sinkhorn iterations in log space (Cuturi, NeurIPS 2013): rows, then columns.

    Each column has mass 1. Each row but the last receives about 1; the last, the dustbin, receives the rest, n - (k -
    1).

    >>> transport(torch.zeros(1, 2, 4)).mT[0, 0]
    tensor([0.2500, 0.7500])
    """
    rows = torch.zeros_like(scores[:, :, 0])[..., None]
    # The count is a tensor, so that an exported network accepts maps of any size.
    rows[:, -1] = (torch.ones_like(scores[0, 0]).sum() - (scores.shape[1] - 1)).log()
    columns = torch.zeros_like(scores[:, :1])
    taken = torch.zeros_like(rows)
    for _ in range(iterations):
        taken = rows - (scores + columns).logsumexp(2, keepdim=True)
        columns = -(scores + taken).logsumexp(1, keepdim=True)
    return (scores + taken + columns).exp()


def _perceptron(channels: int, out: int, dropout: float) -> nn.Sequential:
    """A perceptron on each cell separately."""
    return nn.Sequential(nn.Conv2d(channels, HIDDEN, 1), nn.Dropout(dropout), nn.ReLU(), nn.Conv2d(HIDDEN, out, 1))
