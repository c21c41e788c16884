"""DELG: a global descriptor, and a local head that learns from the same network without changing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dolglab.contracts import Features, LocalMaps
from dolglab.models.backbone import FeatureBackbone
from dolglab.models.dolg import GlobalDescriptor, check_sizes
from dolglab.models.pooling import GeM


class LocalOutputs(NamedTuple):
    """What the local head's losses compare: the map it was given, what became of it, and attention scores (> 0)."""

    features: Float[Tensor, "b c h w"]
    reconstruction: Float[Tensor, "b c h w"]
    scores: Float[Tensor, "b 1 h w"]


class LocalHead(nn.Module):
    """Attention, and an autoencoder whose code is the local descriptor (Cao et al., ECCV 2020).

    Attention is a 1x1 convolution, batch norm (as in the published code) and ReLU, a second 1x1 convolution and a
    softplus. The autoencoder is a 1x1 convolution each way.

    Args:
        in_channels: channels of the backbone's local map.
        code: length of a local descriptor.
        hidden: channels of the attention between its convolutions.
        relu: the decoder ends in a ReLU, as a ResNet's map does; maps with negative values (EfficientNet, ConvNeXt,
            transformers) could not be reconstructed by it.
    """

    def __init__(self, in_channels: int, code: int = 128, hidden: int = 512, relu: bool = True) -> None:
        super().__init__()
        check_sizes(**{"local.code": code, "local.hidden": hidden})
        self.attention = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True), nn.Conv2d(hidden, 1, 1)
        )
        self.encoder = nn.Conv2d(in_channels, code, 1)
        self.decoder = nn.Conv2d(code, in_channels, 1)
        self.relu = relu

    def forward(self, features: Float[Tensor, "b c h w"]) -> LocalOutputs:
        """A map to what the losses compare."""
        decoded = self.decoder(self.encoder(features))
        return LocalOutputs(features, F.relu(decoded) if self.relu else decoded, self.scores(features))

    def maps(self, features: Float[Tensor, "b c h w"]) -> LocalMaps:
        """A map to L2-normalised codes and attention scores, float32."""
        return LocalMaps(features=F.normalize(self.encoder(features).float(), dim=1), scores=self.scores(features))

    def scores(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """How much attention each place deserves, above 0, float32."""
        return F.softplus(self.attention(features).float())


class DELG(GlobalDescriptor):
    """One network for a global descriptor and local ones (Cao, Araujo and Sim, ECCV 2020).

    The global branch is GeM and a fully connected layer. The local head looks at the backbone's earlier map and its
    losses do not reach the backbone, so that the global descriptor is what it would be without.

    Args:
        backbone: gives the two maps.
        pooling: builds the global pooling from the channels of its map.
        local: builds the local head from the channels of its map.
        dim: length of the global descriptor (the paper's 2048).
        init: how its layer begins, see `init_linear`.
        batch_norm: standardise the pooled feature before it.
    """

    def __init__(
        self,
        backbone: FeatureBackbone,
        pooling: Callable[[int], nn.Module] = GeM,
        local: Callable[[int], LocalHead] = LocalHead,
        dim: int = 2048,
        init: str = "default",
        batch_norm: bool = False,
    ) -> None:
        super().__init__(backbone, pooling, dim, init, batch_norm)
        self.local = local(backbone.out_channels[0])

    def training_features(self, features: Features) -> tuple[Float[Tensor, "b d"], LocalOutputs]:
        """The backbone's maps to descriptors and the local head's outputs."""
        return self.describe(features), self.local(features.local.detach())

    def local_maps(self, images: Float[Tensor, "b 3 h w"]) -> LocalMaps:
        """Normalised images to the local head's codes and attention scores."""
        return self.local.maps(self.backbone(images).local)
