"""Initialise a pooling with local features of training crops."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dolglab.data.module import LandmarkDataModule
from dolglab.models.dolg import DescriptorModel

# The number of features taken from the first batches of an epoch, and the most from one image (Arandjelovic et al.,
# CVPR 2016, appendix A: 50,000 and 100).
FEATURES, FEATURES_PER_IMAGE = 50_000, 100


def start_pooling(model: DescriptorModel, data: LandmarkDataModule) -> None:
    """Initialise a pooling that has `start_from_samples`, such as NetVLAD, with L2-normalised features of training
    crops.

    Other poolings keep their initialisation. The features depend on the seed alone, so all processes start alike.
    Raises UserError like the pooling.
    """
    start = getattr(model.pooling, "start_from_samples", None)
    if start is not None:
        start(training_features(model, data), data.seed)


@torch.no_grad()
def training_features(model: DescriptorModel, data: LandmarkDataModule) -> Float[Tensor, "n c"]:
    """L2-normalised features of the global map, at random positions of the first epoch's crops."""
    rng = np.random.default_rng(data.seed)
    found: list[Tensor] = []
    was_training = model.training
    model.eval()
    batches = -(-FEATURES // (FEATURES_PER_IMAGE * data.batch_size))
    for batch in islice(data.train_dataloader(), batches):
        images = model.backbone.normalise(data.augmentation(batch.images, batch.draws))
        cells = F.normalize(model.backbone(images).global_.float()).flatten(2).mT
        for image in cells:
            found.append(image[rng.permutation(len(image))[:FEATURES_PER_IMAGE]])
    model.train(was_training)
    return torch.cat(found)
