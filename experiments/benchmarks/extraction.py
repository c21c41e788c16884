"""Multi-scale extraction, ours and a plain version: R50 + ASPP, the paper's five scales, images shaped like ROxford's.

Plain: one image at a time, the network as it was trained, contiguous, with the textbook fusion on the whole map.
Ours: as in an evaluation, with batch norms folded, channels last, images grouped by shape, and the closed form of the
fusion. Random weights (the arithmetic is the same), in turn, medians of several rounds. Also prints the smallest
cosine between the two descriptors of an image.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from dolglab.extraction.extractor import PAPER_SCALES, Extractor, fuse_batch_norm, rescale
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import DOLG
from dolglab.models.local_branch import LocalBranch

# Height and width of most photographs of ROxford5k, portrait and landscape.
SHAPES = ((768, 1024), (768, 1024), (1024, 768), (768, 1024))


def textbook_fusion(local: Tensor, global_: Tensor) -> Tensor:
    """Equations 3 to 5 of the paper, map by map."""
    flat = local.flatten(2)
    dot = torch.bmm(global_[:, None], flat)
    projection = torch.bmm(global_[:, :, None], dot) / global_.square().sum(1).view(-1, 1, 1)
    spread = global_[:, :, None, None].expand_as(local)
    return torch.cat([spread, (flat - projection).view_as(local)], 1).mean((2, 3))


def plain(model: DOLG, images: list[Tensor]) -> Tensor:
    """One image and one scale at a time."""
    backbone, rows = model.backbone, []
    assert isinstance(backbone, Backbone)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (backbone.mean, backbone.std))
    for image in images:
        pixels = image.permute(2, 0, 1)[None].float().contiguous()
        parts = []
        for scale in PAPER_SCALES:
            x = (rescale(pixels, scale, "released") / 255 - mean) / std
            parts.append(F.normalize(model(x.contiguous())))
        rows.append(F.normalize(torch.stack(parts).mean(0)))
    return torch.cat(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=len(SHAPES))
    options = parser.parse_args()
    torch.manual_seed(0)
    backbone = Backbone("resnet50.tv_in1k", pretrained=False)
    reference = DOLG(backbone, local=LocalBranch, fusion=textbook_fusion).eval()
    for norm in [m for m in reference.modules() if isinstance(m, torch.nn.BatchNorm2d)]:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.0)
    model = DOLG(Backbone("resnet50.tv_in1k", pretrained=False)).eval()
    model.load_state_dict(reference.state_dict())
    images = [torch.randint(0, 256, (*shape, 3), dtype=torch.uint8) for shape in SHAPES[: options.images]]
    ours = Extractor(fuse_batch_norm(model.to(memory_format=torch.channels_last)), PAPER_SCALES)
    times: list[tuple[float, float]] = []
    cosine = 1.0
    with torch.inference_mode():
        for _ in range(options.rounds):
            start = time.perf_counter()
            expected = plain(reference, images)
            middle = time.perf_counter()
            found = ours(images)
            times.append((middle - start, time.perf_counter() - middle))
            cosine = min(cosine, float(F.cosine_similarity(expected, found).min()))
    slow, fast = (statistics.median(column) for column in zip(*times, strict=True))
    count = len(images)
    print(
        f"extraction, R50 + ASPP, five scales, {count} images of 1024 x 768, {torch.get_num_threads()} threads: plain "
        f"{slow / count:.2f} s per image, ours {fast / count:.2f} s, {slow / fast:.2f} times faster, "
        f"smallest cosine {cosine:.6f}"
    )


if __name__ == "__main__":
    main()
