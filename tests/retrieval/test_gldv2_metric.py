"""From descriptors to GLDv2's figures, compared with plain loops over a full sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dolglab.contracts import Benchmark, GroundTruth
from dolglab.data.gldv2_benchmarks import GLDv2Recognition, GLDv2Retrieval, voted
from dolglab.errors import UserError
from dolglab.retrieval.faiss_indexes import IVFFlatIndex
from dolglab.retrieval.map_metric import RetrievalMetric

GALLERY, QUERIES, DIM = 40, 12, 8
NOTHING = np.empty(0, np.int64)


class Named:
    """Names only, since metrics read no image."""

    def __len__(self) -> int:
        return GALLERY + QUERIES

    def name(self, position: int) -> str:
        return f"test/0/0/0/{position:016x}.jpg"

    def size(self, position: int) -> int:
        return 0

    def read(self, position: int) -> bytes:
        raise OSError


def benchmark(measure: str, neighbours: int = 0) -> Benchmark:
    rng = np.random.default_rng(3)
    landmarks = rng.integers(0, 6, GALLERY)
    # Every fourth query shows nothing, which counts for recognition but does not occur in retrieval.
    shown = [frozenset() if measure == "GAP" and q % 4 == 3 else frozenset({q % 6}) for q in range(QUERIES)]
    positives = tuple(np.flatnonzero(np.isin(landmarks, list(one))) for one in shown)
    usages = np.array(["public", "private", "private", "ignored"] * 3)
    recognition = GLDv2Recognition(usages, landmarks.astype(np.int64), tuple(shown), neighbours)
    return Benchmark(
        name="toy",
        source=Named(),
        num_gallery=GALLERY,
        queries=np.arange(GALLERY, GALLERY + QUERIES),
        boxes=np.full((QUERIES, 4), np.nan),
        ground_truth=GroundTruth(positives, (NOTHING,) * QUERIES, (NOTHING,) * QUERIES),
        crop="none",
        digest="0" * 16,
        difficulties=("public", "private"),
        measure=recognition if measure == "GAP" else GLDv2Retrieval(usages),
    )


@pytest.fixture
def descriptors() -> Tensor:
    return F.normalize(torch.randn(GALLERY + QUERIES, DIM, generator=torch.Generator().manual_seed(5)))


def filled(metric: RetrievalMetric, descriptors: Tensor, skipped: tuple[int, ...] = ()) -> RetrievalMetric:
    order = torch.randperm(len(descriptors), generator=torch.Generator().manual_seed(1))
    kept = order[~torch.isin(order, torch.tensor(skipped, dtype=torch.int64))]
    for part in kept.split(7):
        metric.update(descriptors[part], part)
    metric.skip(torch.tensor(skipped, dtype=torch.int64))
    return metric


def answers_of(metric: RetrievalMetric) -> tuple[tuple[int, int, float], ...]:
    assert metric.figures is not None
    return metric.figures.answers


def test_retrieval_equals_mean_ap_of_a_full_sort(descriptors: Tensor) -> None:
    task = benchmark("mAP@100")
    found = filled(RetrievalMetric.of(task, DIM), descriptors).compute()
    cosines = (descriptors[GALLERY:] @ descriptors[:GALLERY].T).numpy()
    for usage in ("public", "private"):
        aps = []
        for query in np.flatnonzero(task.measure.usages == usage).tolist():
            hit = np.isin(np.argsort(-cosines[query]), task.ground_truth.easy[query])
            precision = np.cumsum(hit) / np.arange(1, GALLERY + 1)
            aps.append(precision[hit].sum() / hit.sum())
        assert found[usage]["map"] == pytest.approx(np.mean(aps), abs=1e-9)
        own = found[usage]["ap"]
        assert own[~np.isnan(own)] == pytest.approx(aps)


@pytest.mark.parametrize("neighbours", [1, 3, 7])
def test_recognition_equals_gap_of_the_votes(descriptors: Tensor, neighbours: int) -> None:
    task = benchmark("GAP", neighbours)
    metric = filled(RetrievalMetric.of(task, DIM), descriptors)
    found = metric.compute()
    cosines = (descriptors[GALLERY:] @ descriptors[:GALLERY].T).numpy()
    answers = []
    for query in range(QUERIES):
        sums = dict.fromkeys(range(6), 0.0)
        for image in np.argsort(-cosines[query])[:neighbours]:
            sums[int(task.measure.landmarks[image])] += float(cosines[query, image])
        answers.append(max(sums.items(), key=lambda pair: pair[1]))
    assert [landmark for _, landmark, _ in answers_of(metric)] == [landmark for landmark, _ in answers]
    assert [score for _, _, score in answers_of(metric)] == pytest.approx([score for _, score in answers], abs=1e-5)
    for usage in ("public", "private"):
        rows = sorted(np.flatnonzero(task.measure.usages == usage).tolist(), key=lambda query: -answers[query][1])
        right = [answers[query][0] in task.measure.shown[query] for query in rows]
        expected = sum(sum(right[: n + 1]) / (n + 1) for n in range(len(rows)) if right[n])
        expected /= sum(bool(task.measure.shown[query]) for query in rows)
        assert found[usage]["map"] == pytest.approx(expected, abs=1e-9)
    assert metric.ranks.shape == (QUERIES, neighbours)


def test_a_skipped_query_has_no_answer_and_scores_zero(descriptors: Tensor) -> None:
    task = benchmark("GAP", 3)
    whole, metric = RetrievalMetric.of(task, DIM), RetrievalMetric.of(task, DIM)
    before = filled(whole, descriptors).compute()
    after = filled(metric, descriptors, skipped=(GALLERY, 2)).compute()
    assert [query for query, _, _ in answers_of(metric)] == list(range(1, QUERIES))
    assert (metric.ranks[0] == -1).all()
    assert after["public"]["map"] <= before["public"]["map"]
    retrieval = filled(RetrievalMetric.of(benchmark("mAP@100"), DIM), descriptors, skipped=(GALLERY,)).compute()
    assert retrieval["public"]["ap"][0] == 0


@pytest.mark.parametrize("measure", ["GAP", "mAP@100"])
def test_an_index_with_full_recall_changes_nothing(descriptors: Tensor, measure: str) -> None:
    task = benchmark(measure, 3)
    exact, metric = RetrievalMetric.of(task, DIM), RetrievalMetric.of(task, DIM, lambda: IVFFlatIndex(2, probes=2))
    expected, found = (filled(one, descriptors, skipped=(GALLERY, 2)).compute() for one in (exact, metric))
    assert metric.ranks.tolist() == exact.ranks.tolist()
    assert [answer[:2] for answer in answers_of(metric)] == [answer[:2] for answer in answers_of(exact)]
    for usage in ("public", "private"):
        assert found[usage]["map"] == expected[usage]["map"]
        np.testing.assert_array_equal(found[usage]["ap"], expected[usage]["ap"])


def test_missing_images_are_an_error(descriptors: Tensor) -> None:
    metric = RetrievalMetric.of(benchmark("mAP@100"), DIM)
    metric.update(descriptors[:50], torch.arange(50))
    with pytest.raises(UserError, match="2 of 52 images"):
        metric.compute()


def test_the_lower_landmark_wins_ties() -> None:
    assert voted(np.array([9, 4, 4, 9]), np.array([0.5, 0.25, 0.5, 0.25], np.float32)) == (4, 0.75)
