"""The Revisited protocol compared with stored reference values, a plain loop, and hand-made lists."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dolglab.contracts import DIFFICULTIES, GroundTruth
from dolglab.data.revisited import load_ground_truth
from dolglab.errors import UserError
from dolglab.measures import (
    RevisitedMeasure,
    ground_truth_ids_of,
    ignored_of,
    positive_counts,
    positive_ranks,
    revisited_evaluation,
)
from dolglab.retrieval.faiss_indexes import IVFFlatIndex
from dolglab.retrieval.index import FlatIndex
from dolglab.retrieval.map_metric import RevisitedMAP
from dolglab.retrieval.ranking import listed_ranking
from warm_python import run_ranks


def lists(*parts: list[int]) -> tuple[np.ndarray, ...]:
    return tuple(np.array(part, np.int64) for part in parts)


@pytest.mark.parametrize("name", ["roxford5k", "rparis6k"])
def test_equals_the_reference(name: str, parity: Path) -> None:
    truth = load_ground_truth(parity / "revisited" / f"gnd_{name}.pkl").ground_truth
    expected = np.load(parity / "revisited" / "expected_seed0.npz")
    size = {"roxford5k": 4993, "rparis6k": 6322}[name]
    scores = np.random.default_rng([0, size]).standard_normal((70, size)).astype(np.float32)
    for query in range(70):
        scores[query, truth.easy[query]] += np.float32(2.5)
        scores[query, truth.hard[query]] += np.float32(1.2)
        scores[query, truth.junk[query]] += np.float32(1.8)
    result = revisited_evaluation(np.argsort(-scores, axis=1, kind="stable"), truth)
    for difficulty in DIFFICULTIES:
        stored = {key: expected[f"{name}/{difficulty}/{key}"] for key in ("map", "ap", "mp_at_1_5_10")}
        assert result[difficulty]["map"] == pytest.approx(float(stored["map"]), abs=1e-9)
        np.testing.assert_allclose(result[difficulty]["ap"], stored["ap"], atol=1e-9)
        np.testing.assert_allclose(result[difficulty]["mp_at_k"], stored["mp_at_1_5_10"], atol=1e-9)


def loop(ranked: list[int], positives: set[int], ignored: set[int], kappas: list[int]) -> tuple[float, list[float]]:
    """The protocol in its simplest form: walk down the list, and skip ignored images."""
    ap, seen, found, hits = 0.0, 0, 0, []
    for image in ranked:
        if image in ignored:
            continue
        if image in positives:
            before = found / seen if seen else 1.0
            found += 1
            ap += (before + found / (seen + 1)) / 2
            hits.append(seen + 1)
        seen += 1
    precision = [sum(h <= min(k, hits[-1]) for h in hits) / min(k, hits[-1]) if hits else 0.0 for k in kappas]
    return ap / len(positives), precision


@settings(derandomize=True, deadline=None, max_examples=60)
@given(data=st.data())
def test_figures_equal_a_loop_over_the_list(data: st.DataObject) -> None:
    size = data.draw(st.integers(3, 40))
    kind = data.draw(st.lists(st.sampled_from("ehjn"), min_size=size, max_size=size))
    if not set(kind) & {"e", "h"}:
        kind[0] = "e"
    ranked = data.draw(st.permutations(range(size)))[: data.draw(st.integers(1, size))]
    of = {letter: [i for i, k in enumerate(kind) if k == letter] for letter in "ehjn"}
    truth = GroundTruth(lists(of["e"]), lists(of["h"]), lists(of["j"]))
    result = revisited_evaluation(np.array([ranked]), truth, kappas=(1, 3))
    cases = {
        "easy": (of["e"], of["h"] + of["j"]),
        "medium": (of["e"] + of["h"], of["j"]),
        "hard": (of["h"], of["e"] + of["j"]),
    }
    for difficulty in DIFFICULTIES:
        positives, ignored = cases[difficulty]
        scores = result[difficulty]
        if not positives:
            assert np.isnan(scores["map"])
            continue
        ap, precision = loop(ranked, set(positives), set(ignored), [1, 3])
        assert scores["map"] == pytest.approx(ap, abs=1e-12)
        np.testing.assert_allclose(scores["mp_at_k"], precision)


def test_a_query_without_positives_is_left_out_of_the_mean() -> None:
    truth = GroundTruth(easy=lists([0], []), hard=lists([], [1]), junk=lists([], []))
    easy = revisited_evaluation(np.array([[0, 1, 2], [0, 1, 2]]), truth)["easy"]
    assert easy["map"] == 1.0
    assert np.isnan(easy["ap"][1])


def test_a_different_number_of_queries_is_refused() -> None:
    with pytest.raises(UserError, match=r"\b1 .*\b2 queries"):
        revisited_evaluation(np.zeros((1, 3), np.int64), GroundTruth(lists([], []), lists([], []), lists([], [])))


def test_a_ranking_that_names_an_image_twice_is_refused() -> None:
    truth = GroundTruth(easy=lists([0], [0]), hard=lists([], []), junk=lists([], []))
    with pytest.raises(UserError, match=r"query 1 .*image 2 2 times"):
        revisited_evaluation(np.array([[2, 1, 0], [2, 2, 0]]), truth)
    scores = np.zeros(3, np.float32)
    with pytest.raises(UserError, match=r"query 1 .*image 5 3 times"):
        listed_ranking([(np.array([0, 1, 2]), scores), (np.array([5, 5, 5]), scores)], ground_truth_ids_of(truth), 2)
    # -1 may occur more than once.
    unfound = revisited_evaluation(np.array([[1, -1, -1], [0, -1, -1]]), truth)
    assert unfound["easy"]["ap"].tolist() == [0.0, 1.0]


@settings(derandomize=True, deadline=None, max_examples=30)
@given(data=st.data())
def test_ranks_of_labelled_images_are_enough(data: st.DataObject) -> None:
    size, asked = data.draw(st.integers(3, 40)), data.draw(st.integers(1, 4))
    kinds = [data.draw(st.lists(st.sampled_from("ehjn"), min_size=size, max_size=size)) for _ in range(asked)]
    rankings = [data.draw(st.permutations(range(size)))[: data.draw(st.integers(0, size))] for _ in kinds]
    of = {letter: lists(*([i for i, k in enumerate(kind) if k == letter] for kind in kinds)) for letter in "ehjn"}
    truth = GroundTruth(of["e"], of["h"], of["j"])
    found = [(np.array(ranking, np.int64), np.zeros(len(ranking), np.float32)) for ranking in rankings]
    ranked = listed_ranking(found, ground_truth_ids_of(truth), 1)
    measure = RevisitedMeasure((1, 4))
    result = measure.figures(truth, dict.fromkeys(DIFFICULTIES, ranked)).evaluation
    for query, ranking in enumerate(rankings):
        one = GroundTruth(truth.easy[query : query + 1], truth.hard[query : query + 1], truth.junk[query : query + 1])
        alone = revisited_evaluation(np.array([ranking], np.int64), one, (1, 4))
        for difficulty in DIFFICULTIES:
            np.testing.assert_array_equal(result[difficulty]["ap"][query], alone[difficulty]["ap"][0])
    for difficulty in DIFFICULTIES:
        scores = measure.figures(truth, {difficulty: ranked}).evaluation[difficulty]
        for figure in ("map", "ap", "mp_at_k"):
            np.testing.assert_array_equal(result[difficulty][figure], scores[figure])


def test_ignored_images_take_no_rank() -> None:
    truth = GroundTruth(easy=lists([4], []), hard=lists([1, 9], []), junk=lists([7, 0], [3]))
    ranking = (np.array([7, 4, 2, 1, 0, 5]), np.zeros(6, np.float32))
    ranked = listed_ranking([ranking, ranking], ground_truth_ids_of(truth), 3)
    expected = {"easy": ([[0], []], [1, 0]), "medium": ([[0, 2], []], [3, 0]), "hard": ([[1], []], [2, 0])}
    for difficulty in DIFFICULTIES:
        ranks, counts = expected[difficulty]
        assert [own.tolist() for own in positive_ranks(difficulty, ranked, truth)] == ranks
        assert positive_counts(difficulty, truth) == counts
    assert [own.tolist() for own in ignored_of("hard", truth)] == [[4, 7, 0], [3]]


def test_rankings_for_another_ground_truth_are_refused() -> None:
    truth = GroundTruth(easy=lists([4]), hard=lists([1]), junk=lists([]))
    other = GroundTruth(easy=lists([4]), hard=lists([2]), junk=lists([]))
    ranked = listed_ranking([(np.arange(5), np.zeros(5, np.float32))], ground_truth_ids_of(truth), 3)
    with pytest.raises(ValueError, match="ground truth"):
        RevisitedMeasure().figures(other, {"medium": ranked})


@pytest.fixture
def world() -> tuple[GroundTruth, torch.Tensor, np.ndarray]:
    """Eight gallery images and two queries, with descriptors that rank them imperfectly."""
    generator = torch.Generator().manual_seed(5)
    descriptors = torch.nn.functional.normalize(torch.randn(10, 6, generator=generator))
    truth = GroundTruth(easy=lists([0, 3], [5]), hard=lists([4], [6, 7]), junk=lists([1], []))
    return truth, descriptors, np.array([8, 9])


def expected(truth: GroundTruth, descriptors: torch.Tensor) -> dict:
    scores = (descriptors[8:] @ descriptors[:8].T).numpy()
    return revisited_evaluation(np.argsort(-scores, axis=1, kind="stable"), truth)


def test_order_and_repetition_of_updates_do_not_matter(world) -> None:
    truth, descriptors, queries = world
    metric = RevisitedMAP(truth, 8, queries, 6)
    for rows in ([9, 2, 2], [0, 1, 3, 9], [8, 7, 6, 5, 4, 0]):
        metric.update(descriptors[rows], torch.tensor(rows))
    result = metric.compute()
    for difficulty in DIFFICULTIES:
        assert result[difficulty]["map"] == pytest.approx(expected(truth, descriptors)[difficulty]["map"], abs=1e-12)
    assert metric.ranks.shape == (2, 8)


def test_reset_clears_the_state(world) -> None:
    truth, descriptors, queries = world
    metric = RevisitedMAP(truth, 8, queries, 6)
    metric.update(descriptors, torch.arange(10))
    metric.compute()
    metric.reset()
    metric.update(descriptors[:1], torch.arange(1))
    with pytest.raises(UserError, match="9 of 10 images"):
        metric.compute()


def test_queries_may_be_in_the_gallery() -> None:
    descriptors = torch.nn.functional.normalize(torch.randn(4, 6))
    truth = GroundTruth(easy=lists([1], [0]), hard=lists([], []), junk=lists([0], [1]))
    metric = RevisitedMAP(truth, 4, np.array([0, 1]), 6)
    metric.update(descriptors, torch.arange(4))
    assert metric.compute()["medium"]["map"] > 0
    assert (metric.ranks[:, 0] == [0, 1]).all()


def test_skipped_images_are_not_found(world) -> None:
    truth, descriptors, queries = world
    metric = RevisitedMAP(truth, 8, queries, 6)
    kept = torch.tensor([0, 1, 2, 4, 5, 6, 7, 8, 9])
    metric.update(descriptors[kept], kept)
    metric.skip(torch.tensor([3]))
    result = metric.compute()
    assert metric.ranks[0, -1] == -1
    assert 3 not in metric.ranks
    assert result["easy"]["ap"][0] <= 0.5

    metric = RevisitedMAP(truth, 8, queries, 6)
    metric.update(descriptors[:9], torch.arange(9))
    metric.skip(torch.tensor([9]))
    assert metric.compute()["medium"]["ap"][1] == 0


def test_chunks_and_the_kept_head_do_not_change_the_result(world) -> None:
    truth, descriptors, queries = world
    metric = RevisitedMAP(truth, 8, queries, 6, top=3, batches_per_message=2)
    for rows in torch.arange(10).split(3):
        metric.update(descriptors[rows], rows)
    result = metric.compute()
    for difficulty in DIFFICULTIES:
        np.testing.assert_allclose(result[difficulty]["ap"], expected(truth, descriptors)[difficulty]["ap"])
    scores = (descriptors[8:] @ descriptors[:8].T).numpy()
    assert metric.ranks.tolist() == np.argsort(-scores, axis=1)[:, :3].tolist()


def test_positives_missed_by_an_approximate_index_count_as_not_found(world) -> None:
    truth, descriptors, queries = world
    exact, whole, shallow = (
        RevisitedMAP(truth, 8, queries, 6, index)
        for index in (FlatIndex, lambda: IVFFlatIndex(2, probes=2), lambda: IVFFlatIndex(2, probes=2, depth=2))
    )
    kept = torch.tensor([0, 1, 2, 4, 5, 6, 7, 8, 9])
    results = []
    for metric in (exact, whole, shallow):
        metric.update(descriptors[kept], kept)
        metric.skip(torch.tensor([3]))
        results.append(metric.compute())
    assert whole.ranks.tolist() == exact.ranks.tolist()
    assert shallow.ranks.tolist() == [[*row[:2], *[-1] * 6] for row in exact.ranks.tolist()]
    for difficulty in DIFFICULTIES:
        np.testing.assert_array_equal(results[1][difficulty]["ap"], results[0][difficulty]["ap"])
    scores = (descriptors[8:] @ descriptors[kept[:7]].T).numpy()
    found = kept.numpy()[np.argsort(-scores, axis=1)[:, :2]]
    assert results[2]["medium"]["map"] == revisited_evaluation(found, truth)["medium"]["map"]


def test_without_readable_queries_nothing_is_found(world) -> None:
    truth, descriptors, queries = world
    metric = RevisitedMAP(truth, 8, queries, 6)
    metric.update(descriptors[:8], torch.arange(8))
    metric.skip(torch.tensor([8, 9]))
    assert metric.compute()["medium"]["map"] == 0


def test_equal_descriptors_rank_in_gallery_order() -> None:
    same = torch.nn.functional.normalize(torch.ones(6, 4))
    truth = GroundTruth(easy=lists([3]), hard=lists([]), junk=lists([]))
    metric = RevisitedMAP(truth, 5, np.array([5]), 4)
    metric.update(same, torch.arange(6))
    metric.compute()
    assert metric.ranks.tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize(("position", "role"), [(2, "gallery"), (9, "query")])
def test_a_descriptor_that_is_not_finite_is_refused(world, position: int, role: str) -> None:
    truth, descriptors, queries = world
    metric = RevisitedMAP(truth, 8, queries, 6)
    metric.update(descriptors.index_fill(0, torch.tensor([position]), float("nan")), torch.arange(10))
    with pytest.raises(UserError, match=role):
        metric.compute()


SCRIPT = """
import json, sys
import numpy as np, torch, torch.distributed as dist
from dolglab.contracts import GroundTruth
from dolglab.errors import UserError
from dolglab.retrieval.map_metric import RevisitedMAP
rank, init = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method="file://" + init, rank=rank, world_size=2)
a = lambda *parts: tuple(np.array(p, np.int64) for p in parts)
truth = GroundTruth(a([0, 3], [5]), a([4], [6, 7]), a([1], []))
x = torch.nn.functional.normalize(torch.randn(10, 6, generator=torch.Generator().manual_seed(5)))
metric, said = RevisitedMAP(truth, 8, np.array([8, 9]), 6), []
for shares, skipped in json.loads(sys.argv[3]):
    metric.reset()
    for rows in torch.tensor(shares[rank], dtype=torch.int64).split(2):
        metric.update(x[rows], rows)
    if rank:
        metric.skip(torch.tensor(skipped, dtype=torch.int64))
    try:
        result = metric.compute()
        ranks = [own.tolist() for own in metric.ranked.ranks]
        said.append([{d: result[d]["map"] for d in result}, metric.ranks.tolist(), ranks])
    except UserError as error:
        said.append(str(error))
print(json.dumps(said), flush=True)
dist.destroy_process_group()
"""


@pytest.mark.process
def test_two_processes_equal_one(tmp_path: Path, world) -> None:
    truth, descriptors, queries = world
    metric = RevisitedMAP(truth, 8, queries, 6)
    kept = torch.tensor([0, 1, 3, 4, 5, 6, 7, 8, 9])
    metric.update(descriptors[kept], kept)
    metric.skip(torch.tensor([2]))
    single = metric.compute()
    assert metric.ranked is not None
    one = [
        {d: single[d]["map"] for d in DIFFICULTIES},
        metric.ranks.tolist(),
        [r.tolist() for r in metric.ranked.ranks],
    ]
    cases = [
        (([0, 1, 3, 4, 9], [5, 6, 7, 8, 8, 0]), [2]),
        (([0, 1, 3, 4, 9, 5, 6, 7, 8], []), [2]),
        (([0, 1, 3, 4, 9], [5, 6, 7, 8]), []),
    ]
    for said in run_ranks(SCRIPT, str(tmp_path / "init"), json.dumps(cases)):
        assert json.loads(said) == [one, one, "1 of 10 images have no descriptor (first: position 2)"]
