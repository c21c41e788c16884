"""The losses of a local head: reconstruction of the map, and classification of the attended features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dolglab.errors import UserError


def reconstruction_error(
    features: Float[Tensor, "b c h w"], reconstruction: Float[Tensor, "b c h w"]
) -> Float[Tensor, ""]:
    """The squared error, averaged over images, positions and channels, float32 (Cao et al., ECCV 2020)."""
    with torch.autocast(features.device.type, enabled=False):
        return F.mse_loss(reconstruction.float(), features.float())


def attended_mean(features: Float[Tensor, "b c h w"], scores: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c"]:
    """The mean over positions of L2-normalised features times their scores, float32.

    DELG's published code does the same. Unlike a sum, the mean does not grow with the image.
    """
    with torch.autocast(features.device.type, enabled=False):
        return (F.normalize(features.float(), dim=1) * scores.float()).mean((2, 3))


@dataclass(frozen=True)
class LocalTerms:
    """The weighted sum of both losses of a batch, with gradient, and each unweighted loss, for the log."""

    loss: Float[Tensor, ""]
    reconstruction: Float[Tensor, ""]
    attention: Float[Tensor, ""]


class LocalLoss(nn.Module):
    """The losses of DELG's local head (Cao et al., ECCV 2020), with the classifier that attention needs.

    The classifier is a linear layer over all classes. Each process holds all of it, even if the margin head's classes
    are divided among processes.

    Args:
        channels: channels of the backbone's local map.
        num_classes: number of classes.
        reconstruction: weight of the mean squared error of the reconstructed map.
        attention: weight of the cross-entropy of the reconstructed, attended features.

    Raises UserError for a negative weight.
    """

    def __init__(self, channels: int, num_classes: int, reconstruction: float = 10.0, attention: float = 1.0) -> None:
        super().__init__()
        if reconstruction < 0 or attention < 0:
            raise UserError(
                f"auxiliary.reconstruction and .attention must be at least 0, not {reconstruction} and {attention}"
            )
        self.reconstruction = reconstruction
        self.attention = attention
        self.classifier = nn.Linear(channels, num_classes)

    def forward(
        self,
        features: Float[Tensor, "b c h w"],
        reconstruction: Float[Tensor, "b c h w"],
        scores: Float[Tensor, "b 1 h w"],
        labels: Int[Tensor, " b"],
    ) -> LocalTerms:
        """Compute the losses from a local head's outputs and labels."""
        error = reconstruction_error(features, reconstruction)
        with torch.autocast(features.device.type, enabled=False):
            classified = F.cross_entropy(self.classifier(attended_mean(reconstruction, scores)), labels)
        loss = self.reconstruction * error + self.attention * classified
        return LocalTerms(loss, error.detach(), classified.detach())
