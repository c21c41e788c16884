"""DOLG and the global-only baseline, built from the same parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dolglab.contracts import DEFAULT_SIDE, ExtractionProtocol, Features, LocalMaps
from dolglab.errors import UserError
from dolglab.models.backbone import FeatureBackbone
from dolglab.models.fusion import orthogonal_fusion
from dolglab.models.local_branch import LocalBranch
from dolglab.models.pooling import GeM

INITS = ("default", "orthogonal")


class DOLG(nn.Module):
    """One descriptor from orthogonally fused local and global features (Yang et al., ICCV 2021).

    Args:
        backbone: computes the two maps.
        pooling: constructor of the global pooling, called with the channels of its map.
        local: constructor of the local branch, called with its input and output channels.
        fusion: joins f_l (B, hidden, H, W) and f_g (B, hidden) into a vector.
        hidden: channels of f_l and f_g (1024 in the paper).
        dim: length of the descriptor.
        init: initialisation of both layers, see `init_linear`; the two halves of the last one are initialised
            separately.
        local_weight: initial factor on the last layer's half for f_l. With 0 the network starts as its global branch
            alone, and training decides how much f_l counts.
        batch_norm: standardise the fused vector before the last layer (Ioffe and Szegedy, ICML 2015), so that f_l
            counts as much as f_g and learns as fast: with a pretrained backbone f_g can be 200 times as long.

    Attributes:
        side: default size in pixels to which a photo's longer side is shrunk.

    Raises UserError for sizes below 1, and for a `local_weight` if the fusion has no separate half for f_l.
    """

    def __init__(
        self,
        backbone: FeatureBackbone,
        pooling: Callable[[int], nn.Module] = GeM,
        local: Callable[[int, int], LocalBranch] = LocalBranch,
        fusion: Callable[[Tensor, Tensor], Tensor] = orthogonal_fusion,
        hidden: int = 1024,
        dim: int = 512,
        init: str = "default",
        local_weight: float = 1.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(hidden=hidden, dim=dim)
        local_channels, global_channels = backbone.out_channels
        self.dim = dim
        self.side: int = getattr(backbone, "side", DEFAULT_SIDE)
        self.backbone = backbone
        self.pooling = pooling(global_channels)
        self.fc_global = nn.Linear(pooled_length(self.pooling, global_channels), hidden)
        init_linear(self.fc_global, init)
        self.local = local(local_channels, hidden)
        self.fusion = fusion
        width = fusion(torch.zeros(1, hidden, 1, 1), torch.zeros(1, hidden)).shape[1]
        self.norm = nn.BatchNorm1d(width) if batch_norm else nn.Identity()
        self.fc = nn.Linear(width, dim)
        init_linear(self.fc, init, parts=width // hidden)
        if local_weight != 1:
            if width != 2 * hidden:
                raise UserError(
                    f"model.local_weight={local_weight:g}: this fusion has no separate half for local features"
                )
            with torch.no_grad():
                self.fc.weight[:, hidden:] *= local_weight

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Compute descriptors of normalised images, float32, not L2-normalised."""
        return self.describe(self.backbone(images))

    def describe(self, features: Features) -> Float[Tensor, "b d"]:
        """Compute descriptors from the backbone's maps."""
        return linear32(self.fc, self.fused(features))

    def fused(self, features: Features) -> Float[Tensor, "b c"]:
        """Compute the input of the last layer from the backbone's maps, f_g first."""
        global_ = linear32(self.fc_global, pool(self.pooling, features))
        return self.norm(self.fusion(self.local(features.local), global_).float())

    def local_maps(self, images: Float[Tensor, "b 3 h w"]) -> LocalMaps:
        """Compute local features and attention scores of normalised images; without attention, see `maps_by_norm`."""
        features, scores = self.local.attend(self.backbone(images).local)
        if scores is None:
            return maps_by_norm(features)
        return LocalMaps(features=F.normalize(features.float(), dim=1), scores=scores.float())


class GlobalDescriptor(nn.Module):
    """Backbone, pooling and a fully connected layer: the global-only baseline (family B).

    Args:
        backbone: computes the global map, and the map of local features.
        pooling: constructor of the pooling, called with the channels of its map.
        dim: length of the descriptor; None uses the pooled feature itself, for untrained networks and for poolings that
            end in a descriptor.
        init: initialisation of the layer, see `init_linear`.
        batch_norm: standardise the pooled feature before the layer, like `DOLG`.
        unit: L2-normalise the pooled feature before the layer (Radenovic et al., PAMI 2018); excludes `batch_norm`.

    Attributes:
        side: as in `DOLG`.
        protocol: how its authors describe images with it, if known.

    Raises UserError for `batch_norm` or `unit` without a layer, and for both together.
    """

    def __init__(
        self,
        backbone: FeatureBackbone,
        pooling: Callable[[int], nn.Module] = GeM,
        dim: int | None = 512,
        init: str = "default",
        batch_norm: bool = False,
        unit: bool = False,
    ) -> None:
        super().__init__()
        self.side: int = getattr(backbone, "side", DEFAULT_SIDE)
        self.protocol: ExtractionProtocol | None = None
        self.backbone = backbone
        self.pooling = pooling(backbone.out_channels[1])
        width = pooled_length(self.pooling, backbone.out_channels[1])
        self.dim = width if dim is None else dim
        check_sizes(dim=self.dim)
        if (batch_norm or unit) and dim is None:
            raise UserError("model.batch_norm=true and model.unit=true need a layer: model.dim=null has none")
        if batch_norm and unit:
            raise UserError("model.batch_norm=true and model.unit=true exclude each other")
        self.norm = nn.BatchNorm1d(width) if batch_norm else L2Norm() if unit else nn.Identity()
        self.fc = None if dim is None else nn.Linear(width, dim)
        if self.fc is not None:
            init_linear(self.fc, init)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Compute descriptors of normalised images, float32, not L2-normalised."""
        return self.describe(self.backbone(images))

    def describe(self, features: Features) -> Float[Tensor, "b d"]:
        """Compute descriptors from the backbone's maps."""
        pooled = pool(self.pooling, features)
        return pooled if self.fc is None else linear32(self.fc, self.norm(pooled.float()))

    def local_maps(self, images: Float[Tensor, "b 3 h w"]) -> LocalMaps:
        """Compute local features of normalised images from the backbone's local map, see `maps_by_norm`."""
        return maps_by_norm(self.backbone(images).local)


