"""Whole evaluations against plain loops over the same descriptors."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, ExtractedFeatures, GroundTruth, LocalFeatures, Ranking, Shortlist
from dolglab.data.folder import folder_benchmark
from dolglab.errors import UserError
from dolglab.evaluation.evaluator import Evaluator, FeatureExtractor
from dolglab.extraction.descriptor_store import DescriptorStore, read_store
from dolglab.extraction.extract import Images
from dolglab.measures import revisited_evaluation
from dolglab.retrieval.adapter import Adapter, ApplyAdapter, write_adapter
from dolglab.retrieval.asmk import ASMK
from dolglab.retrieval.faiss_indexes import IVFFlatIndex
from dolglab.retrieval.pipeline import ORACLE, RetrievalPipeline
from dolglab.retrieval.query_expansion import AlphaQE
from dolglab.retrieval.whitening import Whitening

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*")


def normalised(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def benchmark(photos: Path) -> Benchmark:
    """Fifty gallery photos and ten queries, with easy, hard and junk images of the query's landmark."""
    found = folder_benchmark(photos)
    queries = np.arange(50, 60)
    rng = np.random.default_rng(0)
    parts = [np.split(rng.permutation(50)[:9], (3, 6)) for _ in queries]
    easy, hard, junk = (tuple(part[kind] for part in parts) for kind in range(3))
    return replace(
        found,
        num_gallery=50,
        queries=queries,
        boxes=np.full((10, 4), np.nan),
        ground_truth=GroundTruth(easy, hard, junk),
        difficulties=("easy", "medium", "hard"),
    )


@pytest.fixture(scope="module")
def table() -> NDArray[np.float32]:
    return normalised(np.random.default_rng(1).standard_normal((60, 16)))


@pytest.fixture
def given(tmp_path: Path, table: NDArray[np.float32]) -> Path:
    np.save(tmp_path / "theirs.npy", table)
    return tmp_path / "theirs.npy"


def evaluate(store: Path, benchmark: Benchmark, pipeline: RetrievalPipeline, **options: object) -> Ranking:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    extractor = FeatureExtractor(trainer, Images(), store, local=options.pop("local", None))
    ranking = Evaluator(extractor, pipeline, **options).run(benchmark)
    assert ranking is not None
    return ranking


def maps(ranking: Ranking) -> dict[str, float]:
    return {str(difficulty): scores["map"] for difficulty, scores in ranking.evaluation.items()}


def stage(ranking: Ranking, name: str) -> Any:
    return ranking.stages[name]


def expected(table: NDArray[np.float32], truth: GroundTruth) -> dict[Any, Any]:
    order = np.argsort(-(table[50:].astype(np.float64) @ table[:50].T), axis=1, kind="stable")
    return dict(revisited_evaluation(order, truth))


def test_external_descriptors_are_evaluated_by_the_same_protocol(
    tmp_path: Path, benchmark: Benchmark, table: NDArray[np.float32], given: Path
) -> None:
    ranking = evaluate(tmp_path, benchmark, RetrievalPipeline(), external=given)
    reference = expected(table, benchmark.ground_truth)
    assert maps(ranking) == pytest.approx({d: reference[d]["map"] for d in reference}, abs=1e-12)
    np.testing.assert_allclose(ranking.evaluation["hard"]["mp_at_k"], reference["hard"]["mp_at_k"])
    assert ranking.stages == {"descriptors": "from theirs.npy"}
    assert ranking.costs["image_bytes"] == 64
    assert ranking.curves["medium"].shape == (101,)
    assert ranking.before is None


def test_an_exhaustive_index_gives_exact_figures_and_is_described(
    tmp_path: Path, benchmark: Benchmark, given: Path
) -> None:
    exact = evaluate(tmp_path, benchmark, RetrievalPipeline(), external=given)
    whole = evaluate(
        tmp_path, benchmark, RetrievalPipeline(index=lambda: IVFFlatIndex(lists=4, probes=4)), external=given
    )
    assert maps(whole) == pytest.approx(maps(exact), abs=1e-12)
    assert stage(whole, "index")["recall@10"] == 1
    assert any("lower bound" in note for note in whole.notes)
    narrow = evaluate(
        tmp_path, benchmark, RetrievalPipeline(index=lambda: IVFFlatIndex(lists=4, probes=1)), external=given
    )
    assert stage(narrow, "index")["recall@10"] < 1
    assert maps(narrow)["medium"] < maps(exact)["medium"]


