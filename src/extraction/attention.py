"""Where a network looks: its local scores over one photo."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8

from src.models.dolg import DescriptorModel


def attention_scores(model: DescriptorModel, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h1 w1"]:
    """Scores from 0 on a grid over the whole photo, at its own size. The network must be in eval mode."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
        maps = model.local_maps(model.backbone.normalise(pixels))
    return maps.scores[0, 0].float().cpu().numpy()
