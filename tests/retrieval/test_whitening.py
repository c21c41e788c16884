"""Learned whitening: its effect on covariances and pairs, its file, and its errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from dolglab.errors import UserError
from dolglab.retrieval.whitening import Projection, Whitening, moments, pair_scatter, pca_projection

NO_PAIRS = np.empty((0, 2), np.int64)


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def correlated(count: int = 400, dim: int = 12, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return unit(rng.standard_normal((count, dim)) @ rng.standard_normal((dim, dim)) + rng.standard_normal(dim))


def learned(descriptors: NDArray[np.float32], pairs: NDArray[np.int64] = NO_PAIRS, **settings: object) -> Whitening:
    whitening = Whitening(**settings)
    whitening.learn(descriptors, pairs, "demo validation", "ab12", "this network")
    return whitening


def projection_of(whitening: Whitening) -> Projection:
    assert whitening.learned is not None
    return whitening.learned


def landmarks(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """60 landmarks of 6 photos, the pairs of one landmark, and labels.

    Photos of a landmark differ most in the first 4 dimensions, as with weather, and landmarks in the last 8.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(60), 6)
    spread = np.r_[np.full(4, 3.0), np.full(8, 0.3)]
    between = np.r_[np.full(4, 0.3), np.full(8, 1.0)]
    rows = rng.standard_normal((60, 12))[labels] * between + rng.standard_normal((360, 12)) * spread
    first, second = np.triu_indices(360, 1)
    same = labels[first] == labels[second]
    return unit(rows + 2), np.stack([first[same], second[same]], 1), labels


def test_moments_and_scatter_equal_numpy() -> None:
    rows, pairs, _ = landmarks()
    mean, covariance = moments(rows)
    np.testing.assert_allclose(mean, rows.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(rows.astype(np.float64).T, bias=True), rtol=1e-10, atol=1e-15)
    pairs = np.concatenate([pairs, pairs[:50, ::-1], [[7, 7], [0, 359]]])
    expected = np.zeros((12, 12))
    for first, second in pairs:
        difference = rows[first].astype(np.float64) - rows[second]
        expected += np.outer(difference, difference) / len(pairs)
    np.testing.assert_allclose(pair_scatter(rows, pairs), expected, rtol=1e-10, atol=1e-15)


def test_pca_makes_the_covariance_the_identity() -> None:
    rows = correlated()
    projection = projection_of(learned(rows))
    whitened = (rows - projection.mean) @ projection.projection.T
    np.testing.assert_allclose(whitened.mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(np.cov(whitened.T, bias=True), np.eye(12), atol=1e-9)


def test_reduced_dimensions_have_the_largest_variance() -> None:
    rows = correlated()
    whole, cut = projection_of(learned(rows)), projection_of(learned(rows, dim=5))
    np.testing.assert_array_equal(cut.projection, whole.projection[:5])
    # The deviation along a direction is the inverse of the length of its row.
    assert (np.diff(np.linalg.norm(whole.projection, axis=1)) > 0).all()


def test_the_step_whitens_gallery_and_queries_and_leaves_zeros() -> None:
    rows = correlated()
    gallery, queries = rows[:300].copy(), rows[300:].copy()
    known = np.ones(300, np.bool_)
    known[[4, 17]] = False
    gallery[~known] = 0
    queries[2] = 0
    whitening = learned(rows, dim=6)
    found, asked = whitening(gallery, queries, known)
    covariance = np.cov(rows.astype(np.float64).T, bias=True)
    variances, directions = np.linalg.eigh(covariance)
    expected = (rows - rows.mean(0)) @ directions[:, :-7:-1] / np.sqrt(variances[:-7:-1])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    rest = np.r_[0:2, 3 : len(queries)]
    np.testing.assert_allclose(found[known] @ asked[rest].T, expected[:300][known] @ expected[300:][rest].T, atol=1e-4)
    assert not found[~known].any()
    assert not asked[2].any()
    assert found.dtype == asked.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found[known], axis=1), 1, rtol=1e-6)


def test_a_memory_mapped_gallery_gives_the_same(tmp_path: Path) -> None:
    rows = correlated()
    np.save(tmp_path / "rows.npy", rows)
    whitening = learned(rows)
    mapped = whitening(np.load(tmp_path / "rows.npy", mmap_mode="r"), rows[:3])
    in_memory = whitening(rows, rows[:3])
    np.testing.assert_array_equal(mapped[0], in_memory[0])
    np.testing.assert_array_equal(mapped[1], in_memory[1])


def test_supervised_whitens_matching_differences_along_principal_axes() -> None:
    rows, pairs, _ = landmarks()
    projection = projection_of(learned(rows, pairs, kind="supervised"))
    moved = (rows - projection.mean) @ projection.projection.T
    difference = moved[pairs[:, 0]] - moved[pairs[:, 1]]
    np.testing.assert_allclose(difference.T @ difference / len(pairs), np.eye(12), atol=1e-9)
    covariance = np.cov(moved.T, bias=True)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-9)
    assert (np.diff(np.diag(covariance)) < 0).all()


