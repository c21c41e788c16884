"""Retrieval steps: descriptors at five scales compared with the CPU's, and rankings by products on the GPU."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from experiments.gpu_check.check import Check
from experiments.gpu_check.recipe import DIM, Sizes, blocks, landmark_module, precisions
from experiments.gpu_check.training import exact_products, free
from torch import Tensor, nn

from dolglab.contracts import FloatArray, GroundTruth, IntArray
from dolglab.extraction.extractor import PAPER_SCALES, Extractor, for_inference
from dolglab.measures import RevisitedMeasure
from dolglab.models.dolg import DescriptorModel
from dolglab.retrieval.inner_products import Queries, round_to_grid
from dolglab.retrieval.map_metric import RetrievalMetric
from dolglab.retrieval.ranking import exact_ranking

# Largest distance of a descriptor from the CPU's, as a share of the smallest one between two images.
NEAR = {"32-true": 1e-2, "bf16-mixed": 1.0, "16-mixed": 1.0}
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
# Number of images whose whole ranking is compared, and of duplicates among them.
WHOLE, EQUAL = 3000, 100


def extraction(check: Check) -> None:
    """Descriptors at the paper's five scales, by the extractor: images per second, and distance from the CPU's."""
    sizes = check.sizes
    network, name = next(iter(sizes.networks.items()))
    exact_products()
    model = telling_apart(landmark_module(name, sizes).model, sizes)
    photos = list(blocks(sizes.photos, *sizes.photo, seed=0))
    check.facts |= {"network": network, "height_width": sizes.photo, "scales": PAPER_SCALES, "tf32": False}
    own: list[Tensor] = []
    fused = for_inference(model)
    start = time.monotonic()
    for photo in photos[: sizes.photos_on_cpu]:
        if not own or check.seconds_left > 0.5 * (check.deadline - start):
            own.append(Extractor(fused, PAPER_SCALES)([photo])[0].detach())
    reference = torch.stack(own)
    check.row(device="cpu", precision="32-true", images_a_second=round(len(own) / (time.monotonic() - start), 2))
    apart = float(torch.pdist(reference).min()) if len(own) > 1 else None
    for precision in precisions(check.device):
        found, images_a_second = described(check, model, photos, precision)
        distance = float((found[: len(own)] - reference).norm(dim=1).max())
        check.row(
            device=check.device,
            precision=precision,
            images_a_second=images_a_second,
            smallest_cosine=float((found[: len(own)] * reference).sum(1).min()),
            largest_distance=distance,
            smallest_distance_between_images=apart,
        )
        limit = NEAR[precision] * (apart or 0.0)
        check.require(distance <= limit, f"{precision}: a descriptor is {distance:.1e} from the CPU's")
        free(check)


def telling_apart(model: DescriptorModel, sizes: Sizes) -> DescriptorModel:
    """The network in eval mode, changed so that all layers have an effect, and different images differ.

    Random residual branches begin with a weight of zero, and batch norms with the statistics of no image.
    """
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            # The mean over batches.
            part.momentum = None
    with torch.no_grad():
        model.train()(model.backbone.normalise(blocks(8, sizes.side, sizes.side, seed=1).permute(0, 3, 1, 2)))
    return model.eval()


def described(check: Check, model: DescriptorModel, photos: list[Tensor], precision: str) -> tuple[Tensor, float]:
    """Descriptors on the CPU, (n, dim), and images per second of a second pass."""
    network = for_inference(model, precision).to(check.device)
    extractor = Extractor(network, PAPER_SCALES)
    dtype = AUTOCAST.get(precision)
    with torch.inference_mode(), torch.autocast(check.device, dtype, enabled=dtype is not None):
        extractor(photos[:2])
        start = time.monotonic()
        # The copy to the CPU waits for the GPU.
        found = extractor(photos).cpu()
    return found, round(len(photos) / (time.monotonic() - start), 2)


def ranking(check: Check) -> None:
    """Float64 products computed and sorted on the GPU, compared with `exact_ranking` on the CPU.

    What the project ranks comes to the CPU; values on its grid have products that no order of adding changes, so the
    card must give the same scores, and a stable sort of them the same ranking, ties among them.
    """
    sizes = check.sizes
    rng = np.random.default_rng(0)
    gallery, queries = unit_rows(rng, sizes.gallery), unit_rows(rng, sizes.queries)
    gallery[1 : 2 * EQUAL : 2] = gallery[: 2 * EQUAL : 2]
    # Pairs of equal images among the first, so that some queries find them first.
    queries[: EQUAL // 10] = gallery[: 2 * (EQUAL // 10) : 2]
    wanted = [rng.choice(sizes.gallery, 20, replace=False) for _ in range(sizes.queries)]
    compare_ranking(check, "the first answers, and 20 ranks of each", gallery, queries, wanted, sizes.top)
    whole, few = gallery[: min(WHOLE, sizes.gallery)], queries[:8]
    everything = [np.arange(len(whole))] * len(few)
    compare_ranking(check, "whole rankings", whole, few, everything, len(whole))
    metric(check, whole, few)


def compare_ranking(
    check: Check, what: str, gallery: FloatArray, queries: FloatArray, wanted: list[IntArray], top: int
) -> None:
    """Record a row, and require that both rankings are the same."""
    start = time.monotonic()
    ranked = exact_ranking(gallery, queries, wanted, top)
    seconds = time.monotonic() - start
    start = time.monotonic()
    top_k, scores, ranks = ranked_on(check.device, gallery, queries, wanted, top)
    figures: dict[str, Any] = {
        "what": what,
        "gallery": len(gallery),
        "queries": len(queries),
        "answers_equal": bool(np.array_equal(top_k, ranked.top_k)),
        "scores_equal": bool(np.array_equal(scores, ranked.scores)),
        "ranks_equal": all(map(np.array_equal, ranks, ranked.ranks)),
        "last_rank": int(max(own.max() for own in ranked.ranks)),
        "seconds_cpu": round(seconds, 2),
        "seconds_device": round(time.monotonic() - start, 2),
    }
    check.row(**figures)
    for name in ("answers_equal", "scores_equal", "ranks_equal"):
        check.require(figures[name], f"{what}: not {name.replace('_', ' ')}")


def ranked_on(
    device: str, gallery: FloatArray, queries: FloatArray, wanted: list[IntArray], top: int, at_once: int = 256
) -> tuple[IntArray, FloatArray, list[IntArray]]:
    """First answers, their scores, and the ranks of the wanted images, by products and stable sorts on the device."""
    rows = torch.from_numpy(round_to_grid(gallery.astype(np.float64))).to(device).T
    asked = torch.from_numpy(Queries.of(queries).exact).to(device)
    answers, scores, ranks = [], [], []
    for start in range(0, len(asked), at_once):
        values, order = (asked[start : start + at_once] @ rows).float().sort(dim=1, descending=True, stable=True)
        answers.append(order[:, :top].cpu())
        scores.append(values[:, :top].cpu())
        places = order.argsort(dim=1).cpu().numpy()
        ranks += [own[positions] for own, positions in zip(places, wanted[start:], strict=False)]
    return torch.cat(answers).numpy(), torch.cat(scores).numpy(), ranks


def metric(check: Check, gallery: FloatArray, queries: FloatArray) -> None:
    """Validation's metric, given descriptors on the device: its figures beside those of the same from the CPU."""
    rng = np.random.default_rng(1)
    labelled = [np.split(rng.permutation(len(gallery))[:60], 3) for _ in queries]
    truth = GroundTruth(*(tuple(parts) for parts in zip(*labelled, strict=True)))
    descriptors = torch.from_numpy(np.concatenate([gallery, queries]))
    positions = torch.arange(len(descriptors))
    found = []
    for device in ("cpu", check.device):
        own = RetrievalMetric(
            RevisitedMeasure(), truth, len(gallery), np.arange(len(gallery), len(descriptors)), descriptors.shape[1]
        ).to(device)
        for part in positions.split(512):
            own.update(descriptors[part].to(device), part.to(device))
        found.append((own.compute()["medium"]["map"], own.ranks))
    same = found[0][0] == found[1][0] and np.array_equal(found[0][1], found[1][1])
    check.row(what="validation's metric", gallery=len(gallery), queries=len(queries), map=found[1][0], equal=bool(same))
    check.require(bool(same), "validation's metric: figures differ from those of the same descriptors from the CPU")


def unit_rows(rng: np.random.Generator, count: int) -> FloatArray:
    """Random unit vectors, float32."""
    rows = rng.standard_normal((count, DIM), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
