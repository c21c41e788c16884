"""Losses over the pairs of a batch, by pytorch-metric-learning, behind the interface of the margin heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dolglab.errors import UserError
from dolglab.losses.margin import HeadLoss, MarginHead


class MultiSimilarity(nn.Module):
    """The multi-similarity loss over the pairs that its miner keeps (Wang et al., CVPR 2019).

    It has no class centres: images are compared with the others of their batch, and so want batches with several of
    each landmark (`data.images_per_landmark`). Of several processes each compares its own images.

    Args:
        dim: length of the descriptors; any will do.
        num_classes: classes; any number will do.
        alpha: weight of positive pairs.
        beta: weight of negative pairs.
        base: the cosine from which pairs count, the paper's lambda.
        epsilon: negative pairs are kept that are closer than the farthest positive one, or farther by no more than
            this; positive ones as they are farther than the closest negative one.

    Raises UserError without pytorch-metric-learning, and for a weight not above 0.
    """

    # Where heads with class centres have them.
    weight: None = None

    def __init__(
        self,
        dim: int,
        num_classes: int,
        alpha: float = 1.0,
        beta: float = 50.0,
        base: float = 0.0,
        epsilon: float = 0.1,
    ) -> None:
        super().__init__()
        try:
            from pytorch_metric_learning.losses import MultiSimilarityLoss
            from pytorch_metric_learning.miners import MultiSimilarityMiner
        except ModuleNotFoundError as error:
            raise UserError(
                f"margin=multi_similarity wants {error.name}: pip install 'dolglab[metric-learning]'"
            ) from None
        if min(alpha, beta) <= 0 or epsilon < 0:
            raise UserError(
                f"margin.alpha and .beta must be above 0 and .epsilon not below, not {alpha}, {beta} and {epsilon}"
            )
        # Its defaults are whole numbers, and so its types as pyright sees them.
        self.value = MultiSimilarityLoss(alpha=alpha, beta=beta, base=base)  # pyright: ignore[reportArgumentType]
        self.miner = MultiSimilarityMiner(epsilon=epsilon)

    def loss(self, descriptors: Float[Tensor, "b d"], labels: Int[Tensor, " b"]) -> HeadLoss:
        """The loss of a batch, and its cosines: each pair is a row, and has its target in column 0 where both show one
        landmark."""
        with torch.autocast(descriptors.device.type, enabled=False):
            x = F.normalize(descriptors.float())
            value = self.value(x, labels, self.miner(x, labels))
        cosine = (x @ x.T).detach()
        same = labels[:, None] == labels
        other = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        nearest = cosine.masked_fill(~other, -2).argmax(1)
        return HeadLoss(
            loss=value,
            accuracy=(labels[nearest] == labels).float().mean(),
            target_cosine=_mean(cosine[same & other]),
            nontarget_cosine=_mean(cosine[~same]),
            cosine=cosine[other][:, None],
            at=torch.where(same, 0, -1)[other],
        )


# What a training takes: both give a `HeadLoss` of descriptors and labels.
Head = MarginHead | MultiSimilarity


def _mean(values: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """0 where there is none: a batch without such a pair."""
    return values.sum() / max(1, len(values))
