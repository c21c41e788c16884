"""Local features of a network: the positions that its attention selects, over several scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.ops import nms

from dolglab.contracts import LocalFeatures
from dolglab.errors import UserError
from dolglab.extraction.extractor import check_protocol
from dolglab.models.dolg import DescriptorModel

# The seven scales of DELG's released R50 configuration (Cao et al., ECCV 2020).
DELG_SCALES = (0.25, 0.3536, 0.5, 0.7071, 1.0, 1.4142, 2.0)
# Non-maximum suppression considers this many times more positions than are kept.
CANDIDATES = 4


class NetworkLocalFeatures:
    """Local features at the positions where a network's attention is strongest.

    Every cell of the local map at every scale is a candidate. Its patch is the cell's square in the image, its strength
    the attention score. Of patches that overlap by more than `overlap`, only the strongest is kept.

    Args:
        model: a network with `local_maps`.
        scales: factors on the image's size, which is then rounded to whole cells.
        max_features: largest number of features per image.
        threshold: smallest score that counts; scores of different networks are not comparable.
        overlap: intersection over union of two patches above which the weaker one is dropped; 1 keeps all.

    Raises UserError for a missing network, invalid scales, and settings out of range.
    """

    needs_network = True

    def __init__(
        self,
        model: DescriptorModel | None,
        scales: Sequence[float] = DELG_SCALES,
        max_features: int = 1000,
        threshold: float = 0.0,
        overlap: float = 0.2,
    ) -> None:
        check_protocol(scales, "released")
        if model is None:
            raise UserError(
                "features=network needs a network: set checkpoint=FILE or model=NAME, or use features=rootsift"
            )
        if not getattr(model.backbone, "has_maps", True):
            raise UserError(f"{model.backbone.name} has no local features: use features=rootsift")
        if max_features < 1 or not 0 <= overlap <= 1:
            raise UserError(
                "features.max_features must be at least 1 and features.overlap from 0 to 1, "
                f"not {max_features} and {overlap}"
            )
        self.model = model
        self.scales = tuple(float(scale) for scale in scales)
        self.max_features = max_features
        self.threshold = float(threshold)
        self.overlap = float(overlap)

    def __call__(self, images: Sequence[UInt8[Tensor, "h w 3"]]) -> list[LocalFeatures]:
        """The local features of RGB images of one shape; an image with no score above the threshold has none."""
        pixels = torch.stack(list(images)).permute(0, 3, 1, 2).float()
        height, width = pixels.shape[-2:]
        levels = [self._level(pixels, scale) for scale in self.scales]
        centres, sizes, scores, rows = map(torch.cat, zip(*levels, strict=True))
        features = []
        for image in range(len(images)):
            selected = self._select(centres, sizes, scores[:, image])
            features.append(
                LocalFeatures(
                    keypoints=centres[selected].cpu().numpy(),
                    sizes=sizes[selected].cpu().numpy(),
                    scores=scores[selected, image].cpu().numpy(),
                    descriptors=rows[selected, image].half().cpu().numpy(),
                    shape=(height, width),
                )
            )
        return features

    def config(self) -> dict[str, object]:
        return {
            "features": "network",
            "scales": list(self.scales),
            "sides": "whole cells",
            "max_features": self.max_features,
            "threshold": self.threshold,
            "overlap": self.overlap,
        }

    def _level(self, pixels: Float[Tensor, "b 3 h w"], scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cells of a map: centres x, y (n, 2) and sides (n,) in pixels; scores (n, b), features (n, b, d) by image."""
        height, width = pixels.shape[-2:]
        backbone = self.model.backbone
        maps = self.model.local_maps(backbone.normalise(resize_to_cells(pixels, scale, backbone.reductions[0])))
        rows, columns = maps.scores.shape[-2:]
        cell = height / rows, width / columns
        y = (torch.arange(rows, device=pixels.device) + 0.5) * cell[0] - 0.5
        x = (torch.arange(columns, device=pixels.device) + 0.5) * cell[1] - 0.5
        centres = torch.stack([x.repeat(rows), y.repeat_interleave(columns)], dim=1).float()
        sizes = torch.full((rows * columns,), (cell[0] * cell[1]) ** 0.5, device=pixels.device)
        return centres, sizes, maps.scores.float().flatten(1).T, maps.features.float().flatten(2).permute(2, 0, 1)

    def _select(self, centres: Float[Tensor, "n 2"], sizes: Float[Tensor, " n"], scores: Float[Tensor, " n"]) -> Tensor:
        """The cells that are kept, strongest first; ties are in the order of scales and cells."""
        order = scores.argsort(descending=True, stable=True)
        order = order[scores[order] > self.threshold][: CANDIDATES * self.max_features]
        half = sizes[order, None] / 2
        boxes = torch.cat([centres[order] - half, centres[order] + half], dim=1)
        # Ranks are passed as scores, because the order of equal scores would be undefined.
        ranks = -torch.arange(len(order), device=scores.device, dtype=torch.float32)
        return order[nms(boxes, ranks, self.overlap)[: self.max_features]]


def resize_to_cells(pixels: Float[Tensor, "b 3 h w"], scale: float, stride: int) -> Float[Tensor, "b 3 h2 w2"]:
    """Images resized by about `scale`, bilinear; sides are multiples of `stride` (whole cells of the local map).

    For other sizes the map extends beyond the image, by an amount and on a side that depend on the size and on the
    network's padding, so that the positions of cells at two scales would not agree.
    """
    height, width = (stride * max(1, round(side * scale / stride)) for side in pixels.shape[-2:])
    if (height, width) == tuple(pixels.shape[-2:]):
        return pixels
    return F.interpolate(pixels, size=(height, width), mode="bilinear", align_corners=False)
