"""Local features of a network: the places that its attention picks, over several scales."""

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

# DELG's seven, of its released R50 configuration (Cao et al., ECCV 2020).
DELG_SCALES = (0.25, 0.3536, 0.5, 0.7071, 1.0, 1.4142, 2.0)
# Non-maximum suppression looks at so many times more of the strongest places than are kept.
CANDIDATES = 4


class NetworkLocalFeatures:
    """Local features where a network's attention is strongest.

    Every cell of the local map at every scale is a candidate: its patch is the cell's own square in the image, its
    strength the attention score. Of patches that overlap by more than `overlap`, the strongest stays.

    Args:
        model: a network with `local_maps`.
        scales: factors of the image's size, which is then rounded to whole cells.
        max_features: how many are kept of an image.
        threshold: least score that counts; scores are the network's own, and no two networks' compare.
        overlap: intersection over union of two patches above which the weaker one goes; 1 keeps all.

    Raises UserError for no network, scales that are none, settings out of range.
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
            raise UserError("features=network needs one: give checkpoint=FILE or model=NAME, or take features=rootsift")
        if not getattr(model.backbone, "has_maps", True):
            raise UserError(f"{model.backbone.name} gives descriptors alone: features=rootsift has local features")
        if max_features < 1 or not 0 <= overlap <= 1:
            raise UserError(
                f"features.max_features is at least 1 and features.overlap 0 to 1, not {max_features} and {overlap}"
            )
        self.model = model
        self.scales = tuple(float(scale) for scale in scales)
        self.max_features = max_features
        self.threshold = float(threshold)
        self.overlap = float(overlap)

    def __call__(self, images: Sequence[UInt8[Tensor, "h w 3"]]) -> list[LocalFeatures]:
        """RGB images of one shape to their local features; an image without a place above the threshold has none."""
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
        """Which cells stay, strongest first; equally strong ones in the order of scales and cells."""
        order = scores.argsort(descending=True, stable=True)
        order = order[scores[order] > self.threshold][: CANDIDATES * self.max_features]
        half = sizes[order, None] / 2
        boxes = torch.cat([centres[order] - half, centres[order] + half], dim=1)
        # The scores given to it are ranks: equal ones would come in any order.
        ranks = -torch.arange(len(order), device=scores.device, dtype=torch.float32)
        return order[nms(boxes, ranks, self.overlap)[: self.max_features]]


def resize_to_cells(pixels: Float[Tensor, "b 3 h w"], scale: float, stride: int) -> Float[Tensor, "b 3 h2 w2"]:
    """Images at about `scale`, bilinear, with sides of whole cells of the local map: multiples of `stride`, at least 1.

    A map of any other size looks beyond the image, by how much and on which side depending on the size and on the
    network's kind of padding, so that cells of two scales would not be where they seem to be.
    """
    height, width = (stride * max(1, round(side * scale / stride)) for side in pixels.shape[-2:])
    if (height, width) == tuple(pixels.shape[-2:]):
        return pixels
    return F.interpolate(pixels, size=(height, width), mode="bilinear", align_corners=False)