class AdaptedDescriptor(nn.Module):
    """A network followed by a linear map of its L2-normalised descriptors, which adapts them to a set of photos.

    Args:
        network: the network that is adapted.
        dim: length of an adapted descriptor.
    """

    def __init__(self, network: DescriptorModel, dim: int) -> None:
        super().__init__()
        check_sizes(dim=dim)
        self.dim = dim
        self.side: int = network.side
        self.network = network
        self.adapter = nn.Linear(network.dim, dim)

    @classmethod
    def of(
        cls, network: DescriptorModel, weight: Float[np.ndarray, "d i"], bias: Float[np.ndarray, " d"]
    ) -> AdaptedDescriptor:
        """A network with a learned adapter, on the network's device and in its mode."""
        adapted = cls(network, len(weight)).to(next(network.parameters()).device).train(network.training)
        adapted.adapter.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        return adapted

    @property
    def backbone(self) -> FeatureBackbone:
        """The network's."""
        return self.network.backbone

    @property
    def pooling(self) -> nn.Module:
        """The network's."""
        return self.network.pooling

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Compute descriptors of normalised images, float32, not L2-normalised."""
        return self.describe(self.backbone(images))

    def describe(self, features: Features) -> Float[Tensor, "b d"]:
        """Compute descriptors from the backbone's maps."""
        return linear32(self.adapter, F.normalize(self.network.describe(features).float()))

    def local_maps(self, images: Float[Tensor, "b 3 h w"]) -> LocalMaps:
        """The network's local features."""
        return self.network.local_maps(images)


class L2Norm(nn.Module):
    """Scales vectors to length 1."""

    def forward(self, x: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        """L2-normalised rows."""
        return F.normalize(x)


# DELG is a GlobalDescriptor with a local head.
DescriptorModel = DOLG | GlobalDescriptor | AdaptedDescriptor


def pool(pooling: nn.Module, features: Features) -> Float[Tensor, "b c"]:
    """Pool the global map to a vector; a pooling that `takes_token` also receives the class token."""
    if getattr(pooling, "takes_token", False):
        return pooling(features.global_, features.token)
    return pooling(features.global_)


def pooled_length(pooling: nn.Module, channels: int) -> int:
    """The length of a pooled map: the pooling's `dim` if it has one, else the number of channels."""
    return getattr(pooling, "dim", channels)


def maps_by_norm(features: Float[Tensor, "b c h w"]) -> LocalMaps:
    """A map as local features, float32, scored by their L2 norms, for networks without learned scores.

    HOW does the same (Tolias et al., ECCV 2020). A position without any activation keeps a zero vector, and its score
    is 0.
    """
    features = features.float()
    return LocalMaps(features=F.normalize(features, dim=1), scores=features.norm(dim=1, keepdim=True))


def init_linear(layer: nn.Linear, init: str, parts: int = 1) -> None:
    """Initialise a layer.

    Args:
        layer: its weights are (out, in).
        init: "default" keeps PyTorch's uniform values; "orthogonal" gives orthonormal rows (columns if there are more
            rows) and a zero bias (Saxe et al., ICLR 2014), which preserves the distances of pretrained features.
        parts: number of parts of the inputs, each of which is initialised separately.

    Raises UserError for another `init`.
    """
    if init not in INITS:
        raise UserError(f"model.init must be {' or '.join(INITS)}, not {init}")
    if init == "orthogonal":
        with torch.no_grad():
            for part in layer.weight.chunk(parts, dim=1):
                part.copy_(nn.init.orthogonal_(torch.empty_like(part)))
            nn.init.zeros_(layer.bias)


def linear32(layer: nn.Linear, x: Float[Tensor, "b i"]) -> Float[Tensor, "b o"]:
    """`layer(x)` in float32 even under autocast: these few products decide the cosines."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.float())


def check_sizes(**sizes: int) -> None:
    """Raise UserError for a size below 1; sizes are given by their names below `model`."""
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"model.{name} must be at least 1, not {size}")
