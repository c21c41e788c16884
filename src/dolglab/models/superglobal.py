"""SuperGlobal's backbone: a ResNet whose early activations are never zero (Shao et al., ICCV 2023)."""

from __future__ import annotations

import re

from jaxtyping import Float
from torch import Tensor, nn

from dolglab.errors import UserError
from dolglab.models.backbone import Backbone

# The ends of the blocks of the first three stages, and the inner activations of the first.
RAISED = re.compile(r"(?:layer[123]\.\d+\.act3|layer1\.\d+\.act[12])$")


class ReLUP(nn.Module):
    """max(x, floor): a ReLU with a positive floor."""

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The map with values below the floor raised to it."""
        return x.clamp(min=self.floor)


class ReLUPBackbone(Backbone):
    """A bottleneck ResNet with ReLUP after the blocks of stages 1 to 3 and inside those of stage 1.

    The inner ReLUPs are those of the public code; the paper has ReLUP only after blocks.

    Args:
        name, pretrained, weights, licence: see `Backbone`.
        floor: the least activation.

    Raises UserError for another architecture.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = True,
        weights: str | None = None,
        licence: str | None = None,
        floor: float = 0.014,
    ) -> None:
        super().__init__(name, pretrained, weights, licence=licence)
        raised = [place for place, _ in self.net.named_modules() if RAISED.match(place)]
        if not raised:
            raise UserError(f"ReLUP needs a bottleneck ResNet, which {name} is not")
        for place in raised:
            parent, _, activation = place.rpartition(".")
            setattr(self.net.get_submodule(parent), activation, ReLUP(floor))
