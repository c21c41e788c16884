"""NetVLAD: local features are softly assigned to clusters, and their residuals to the centres are summed."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dolglab.errors import UserError

# Iterations of k-means.
ITERATIONS = 20


class NetVLAD(nn.Module):
    """Sums of residuals, one per cluster (Arandjelovic et al., CVPR 2016, equation 4), L2-normalised.

    Features are L2-normalised, then each cluster's sum of residuals, and then the whole vector. The assignment layer is
    initialised from the centres (`start_from_samples`), and both are then learned separately.

    Args:
        channels: channels of the map.
        clusters: number of clusters, at least 2.
        bias: the assignment layer has a bias, as in the paper; the most widely used PyTorch code has none.
        normalize: L2-normalise the features first.

    Attributes:
        dim: length of the vector, clusters x channels.

    Raises UserError for fewer than 2 clusters.
    """

    def __init__(self, channels: int, clusters: int = 64, bias: bool = False, normalize: bool = True) -> None:
        super().__init__()
        if clusters < 2:
            raise UserError(f"pooling.clusters must be at least 2, not {clusters}")
        self.clusters = clusters
        self.dim = clusters * channels
        self.normalize = normalize
        self.conv = nn.Conv2d(channels, clusters, 1, bias=bias)
        self.centroids = nn.Parameter(torch.rand(clusters, channels))

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Pool a map to a vector, float32."""
        with torch.autocast(features.device.type, enabled=False):
            x = features.float()
            x = F.normalize(x) if self.normalize else x
            assignment = self.conv(x).flatten(2).softmax(1)
            sums = assignment @ x.flatten(2).mT
            residuals = sums - assignment.sum(2, keepdim=True) * self.centroids
            return F.normalize(F.normalize(residuals, dim=2).flatten(1))

    def start_from_samples(self, samples: Float[Tensor, "n c"], seed: int) -> None:
        """Initialise with the centres of k-means over samples, L2-normalised local features (the paper's appendix A).

        Raises UserError for fewer samples than clusters.
        """
        import faiss

        count, channels = samples.shape
        if count < self.clusters:
            raise UserError(f"pooling.clusters={self.clusters}, but the training crops have {count} features")
        # By default faiss uses 256 samples per cluster, and warns about fewer than 39.
        bounds = {"min_points_per_centroid": 1, "max_points_per_centroid": count}
        kmeans = faiss.Kmeans(channels, self.clusters, niter=ITERATIONS, seed=seed, **bounds)
        kmeans.train(samples.numpy())
        self.start_from(torch.from_numpy(kmeans.centroids), samples)

    @torch.no_grad()
    def start_from(self, centres: Float[Tensor, "k c"], samples: Float[Tensor, "n c"]) -> None:
        """Initialise with these centres, so that each sample is assigned almost entirely to one of them.

        The assignment layer compares directions: on average, a sample's nearest centre gets 100 times the weight of the
        second (section 3.1 of the paper asks for a large alpha; this value is that of the authors' code).

        Args:
            centres: the centres, for example of k-means over samples.
            samples: L2-normalised local features.
        """
        directions = F.normalize(centres)
        nearest = (samples @ directions.T).topk(2, dim=1).values
        alpha = math.log(100) / (nearest[:, 0] - nearest[:, 1]).mean()
        self.centroids.copy_(centres)
        if self.conv.bias is None:
            self.conv.weight.copy_((alpha * directions)[..., None, None])
        else:
            self.conv.weight.copy_((2 * alpha * centres)[..., None, None])
            self.conv.bias.copy_(-alpha * centres.square().sum(1))