def test_steps_run_in_order_and_are_learned_on_other_images(
    tmp_path: Path, benchmark: Benchmark, photos: Path, table: NDArray[np.float32], given: Path
) -> None:
    other = replace(benchmark, name="other", digest="another set")
    steps = {"whitening": Whitening(dim=4, shrink=0.1), "alpha_qe": AlphaQE(neighbours=3)}
    ranking = evaluate(tmp_path, benchmark, RetrievalPipeline(post=steps), external=given, learn_on=other)
    by_hand = Whitening(dim=4, shrink=0.1)
    by_hand.learn(table, np.empty((0, 2), np.int64), "other", "another set")
    gallery, queries = AlphaQE(neighbours=3)(*by_hand(table[:50], table[50:]))
    reference = expected(np.concatenate([gallery, queries]), benchmark.ground_truth)
    assert maps(ranking) == pytest.approx({d: reference[d]["map"] for d in reference}, abs=1e-12)
    assert [step.get("learned_on") for step in stage(ranking, "post")] == ["other", None]
    assert ranking.notes == ()
    RetrievalPipeline(post=steps).save(tmp_path)
    again = {"whitening": Whitening(matrix=tmp_path / "whitening.safetensors")}
    assert again["whitening"].learned_on == ("other", "another set")


def test_adapted_descriptors_are_ranked_and_the_card_names_the_adapter(
    tmp_path: Path, benchmark: Benchmark, table: NDArray[np.float32], given: Path
) -> None:
    adapter = Adapter(table[:4], table[5, :4], "a network", {"labels": "column landmark"})
    steps = {"adapter": ApplyAdapter(write_adapter(tmp_path / "adapter.safetensors", adapter))}
    ranking = evaluate(tmp_path, benchmark, RetrievalPipeline(post=steps), external=given)
    reference = expected(adapter(table), benchmark.ground_truth)
    assert maps(ranking) == pytest.approx({d: reference[d]["map"] for d in reference}, abs=1e-12)
    assert stage(ranking, "post") == [{"adapter": adapter.fingerprint, "dim": 4, "learned_on": "column landmark"}]
    assert any("adapter" in note for note in ranking.notes)


def test_what_was_learned_on_the_tested_set_is_labelled(tmp_path: Path, benchmark: Benchmark, given: Path) -> None:
    steps = {"whitening": Whitening(shrink=0.1)}
    ranking = evaluate(tmp_path, benchmark, RetrievalPipeline(post=steps), external=given, learn_on=benchmark)
    assert ranking.notes == ("whitening learned on this set",)
    with pytest.raises(UserError, match=r"post\.whitening\.matrix=FILE"):
        evaluate(tmp_path, benchmark, RetrievalPipeline(post={"whitening": Whitening()}), external=given)


class Worst:
    """Reverses a shortlist."""

    local = False

    def __init__(self, depth: int) -> None:
        self.depth = depth

    def __call__(self, shortlist: Shortlist) -> NDArray[np.int64]:
        assert (np.diff(shortlist.scores) <= 0).all()
        np.testing.assert_allclose(shortlist.descriptors @ shortlist.query_descriptor, shortlist.scores, atol=1e-6)
        return np.arange(len(shortlist))[::-1]

    def config(self) -> dict[str, object]:
        return {"rerank": "worst", "depth": self.depth}


def test_a_reranker_reorders_the_first_answers(
    tmp_path: Path, benchmark: Benchmark, table: NDArray[np.float32], given: Path
) -> None:
    ranking = evaluate(tmp_path, benchmark, RetrievalPipeline(rerank=Worst(7)), external=given)
    order = np.argsort(-(table[50:].astype(np.float64) @ table[:50].T), axis=1, kind="stable")
    turned = np.concatenate([order[:, :7][:, ::-1], order[:, 7:]], axis=1)
    reference = revisited_evaluation(turned, benchmark.ground_truth)
    assert maps(ranking) == pytest.approx({d: reference[d]["map"] for d in reference}, abs=1e-12)
    np.testing.assert_array_equal(ranking.top, turned)
    np.testing.assert_array_equal(ranking.before, order)


def test_an_oracles_shortlist_has_no_junk_and_is_labelled(
    tmp_path: Path, benchmark: Benchmark, table: NDArray[np.float32], given: Path
) -> None:
    ranking = evaluate(tmp_path, benchmark, RetrievalPipeline(rerank=Worst(7), oracle=True), external=given)
    truth = benchmark.ground_truth
    order = np.argsort(-(table[50:].astype(np.float64) @ table[:50].T), axis=1, kind="stable")
    for difficulty, ignored in (("medium", [truth.junk]), ("hard", [truth.junk, truth.easy])):
        clean = [
            row[~np.isin(row, np.concatenate([part[query] for part in ignored]))] for query, row in enumerate(order)
        ]
        turned = np.stack([np.concatenate([row[:7][::-1], row[7:]]) for row in clean])
        reference = revisited_evaluation(turned, truth)
        assert maps(ranking)[difficulty] == pytest.approx(reference[difficulty]["map"], abs=1e-12)
    assert ranking.notes == (ORACLE,)


