"""DELG: a global descriptor, and a local head that is trained on the same network without changing it."""

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
    """The inputs of the local head's losses: the map, its reconstruction, and the attention scores (> 0)."""

    features: Float[Tensor, "b c h w"]
    reconstruction: Float[Tensor, "b c h w"]
    scores: Float[Tensor, "b 1 h w"]


class LocalHead(nn.Module):
    """Attention, and an autoencoder whose codes are the local descriptors (Cao et al., ECCV 2020).

    Attention is a 1x1 convolution, batch norm (as in the published code) and ReLU, a second 1x1 convolution and a
    softplus. Encoder and decoder are a 1x1 convolution each.

    Args:
        in_channels: channels of the backbone's local map.
        code: length of a local descriptor.
        hidden: channels between the two convolutions of the attention.
        relu: the decoder ends in a ReLU, as a ResNet's map does. Maps with negative values (EfficientNet, ConvNeXt,
            transformers) cannot be reconstructed with it.
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
        """Compute the inputs of the losses from a map."""
        decoded = self.decoder(self.encoder(features))
        return LocalOutputs(features, F.relu(decoded) if self.relu else decoded, self.scores(features))

    def maps(self, features: Float[Tensor, "b c h w"]) -> LocalMaps:
        """Compute L2-normalised codes and attention scores from a map, float32."""
        return LocalMaps(features=F.normalize(self.encoder(features).float(), dim=1), scores=self.scores(features))

    def scores(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """The attention score of each position, above 0, float32."""
        return F.softplus(self.attention(features).float())


class DELG(GlobalDescriptor):
    """One network for global and local descriptors (Cao, Araujo and Sim, ECCV 2020).

    The global branch is GeM and a fully connected layer. The local head works on the backbone's earlier map. Its losses
    are not propagated to the backbone, so the global descriptor is the same as without it.

    Args:
        backbone: computes the two maps.
        pooling: constructor of the global pooling, called with the channels of its map.
        local: constructor of the local head, called with the channels of its map.
        dim: length of the global descriptor (2048 in the paper).
        init: initialisation of the layer, see `init_linear`.
        batch_norm: standardise the pooled feature before the layer.
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
        """Compute descriptors and the local head's outputs from the backbone's maps."""
        return self.describe(features), self.local(features.local.detach())

    def local_maps(self, images: Float[Tensor, "b 3 h w"]) -> LocalMaps:
        """Compute the local head's codes and attention scores of normalised images."""
        return self.local.maps(self.backbone(images).local)
