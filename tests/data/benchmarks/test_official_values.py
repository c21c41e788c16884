"""Every measure agrees with the official evaluators: ../shared/parity/benchmarks, see its README."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dolglab.contracts import Figures, GroundTruth, IntArray, Measure, Ranked
from dolglab.data.benchmarks.disc21 import CopyMeasure, copy_figures
from dolglab.data.benchmarks.holidays import groups_of
from dolglab.data.benchmarks.ilias import ILIASMeasure, instance_of, read_taxonomy
from dolglab.data.benchmarks.instre import SUBSETS, read_ground_truth
from dolglab.data.benchmarks.met import NEIGHBOURS, NO_EXHIBIT, TEMPERATURES, MetMeasure, classify, read_listed
from dolglab.data.benchmarks.places import PlaceMeasure, utm_of, within
from dolglab.data.benchmarks.products import ProductMeasure
from dolglab.measures import GroupedAveragePrecision
from dolglab.retrieval.ranking import exact_ranking, listed_ranking
from dolglab.retrieval.whitening import Whitening

EXACT = {"rel": 0, "abs": 1e-9}
NOTHING = np.empty(0, np.int64)


@pytest.fixture(scope="module")
def folder(parity: Path) -> Path:
    return parity / "benchmarks"


def read(folder: Path, name: str) -> tuple[Path, dict[str, Any], Mapping[str, NDArray[np.float32]]]:
    home = folder / name
    descriptors = home / "descriptors.npz"
    return (
        home,
        json.loads((home / "expected.json").read_text()),
        np.load(descriptors) if descriptors.exists() else {},
    )


def truth_of(positives: Sequence[IntArray], junk: Sequence[IntArray] | None = None) -> GroundTruth:
    none = (NOTHING,) * len(positives)
    return GroundTruth(tuple(positives), none, none if junk is None else tuple(junk))


def ranked_by(
    gallery: NDArray[np.float32], queries: NDArray[np.float32], truth: GroundTruth, measure: Measure
) -> Ranked:
    """Rank as in an evaluation: to the depth of the measure, with the ranks that it needs."""
    return exact_ranking(gallery, queries, measure.ground_truth_ids(truth), min(len(gallery), max(100, measure.depth)))


def values(figures: Figures) -> dict[str, float]:
    return {name: scores["map"] for name, scores in figures.evaluation.items()}


class TestILIAS:
    @pytest.fixture
    def lists(self, folder: Path) -> tuple[list[str], list[tuple[str, float, float]], list[str], list[str]]:
        home = folder / "ilias" / "image_ids"
        positives = [line.split(",") for line in (home / "positive_ids.txt").read_text().split()]
        distractors = gzip.decompress((home / "distractor_ids.txt.gz").read_bytes()).decode().split()
        mini = (home / "mini_ilias_yfcc100m_ids.txt").read_text().split()
        queries = [line.split(",")[0] for line in (home / "image_query_ids.txt").read_text().split()]
        return queries, [(name, float(s), float(c)) for name, s, c in positives], distractors, mini

    def measure(self, folder: Path, queries: list[str], positives: list, k: int) -> tuple[ILIASMeasure, GroundTruth]:
        known = read_taxonomy(folder / "ilias" / "misc" / "taxonomy.json")
        names = np.array([instance_of(name) for name, _, _ in positives])
        instances = np.array([instance_of(query) for query in queries])
        truth = truth_of([np.flatnonzero(names == instance) for instance in instances])
        categories = np.array([known[instance] for instance in instances.tolist()])
        scale, clutter = (np.array([row[column] for row in positives]) for column in (1, 2))
        return ILIASMeasure(instances, scale, clutter, max(map(len, truth.easy)), categories, k), truth

    @pytest.mark.parametrize("kind", ["image", "text"])
    @pytest.mark.parametrize("k", [1000, 100, 10, 5])
    def test_lists(self, folder: Path, lists: Any, kind: str, k: int) -> None:
        """Truncated lists, queries without answers, unsorted lists, objects that are not found."""
        home, expected, _ = read(folder, "ilias")
        expected = expected[f"lists_{kind}_k{k}"]
        images, positives, distractors, _ = lists
        queries = images if kind == "image" else (home / "image_ids" / "text_query_ids.txt").read_text().split()
        measure, truth = self.measure(folder, queries, positives, k)
        place = {name: row for row, name in enumerate([*(name for name, _, _ in positives), *distractors])}
        answers = json.loads((home / f"similarities_{kind}.json").read_text())
        found = []
        for query in queries:
            names, scores = map(list, zip(*answers[query].items(), strict=True)) if query in answers else ([], [])
            order = np.argsort(-np.array(scores), kind="stable").astype(np.int64)
            positions = np.array([place[name] for name in names], np.int64)
            found.append((positions[order], np.array(scores, np.float32)[order]))
        ranked = listed_ranking(found, (NOTHING,) * len(queries), measure.depth)
        evaluation = measure.figures(truth, {"all": ranked}).evaluation
        ap = {q: 100 * v for q, v in zip(queries, evaluation["all"]["ap"].tolist(), strict=True) if np.isfinite(v)}
        assert ap == pytest.approx(expected["aps"], **EXACT)
        assert len(ap) == expected["queries"]
        assert 100 * evaluation["all"]["map"] == pytest.approx(expected["map"], **EXACT)
        for group in ("categories", "subcategories", "scale", "clutter"):
            for name, value in expected.get(group, {}).items():
                assert 100 * evaluation[self.name_of(group, name)]["map"] == pytest.approx(value, **EXACT)
                own = evaluation[self.name_of(group, name)]["ap"]
                assert 100 * np.nanmean(own) == pytest.approx(value, **EXACT)

    def name_of(self, group: str, name: str) -> str:
        if group in ("scale", "clutter"):
            return f"{group} {'-'.join(f'{float(bound):.4g}' for bound in name.split('-'))}"
        return name

    @pytest.mark.parametrize("kind", ["image", "text"])
    @pytest.mark.parametrize("variant", ["all", "mini"])
    @pytest.mark.parametrize("k", [1000, 100])
    def test_descriptors(self, folder: Path, lists: Any, kind: str, variant: str, k: int) -> None:
        home, expected, stored = read(folder, "ilias")
        images, positives, distractors, mini = lists
        queries = images if kind == "image" else (home / "image_ids" / "text_query_ids.txt").read_text().split()
        measure, truth = self.measure(folder, queries, positives, k)
        kept = [row for row, name in enumerate(distractors) if variant == "all" or name.split("/")[1] in mini]
        gallery = np.concatenate([stored["positives"], stored["distractors"][kept]])
        ranked = ranked_by(gallery, stored[f"{kind}_queries"], truth, measure)
        evaluation = measure.figures(truth, {"all": ranked}).evaluation
        wanted = expected[f"descriptors_{kind}_{variant}_k{k}"]
        assert 100 * evaluation["all"]["map"] == pytest.approx(wanted["map"], **EXACT)
        ap = dict(zip(queries, (100 * evaluation["all"]["ap"]).tolist(), strict=True))
        assert ap == pytest.approx(wanted.get("aps", ap), **EXACT)


class TestMet:
    @pytest.mark.parametrize("made", ["raw_K1_t1", "raw_K3_t10", "raw_K7_t30", "pcaw16_K1_t1", "pcaw16_K5_t15"])
    def test_one_classifier(self, folder: Path, made: str) -> None:
        home, expected, stored = read(folder, "met")
        kind, k, t = made.split("_")
        train, test = stored["train"], stored["test"]
        if kind != "raw":
            whitening = Whitening(kind="pca", dim=16)
            whitening.learn(train, np.empty((0, 2), np.int64), "database", "")
            assert whitening.learned is not None
            train, test = whitening.learned(train), whitening.learned(test)
        labels, asked = self.labels(home, "MET_database", "id"), self.labels(home, "testset", "MET_id")
        measure = MetMeasure(labels, asked, len(asked), [(int(k[1:]), float(t[1:]))])
        truth = truth_of([np.flatnonzero(labels == label) for label in asked])
        figures = measure.figures(truth, {"GAP": ranked_by(train, test, truth, measure)})
        wanted = {name: expected[made][name] for name in ("GAP", "GAP-", "ACC")}
        assert values(figures) == pytest.approx(wanted, **EXACT)
        assert [label for _, label, _ in figures.answers] == expected[made]["predictions"]
        confidences = [sure for _, _, sure in figures.answers]
        np.testing.assert_allclose(confidences, expected[made]["confidences"], rtol=0, atol=1e-5)

    def test_the_best_classifier_on_validation_is_used(self, folder: Path) -> None:
        home, expected, stored = read(folder, "met")
        wanted = expected["tuned_on_val_raw"]
        labels = self.labels(home, "MET_database", "id")
        test, validation = (self.labels(home, name, "MET_id") for name in ("testset", "valset"))
        asked = np.concatenate([test, validation])
        grid = [(k, t) for k in NEIGHBOURS for t in TEMPERATURES]
        measure = MetMeasure(labels, asked, len(test), grid)
        truth = truth_of([np.flatnonzero(labels == label) for label in asked])
        queries = np.concatenate([stored["test"], stored["val"]])
        ranked = ranked_by(stored["train"], queries, truth, measure)
        assert measure.chosen(ranked) == (wanted["K"], wanted["t"])
        (note,) = measure.figures(truth, {"GAP": ranked}).notes
        assert f"K {wanted['K']}, temperature {wanted['t']:g}" in note
        alone = MetMeasure(labels, validation, len(validation), [(wanted["K"], wanted["t"])])
        own = truth_of(truth.easy[len(test) :])
        figures = alone.figures(own, {"GAP": ranked_by(stored["train"], stored["val"], own, alone)})
        assert values(figures)["GAP"] == pytest.approx(wanted["best_val_GAP"], **EXACT)

    def labels(self, home: Path, name: str, key: str) -> IntArray:
        return np.array([label for _, label in read_listed(home / f"{name}.json", key, optional=key != "id")])


class TestHolidays:
    def measured(self, ranked: Ranked, truth: GroundTruth) -> float:
        measure = GroupedAveragePrecision(["all"], np.ones((1, len(truth)), np.bool_))
        return values(measure.figures(truth, {"all": ranked}))["all"]

    def truth(self, home: Path) -> tuple[list[str], IntArray, GroundTruth]:
        names = (home / "holidays_images.dat").read_text().split()
        queries, positives = groups_of(names, home)
        return names, queries, truth_of(positives, [queries[row : row + 1] for row in range(len(queries))])

    def test_descriptors(self, folder: Path) -> None:
        home, expected, stored = read(folder, "holidays")
        _, queries, truth = self.truth(home)
        (descriptors,) = stored.values()
        measure = GroupedAveragePrecision(["all"], np.ones((1, len(queries)), np.bool_))
        ranked = ranked_by(descriptors, descriptors[queries], truth, measure)
        assert self.measured(ranked, truth) == pytest.approx(expected["descriptors_map"], **EXACT)

    def test_lists_of_results(self, folder: Path) -> None:
        """Ranks with gaps and unsorted, queries missing from their own list, lists without positives."""
        home, expected, _ = read(folder, "holidays")
        names, queries, truth = self.truth(home)
        place = {name: row for row, name in enumerate(names)}
        lists = {line.split()[0]: line.split()[1:] for line in (home / "results_lists.dat").read_text().splitlines()}
        wanted = GroupedAveragePrecision([], np.empty((0, len(truth)), np.bool_)).ground_truth_ids(truth)
        ranks = []
        for query, own in zip(queries.tolist(), wanted, strict=True):
            row = lists[names[query]]
            written = {place[name]: int(rank) for rank, name in zip(row[::2], row[1::2], strict=True)}
            ranks.append(np.array([written.get(position, -1) for position in own.tolist()], np.int64))
        heads = np.full((len(queries), 1), -1, np.int64)
        ranked = Ranked(heads, np.full(heads.shape, -np.inf, np.float32), wanted, tuple(ranks))
        assert self.measured(ranked, truth) == pytest.approx(expected["results_lists_map"], **EXACT)


class TestINSTRE:
    def test_descriptors(self, folder: Path) -> None:
        home, expected, stored = read(folder, "instre")
        gallery, names, positives, boxes = read_ground_truth(home / "gnd_instre.mat")
        truth = truth_of(positives)
        groups = {"all": np.ones(len(names), np.bool_)}
        groups |= {subset: np.array([name.startswith(f"{subset}/") for name in names]) for subset in SUBSETS}
        measure = GroupedAveragePrecision(list(groups), np.stack(list(groups.values())))
        ranked = ranked_by(stored["images"], stored["queries"], truth, measure)
        evaluation = measure.figures(truth, dict.fromkeys(groups, ranked)).evaluation
        assert evaluation["all"]["map"] == pytest.approx(expected["map"], **EXACT)
        assert evaluation["all"]["ap"].tolist() == pytest.approx(expected["aps"], **EXACT)
        assert evaluation["all"]["mp_at_k"].tolist() == pytest.approx(expected["mp@1,5,10"], **EXACT)
        by_subset = {subset: evaluation[subset]["map"] for subset in SUBSETS}
        assert by_subset == pytest.approx(expected["map_by_query_subset"], **EXACT)
        assert boxes.min() >= 1
        assert len(gallery) == len(stored["images"])
        # In a truncated list, positives beyond the end are not found but still count.
        whole = exact_ranking(stored["images"], stored["queries"], [NOTHING] * len(names), 40)
        cut = listed_ranking(zip(whole.top_k, whole.scores, strict=True), measure.ground_truth_ids(truth), 40)
        figures = measure.figures(truth, {"all": cut})
        assert values(figures)["all"] == pytest.approx(expected["map_of_first_40_ranks"], **EXACT)


class TestPlaces:
    def test_names_and_descriptors(self, folder: Path) -> None:
        home, expected, stored = read(folder, "vpr")
        database, queries = (
            np.array([utm_of(line) for line in (home / f"{side}_images_paths.txt").read_text().split()])
            for side in ("database", "queries")
        )
        positives = within(queries, database, 25.0)
        assert [own.tolist() for own in positives] == expected["positives"]
        assert sum(not len(own) for own in positives) == expected["queries_without_positive"]
        truth, measure = truth_of(positives), PlaceMeasure()
        ranked = ranked_by(stored["database"], stored["queries"], truth, measure)
        figures = values(measure.figures(truth, {"all": ranked}))
        assert figures == pytest.approx(expected["recall_all_queries_exact"], **EXACT)
        printed = {f"R@{name.split('@')[1]}": round(100 * value, 1) for name, value in figures.items()}
        assert printed == expected["printed_by_VPR-methods-evaluation"]
        # MSLS's own evaluator leaves out queries without a positive.
        rows = np.flatnonzero([len(own) > 0 for own in positives])
        truth, measure = truth_of([positives[row] for row in rows]), PlaceMeasure(maps=True)
        ranked = ranked_by(stored["database"], stored["queries"][rows], truth, measure)
        figures = {name.lower(): value for name, value in values(measure.figures(truth, {"all": ranked})).items()}
        wanted = expected["mapillary_sls_eval_queries_without_positive_left_out"]
        assert {name: figures[name] for name in wanted} == pytest.approx(wanted, **EXACT)


@pytest.mark.parametrize("name", ["predictions", "predictions_ties"])
def test_disc21(folder: Path, name: str) -> None:
    """Queries without predictions, two references for one query, ties against the answer."""
    home, expected, _ = read(folder, "disc21")
    with (home / "ground_truth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (home / f"{name}.csv").open(newline="") as file:
        predictions = [(row["query_id"], row["reference_id"], float(row["score"])) for row in csv.DictReader(file)]
    queries = sorted({row["query_id"] for row in rows} | {query for query, _, _ in predictions})
    references = sorted({row["reference_id"] for row in rows} | {found for _, found, _ in predictions} - {""})
    place = {reference: row for row, reference in enumerate(references)}
    positives = [
        np.array([place[r["reference_id"]] for r in rows if r["query_id"] == query and r["reference_id"]], np.int64)
        for query in queries
    ]
    lists = []
    for query in queries:
        own = sorted((-score, place[found]) for asked, found, score in predictions if asked == query)
        lists.append((np.array([at for _, at in own], np.int64), -np.array([score for score, _ in own], np.float32)))
    depth = max(len(own) for own, _ in lists)
    ranked = listed_ranking(lists, [NOTHING] * len(queries), depth)
    wanted = dict(expected[name])
    threshold = wanted.pop("threshold@P90")
    assert sum(map(len, positives)) == expected["positives"]
    assert values(CopyMeasure(depth).figures(truth_of(positives), {"uAP": ranked})) == pytest.approx(wanted, **EXACT)
    there = ranked.top_k >= 0
    right = np.array([np.isin(head, own) for head, own in zip(ranked.top_k, positives, strict=True)])
    together = copy_figures(right[there], ranked.scores[there], expected["positives"])
    # Scores are stored in float32.
    assert together.threshold_at_p90 == pytest.approx(threshold, abs=1e-7)


def test_products(folder: Path) -> None:
    home, expected, stored = read(folder, "sop")
    rows = [line.split() for line in (home / "Ebay_test.txt").read_text().splitlines()[1:]]
    classes = np.array([row[1] for row in rows])
    (descriptors,) = stored.values()
    own = [np.array([row], np.int64) for row in range(len(rows))]
    others = [np.flatnonzero((classes == name) & (np.arange(len(rows)) != row)) for row, name in enumerate(classes)]
    measure = ProductMeasure((1, 10, 100))
    truth = truth_of(others, own)
    ranked = ranked_by(descriptors, descriptors, truth, measure)
    assert values(measure.figures(truth, {"all": ranked})) == pytest.approx(expected, **EXACT)


def test_a_class_without_votes_is_not_predicted() -> None:
    """If no similarity is above 0, all classes are equal, and the smallest number is used."""
    answers = classify(
        np.array([[7, 9], [9, 0]]), np.array([[-0.5, -0.6], [0.3, -np.inf]]), np.array([2, 7, 9]), 2, 1.0
    )
    assert answers.labels.tolist() == [2, 9]
    assert answers.confidences[0] == pytest.approx(1 / 3)
    assert answers.confidences[1] == pytest.approx(np.exp(0.3) / (np.exp(0.3) + 2))
    assert NO_EXHIBIT not in answers.labels