class Words:
    """Local features of each photo: three of its landmark, and two unrelated ones."""

    model = None
    needs_network = False

    def __call__(self, images: list[torch.Tensor]) -> list[LocalFeatures]:
        return [self.of(image) for image in images]

    def of(self, image: torch.Tensor) -> LocalFeatures:
        seed = int(image.float().mean())
        own = np.random.default_rng(int(image[::30, ::30].float().std()))
        rows = np.concatenate([own.standard_normal((3, 32)), np.random.default_rng(seed).standard_normal((2, 32))])
        points = np.zeros((5, 2), np.float32)
        return LocalFeatures(points, points[:, 0], points[:, 0], normalised(rows), (96, 112))

    def config(self) -> dict[str, object]:
        return {"features": "words"}


def test_aggregated_local_features_rank_the_whole_gallery(tmp_path: Path, benchmark: Benchmark) -> None:
    method = RetrievalPipeline(aggregate=ASMK(words=16, dim=32))
    other = replace(benchmark, name="other", digest="another set")
    ranking = evaluate(tmp_path, benchmark, method, local=Words(), learn_on=other)
    by_hand = ASMK(words=16, dim=32)
    images = [Words().of(Images().of(benchmark).__getitems__([i]).images[0]).descriptors for i in range(60)]
    by_hand.learn(iter(images), "other", "another set")
    by_hand.build(enumerate(images[:50]))
    order = np.stack([by_hand.rank(query, 50)[0] for query in images[50:]])
    np.testing.assert_array_equal(ranking.top, order)
    assert ranking.costs["image_bytes"] == by_hand.bytes_per_image
    assert stage(ranking, "features") == {"features": "words"}
    assert stage(ranking, "aggregate")["learned_on"] == "other"
    with pytest.raises(UserError, match="features=rootsift"):
        evaluate(tmp_path, benchmark, method, learn_on=other)


def test_images_without_local_features_are_in_no_aggregated_ranking(benchmark: Benchmark) -> None:
    rows = {i: Words().of(Images().of(benchmark).__getitems__([i]).images[0]) for i in range(60)}
    aggregate = ASMK(words=16, dim=32)
    aggregate.learn((rows[i].descriptors for i in range(60)), "other", "another set")
    known = np.ones(60, np.bool_)
    known[[3, 55]] = False
    features = ExtractedFeatures(known, features=rows.__getitem__)
    found = RetrievalPipeline(aggregate=aggregate).search(features, benchmark).ranked
    assert 3 not in found.top_k
    assert (found.top_k[5] == -1).all()
    for labelled, ranks in zip(found.ground_truth_ids, found.ranks, strict=True):
        assert (ranks[labelled == 3] == -1).all()
    assert (np.concatenate(found.ranks[:5]) >= 0).any()


def test_a_stored_set_must_be_complete_and_of_these_images(tmp_path: Path, benchmark: Benchmark) -> None:
    about = {"benchmark": benchmark.name, "digest": benchmark.digest, "model": "one"}
    DescriptorStore.create(tmp_path / "kept", 60, 16, about)
    given = tmp_path / "kept"
    with pytest.raises(UserError, match="60 of 60"):
        evaluate(tmp_path, benchmark, RetrievalPipeline(), external=given)
    with pytest.raises(UserError, match=r"of other.s images"):
        evaluate(tmp_path, replace(benchmark, name="other", digest="another set"), RetrievalPipeline(), external=given)
    with pytest.raises(UserError, match=re.escape(str(given))):
        read_store(given, benchmark, "two")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"oracle": True}, "oracle=true"),
        ({"aggregate": True, "post": {"alpha_qe": AlphaQE()}}, r"post=\.\.\. and index=\.\.\."),
        ({"aggregate": True, "rerank": Worst(3)}, "rerank=spatial"),
    ],
)
def test_conflicting_parts_are_refused(parts: dict, message: str) -> None:
    if parts.get("aggregate"):
        parts = parts | {"aggregate": ASMK()}
    with pytest.raises(UserError, match=message):
        RetrievalPipeline(**parts)
