"""A pooling that begins with clusters of local features: k-means over training crops."""

from __future__ import annotations

from itertools import islice

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dolglab.data.module import LandmarkDataModule
from dolglab.errors import UserError
from dolglab.models.dolg import DescriptorModel
from dolglab.models.netvlad import NetVLAD

# Of the first batches of an epoch this many features, and of an image at most so many (NetVLAD's appendix A: 50,000 and
# 100); iterations of k-means.
FEATURES, FEATURES_PER_IMAGE, ITERATIONS = 50_000, 100, 20


def start_pooling(model: DescriptorModel, data: LandmarkDataModule) -> None:
    """Begin NetVLAD by k-means over L2-normalised features of training crops (Arandjelovic et al., 2016, appendix A).

    Other poolings begin as they were made. What is taken follows from the seed alone: all processes begin alike.
    Raises UserError for fewer features than clusters.
    """
    pooling = model.pooling
    if not isinstance(pooling, NetVLAD):
        return
    samples = training_features(model, data).numpy()
    if len(samples) < pooling.clusters:
        raise UserError(f"pooling.clusters={pooling.clusters}, but the training crops have {len(samples)} features")
    dim = samples.shape[1]
    kmeans = faiss.Kmeans(dim, pooling.clusters, niter=ITERATIONS, seed=data.seed, min_points_per_centroid=1)
    kmeans.train(samples)
    pooling.start_from(torch.from_numpy(kmeans.centroids), torch.from_numpy(samples))


@torch.no_grad()
def training_features(model: DescriptorModel, data: LandmarkDataModule) -> Tensor:
    """(n, channels) L2-normalised features of the global map, at random places of the first epoch's crops."""
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
