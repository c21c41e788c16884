"""Bag of queries: learned queries, the same for every image, that attend to a feature map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dolglab.errors import UserError

# Channels of an attention head.
HEAD = 64


class QueryBlock(nn.Module):
    """A transformer encoder layer, and queries that attend to its output (Ali-bey et al., CVPR 2024, section 3.2)."""

    def __init__(self, dim: int, queries: int) -> None:
        super().__init__()
        heads = dim // HEAD
        self.encoder = nn.TransformerEncoderLayer(dim, heads, 4 * dim, dropout=0.0, batch_first=True)
        self.queries = nn.Parameter(torch.randn(1, queries, dim))
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm_q = nn.LayerNorm(dim)
        self.cross_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b q d"]]:
        """Compute encoded tokens, and the outputs of the queries that attend to them."""
        tokens = self.encoder(tokens)
        queries = self.queries + self.self_attn(self.queries, self.queries, self.queries, need_weights=False)[0]
        queries = self.norm_q(queries).expand(tokens.shape[0], -1, -1)
        return tokens, self.norm_out(self.cross_attn(queries, tokens, tokens, need_weights=False)[0])


class BoQ(nn.Module):
    """The outputs of learned queries on a map, block after block, projected to `dim_channels` x `rows`, L2-normalised.

    Ali-bey et al., CVPR 2024. Only a 3x3 convolution encodes the position of a feature.

    Args:
        channels: channels of the map.
        dim_channels: channels of tokens and queries, a multiple of 64: each attention head has 64.
        queries: number of queries in each block.
        blocks: number of blocks.
        rows: rows of the descriptor.

    Attributes:
        dim: length of the vector, dim_channels x rows.

    Raises UserError for a size below 1, and channels that are not a multiple of 64.
    """

    def __init__(
        self, channels: int, dim_channels: int = 512, queries: int = 64, blocks: int = 2, rows: int = 16
    ) -> None:
        super().__init__()
        if dim_channels < HEAD or dim_channels % (dim_channels // HEAD):
            raise UserError(
                f"pooling.dim_channels={dim_channels}: an attention head has {HEAD} channels, so give a multiple of it"
            )
        if min(queries, blocks, rows) < 1:
            raise UserError("pooling.queries, .blocks and .rows must be at least 1")
        self.dim = dim_channels * rows
        self.proj_c = nn.Conv2d(channels, dim_channels, 3, padding=1)
        self.norm_input = nn.LayerNorm(dim_channels)
        self.boqs = nn.ModuleList(QueryBlock(dim_channels, queries) for _ in range(blocks))
        self.fc = nn.Linear(blocks * queries, rows)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Pool a map to a vector, float32."""
        tokens = self.norm_input(self.proj_c(features).flatten(2).mT)
        found = []
        for block in self.boqs:
            tokens, read = block(tokens)
            found.append(read)
        return F.normalize(self.fc(torch.cat(found, dim=1).mT).flatten(1).float())
