"""Maps learnt from labels, compared with plain references, and their gain on held-out photos."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import eigh

from dolglab.contracts import GroundTruth
from dolglab.errors import UserError
from dolglab.library import adapter_learning
from dolglab.library.adapter_learning import (
    CANDIDATES,
    average_precisions,
    choose,
    discriminants,
    learn,
    sample,
    split_landmarks,
    split_photos,
    whitening,
    within_scatter,
)
from dolglab.measures import revisited_evaluation
from photo_library.planted import planted

# Candidates without training.
QUICK = {name: learner for name, learner in CANDIDATES.items() if "layer" not in name}


def test_the_scatter_within_landmarks_agrees_with_a_loop() -> None:
    rows, labels = planted()
    expected = np.zeros((rows.shape[1],) * 2)
    for row, label in zip(rows.astype(np.float64), labels, strict=True):
        away = row - rows[labels == label].mean(0, dtype=np.float64)
        expected += np.outer(away, away) / len(rows)
    np.testing.assert_allclose(within_scatter(rows, labels), expected, atol=1e-7)


def test_discriminants_solve_the_generalised_eigenproblem() -> None:
    """Up to signs, on which no cosine depends."""
    rows, labels = planted()
    found = discriminants(rows, labels, shrink=0.3)
    within, dim = within_scatter(rows, labels), rows.shape[1]
    shrunk = 0.7 * within + 0.3 * np.trace(within) / dim * np.eye(dim)
    centred = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
    directions = eigh(centred.T @ centred / len(rows), shrunk)[1][:, ::-1]
    expected = centred @ directions
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(found(rows)), np.abs(expected), atol=1e-4)


def test_whitening_gives_every_direction_the_same_variance() -> None:
    rows, labels = planted()
    found = whitening(rows, labels, shrink=0.0)
    covariance = np.cov((rows @ found.weight.T + found.bias).T, bias=True)
    np.testing.assert_allclose(covariance, np.eye(len(covariance)) / len(covariance), atol=1e-5)


@pytest.mark.parametrize("name", CANDIDATES)
def test_longer_descriptors_are_reduced_before_learning(name: str, monkeypatch) -> None:
    monkeypatch.setattr(adapter_learning, "MAX_DIM", 10)
    rows, labels = planted()
    learnt = adapter_learning.compressed(CANDIDATES[name])(rows, labels)
    assert learnt.weight.shape == (10, rows.shape[1])
    np.testing.assert_allclose(np.linalg.norm(learnt(rows), axis=1), 1, atol=1e-5)


def test_training_a_layer_is_deterministic_and_leaves_the_global_generator_alone() -> None:
    rows, labels = planted()
    layer = CANDIDATES["linear layer, ArcFace margin 0.5"]
    np.testing.assert_array_equal(layer(rows, labels).weight, layer(rows, labels).weight)


def test_average_precision_equals_that_of_revisited_oxford() -> None:
    rows, labels = planted()
    labels[0] = 99
    queries = np.array([5, 0, 17])
    found = average_precisions(rows, labels, queries)
    ranks = np.argsort(-(rows[queries] @ rows.T), axis=1, kind="stable")
    nothing = np.empty(0, np.int64)
    truth = GroundTruth(
        easy=tuple(np.setdiff1d(np.flatnonzero(labels == labels[query]), query) for query in queries),
        hard=(nothing,) * 3,
        junk=tuple(queries[place : place + 1] for place in range(3)),
    )
    np.testing.assert_allclose(found, revisited_evaluation(ranks, truth)["easy"]["ap"])
    assert np.isnan(found[1])


def test_splits_depend_only_on_seed_and_labels() -> None:
    labels = np.repeat(np.arange(9), [1, 2, 3, 4, 5, 10, 20, 20, 2])
    for split in (split_photos, split_landmarks, sample):
        np.testing.assert_array_equal(split(labels, 3), split(labels, 3))
    assert (split_photos(labels, 3) != split_photos(labels, 4)).any()
    held = split_photos(labels, 3)
    assert [int(held[labels == landmark].sum()) for landmark in range(9)] == [0, 0, 2, 2, 2, 2, 4, 4, 0]
    groups = split_landmarks(labels, 3)
    assert all(len(set(groups[labels == landmark].tolist())) == 1 for landmark in range(9))
    sizes = np.bincount([groups[labels == landmark][0] for landmark in range(9)])
    assert sorted(sizes.tolist()) == [2, 2, 2, 3]


def test_candidates_are_compared_on_a_part_of_many_photos(monkeypatch) -> None:
    monkeypatch.setattr(adapter_learning, "CHOICE_PHOTOS", 100)
    few, many = np.repeat(np.arange(4), 50), np.repeat(np.arange(50), 30)
    assert np.bincount(few[sample(few, 0)]).tolist() == [25] * 4
    counts = np.bincount(many[sample(many, 0)])
    assert counts.sum() == 100
    assert set(counts.tolist()) == {0, 20}


def test_the_gain_is_measured_on_held_out_photos() -> None:
    rows, labels = planted(landmarks=12, photos=15)
    learnt = learn(rows, labels, candidates=QUICK)
    seen, unseen = learnt.seen.figures(), learnt.unseen.figures()
    assert seen["low"] > 0.1
    assert unseen["low"] > 0
    assert seen["before"] == unseen["before"]
    assert seen["queries"] == unseen["queries"] == 12 * 3
    # The gain on further photos, which were not used at all.
    others, shown = planted(landmarks=12, photos=15, draw=1)
    everyone = np.arange(len(others))
    before, after = (average_precisions(each, shown, everyone).mean() for each in (others, learnt.affine(others)))
    assert after - before == pytest.approx(seen["gain"], abs=0.1)


def test_random_labels_give_no_gain() -> None:
    rows, labels = planted(landmarks=12, photos=15)
    learnt = learn(rows, np.random.default_rng(0).permutation(labels), candidates=QUICK)
    assert learnt.seen.figures()["low"] <= 0


def test_the_best_candidate_is_chosen() -> None:
    rows, labels = planted()
    upright, informed = CANDIDATES["whitening, shrinkage 0.5"], CANDIDATES["linear discriminants, shrinkage 0.3"]
    for candidates in ({"a": upright, "b": informed}, {"b": informed, "a": upright}):
        assert choose(rows, labels, 0, candidates) == "b"


@pytest.mark.parametrize("sizes", [[40], [20, 20], [20, 20, 4], [2] * 20])
def test_too_few_labels_are_refused(sizes: list[int]) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    with pytest.raises(UserError, match="landmarks"):
        learn(planted()[0][: len(labels)], labels)


def test_identical_photos_are_refused() -> None:
    rows, labels = planted()
    same = np.stack([rows[labels == label][0] for label in labels])
    with pytest.raises(UserError, match="one descriptor"):
        learn(same, labels)