def test_supervised_brings_matches_closer_than_pca_and_pca_closer_than_nothing() -> None:
    rows, pairs, _ = landmarks()
    unseen, _, labels = landmarks(seed=1)
    shares = []
    for whitening in (None, learned(rows, dim=6), learned(rows, pairs, kind="supervised", dim=6)):
        moved = unseen if whitening is None else whitening(unseen, unseen)[0]
        cosines = moved @ moved.T
        np.fill_diagonal(cosines, -2)
        shares.append(float((labels[cosines.argmax(1)] == labels).mean()))
    assert shares[2] > 2 * shares[1] > 0
    assert shares[2] > 2 * shares[0] > 0


def test_images_without_a_descriptor_are_left_out_with_their_pairs() -> None:
    rows, pairs, _ = landmarks()
    holed = np.insert(rows, [0, 100], 0, axis=0)
    moved = pairs + 1 + (pairs >= 100)
    with_holes = np.concatenate([moved, [[0, 5], [101, 101]]])
    for kind in ("pca", "supervised"):
        expected, found = (
            projection_of(learned(rows, pairs, kind=kind)),
            projection_of(learned(holed, with_holes, kind=kind)),
        )
        np.testing.assert_array_equal(found.projection, expected.projection)
        np.testing.assert_array_equal(found.mean, expected.mean)


def test_shrinking_bounds_directions_of_small_variance() -> None:
    covariance = np.diag([1.0, 1e-14, 0.0])
    assert len(pca_projection(covariance, 0.0)) == 1
    shrunk = pca_projection(covariance, 0.3)
    np.testing.assert_allclose(np.linalg.norm(shrunk, axis=1), [0.8**-0.5, 0.1**-0.5, 0.1**-0.5], rtol=1e-9)
    rows = correlated(8, 12)
    assert projection_of(learned(rows, shrink=0.1)).projection.shape == (12, 12)
    one_pair = np.array([[0, 1]])
    assert projection_of(learned(rows, one_pair, kind="supervised", shrink=0.1)).projection.shape == (12, 12)


def as_cirtorch(rows: NDArray[np.floating], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """All images after whitening learned as in cirtorch, image by image and pair by pair."""
    centre = np.mean([rows[first] for first, _ in pairs], axis=0, dtype=np.float64)
    differences = np.zeros((rows.shape[1],) * 2)
    for first, second in pairs:
        difference = rows[first].astype(np.float64) - rows[second]
        differences += np.outer(difference, difference) / len(pairs)
    whitening = np.linalg.inv(np.linalg.cholesky(differences))
    moved = np.array([whitening @ (row - centre) for row in rows])
    values, directions = np.linalg.eigh(sum(np.outer(row, row) for row in moved))
    turned = moved @ directions[:, np.argsort(-values)]
    return turned / np.linalg.norm(turned, axis=1, keepdims=True)


def test_centring_on_pairs_equals_cirtorch(tmp_path: Path) -> None:
    rows, pairs, _ = landmarks()
    # Half of the landmarks are in no pair, so the two centres differ.
    pairs = pairs[pairs[:, 0] < 180]
    theirs = learned(rows, pairs, kind="supervised", centre="pairs")
    found = theirs(rows, rows)[0]
    expected = as_cirtorch(rows, pairs)
    # Directions are equal up to their sign.
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-5)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)
    ours = learned(rows, pairs, kind="supervised")(rows, rows)[0]
    assert np.abs(ours @ ours.T - expected @ expected.T).max() > 0.01
    assert theirs.config()["centre"] == "pairs"
    file = theirs.save(tmp_path / "whitening.safetensors")
    assert Whitening(matrix=file).config() == theirs.config()
    np.testing.assert_array_equal(Whitening(matrix=file, centre="pairs")(rows, rows)[0], found)
    with pytest.raises(UserError, match=r"pairs, not images"):
        Whitening(matrix=file, centre="images")


def test_a_file_without_a_centre_is_centred_on_all_images(tmp_path: Path) -> None:
    file = learned(correlated()).save(tmp_path / "new")
    about = {"kind": "pca", "shrink": "0.0", "name": "set", "digest": "ab", "network": ""}
    save_file(load_file(file), tmp_path / "old", about)
    assert Whitening(matrix=tmp_path / "old").config()["centre"] == "images"


@pytest.mark.parametrize("kind", ["pca", "supervised"])
def test_a_saved_whitening_is_loaded(tmp_path: Path, kind: str) -> None:
    rows, pairs, _ = landmarks()
    whitening = learned(rows, pairs, kind=kind, dim=6, shrink=0.25)
    file = whitening.save(tmp_path / "new folder" / "whitening.safetensors")
    loaded = Whitening(matrix=file)
    for before, after in zip(whitening(rows, rows[:5]), loaded(rows, rows[:5]), strict=True):
        np.testing.assert_array_equal(before, after)
    assert loaded.config() == whitening.config()
    assert whitening.config() == {
        "whitening": kind,
        "dim": 6,
        "centre": "images",
        "learned_on": "demo validation",
        "learned_on_digest": "ab12",
        "shrink": 0.25,
    }
    assert loaded.learned_on == ("demo validation", "ab12")
    cut = Whitening(kind=kind, dim=4, matrix=str(file))
    np.testing.assert_array_equal(projection_of(cut).projection, projection_of(whitening).projection[:4])


