"""Losses over the pairs of a batch, from pytorch-metric-learning, with the interface of the margin heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dolglab.errors import UserError
from dolglab.losses.margin import HeadLoss, MarginHead


class MultiSimilarity(nn.Module):
    """The multi-similarity loss over the pairs that its miner selects (Wang et al., CVPR 2019).

    It has no class centres: images are compared within their batch, so a batch needs several images of each landmark
    (`data.images_per_landmark`). Each process compares only its own images.

    Args:
        dim: length of the descriptors; not used.
        num_classes: number of classes; not used.
        alpha: weight of positive pairs.
        beta: weight of negative pairs.
        base: the cosine above which pairs count, the paper's lambda.
        epsilon: the miner's tolerance. A negative pair is kept if it is closer than the farthest positive pair plus
            this tolerance; a positive pair is kept if it is farther than the closest negative pair minus it.

    Raises UserError if pytorch-metric-learning is not installed, and for a weight that is not above 0.
    """

    # The attribute in which other heads have their class centres.
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
                f"margin=multi_similarity needs {error.name}: pip install 'dolglab[metric-learning]'"
            ) from None
        if min(alpha, beta) <= 0 or epsilon < 0:
            raise UserError(
                f"margin.alpha and .beta must be above 0 and .epsilon at least 0, not {alpha}, {beta} and {epsilon}"
            )
        # The defaults are integers, so pyright infers integer parameters.
        self.value = MultiSimilarityLoss(alpha=alpha, beta=beta, base=base)  # pyright: ignore[reportArgumentType]
        self.miner = MultiSimilarityMiner(epsilon=epsilon)

    def loss(self, descriptors: Float[Tensor, "b d"], labels: Int[Tensor, " b"]) -> HeadLoss:
        """The loss of a batch, and its cosines: each pair is a row, with the target in column 0 if both images show the
        same landmark."""
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


# The heads that can be trained: both compute a `HeadLoss` from descriptors and labels.
Head = MarginHead | MultiSimilarity


def _mean(values: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """The mean, or 0 for a batch without such pairs."""
    return values.sum() / max(1, len(values))