def test_a_whitening_for_another_network_is_refused(tmp_path: Path) -> None:
    loaded = Whitening(matrix=learned(correlated()).save(tmp_path / "whitening.safetensors"))
    loaded.check_network("this network")
    loaded.check_network("")
    Whitening().check_network("another")
    with pytest.raises(UserError, match="demo validation"):
        loaded.check_network("another")


def test_a_missing_matrix_is_reported(tmp_path: Path) -> None:
    rows = correlated()
    whitening = Whitening()
    assert whitening.learned_on is None
    assert whitening.config() == {"whitening": "pca", "dim": None, "learned_on": None}
    with pytest.raises(UserError, match=r"post\.whitening\.matrix=FILE, or benchmark@learn_on=NAME"):
        whitening(rows, rows)
    with pytest.raises(UserError):
        whitening.save(tmp_path / "x")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "zca"}, "kind .*zca"),
        ({"dim": 0}, "dim .*0"),
        ({"shrink": 1.5}, "shrink .*1.5"),
        ({"centre": "median"}, "centre .*median"),
        ({"centre": "pairs"}, r"centre=pairs .*kind=supervised"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Whitening(**settings)


def test_a_set_that_is_too_small_is_refused() -> None:
    rows = correlated()
    whole = np.stack([np.arange(0, 20), np.arange(20, 40)], 1)
    cases = [
        ({}, rows[:6], NO_PAIRS, r"\b6 images of set .* 5 .* 12 .*post\.whitening\.dim"),
        ({"dim": 3}, rows[:1], NO_PAIRS, r"\b1 images of set .* 0 .* 3"),
        ({}, np.repeat(rows[:1], 9, 0), NO_PAIRS, r"\b9 images of set .* 0 .* 12"),
        ({}, np.zeros((9, 12), np.float32), NO_PAIRS, r"\b0 images of set .* 0 .* 12"),
        ({"dim": 13}, rows, NO_PAIRS, r"post\.whitening\.dim=13 .*\b12"),
        ({"kind": "supervised"}, rows, NO_PAIRS, "set"),
        ({"kind": "supervised"}, rows, whole[:9], r"\b9 matching pairs of set .* 12.*shrink"),
        ({"kind": "supervised", "shrink": 0.5}, np.repeat(rows[:1], 40, 0), whole, r"\b20 matching pairs of set"),
        ({}, np.where(np.eye(400, 12, dtype=np.bool_), np.nan, rows), NO_PAIRS, "descriptor of set"),
    ]
    for settings, descriptors, pairs, message in cases:
        whitening = Whitening(**settings)
        with pytest.raises(UserError, match=message):
            whitening.learn(descriptors.astype(np.float32), pairs, "set", "ab")
    learned(rows[:6], dim=5)


def test_other_descriptors_are_refused() -> None:
    whitening = learned(correlated())
    other = correlated(20, 8)
    with pytest.raises(UserError, match=r"demo validation .*\b12 .*\b8\b"):
        whitening(other, other)


def test_a_bad_matrix_file_is_refused(tmp_path: Path) -> None:
    good = learned(correlated()).save(tmp_path / "good")
    tensors = load_file(good)
    about = {"kind": "pca", "shrink": "0.0", "name": "set", "digest": "ab", "network": ""}
    (tmp_path / "cut").write_bytes(good.read_bytes()[:-8])
    (tmp_path / "text").write_text("whitening")
    save_file(tensors, tmp_path / "nameless")
    save_file({"mean": tensors["mean"]}, tmp_path / "half", about)
    save_file(tensors | {"mean": tensors["mean"][:5]}, tmp_path / "unequal", about)
    save_file(tensors | {"mean": np.full(12, np.nan)}, tmp_path / "nan", about)
    save_file(tensors, tmp_path / "other kind", about | {"kind": "zca"})
    cases = {
        "absent": "absent",
        ".": tmp_path.name,
        "cut": r"cut .*Error",
        "text": r"text .*Error",
        "nameless": r"nameless .*Error",
        "half": r"half .*Error",
        "unequal": "unequal is damaged",
        "nan": "nan is damaged",
        "other kind": "other kind is damaged",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message):
            Whitening(matrix=tmp_path / name)
    with pytest.raises(UserError, match=r"pca .*supervised.*post\.whitening\.kind"):
        Whitening(kind="supervised", matrix=good)
    with pytest.raises(UserError, match=r"\b12 .*post\.whitening\.dim=20"):
        Whitening(dim=20, matrix=good)
