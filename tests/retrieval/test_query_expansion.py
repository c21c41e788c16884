"""Query expansion and database-side augmentation compared with plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.retrieval.query_expansion import AlphaQE, DatabaseAugmentation, alpha_weights, without_self

STEPS = (AlphaQE, DatabaseAugmentation)


def descriptors(count: int, seed: int, dim: int = 6) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, dim)) + 0.3
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def drawn(
    own: NDArray[np.float32], others: NDArray[np.float32], neighbours: int, alpha: float, excluded: int = -1
) -> NDArray[np.float64]:
    """A descriptor plus its weighted neighbours, in a float64 loop."""
    cosines = [(float(own.astype(np.float64) @ other), i) for i, other in enumerate(others) if i != excluded]
    total = own.astype(np.float64)
    for cosine, i in sorted(cosines, key=lambda pair: (-pair[0], pair[1]))[:neighbours]:
        if cosine > 0:
            total = total + cosine**alpha * others[i]
    norm = np.linalg.norm(total)
    return total / norm if norm else total


@pytest.mark.parametrize(("neighbours", "alpha"), [(1, 3.0), (4, 3.0), (4, 0.0), (30, 1.5), (100, 3.0)])
def test_queries_move_towards_their_first_answers(neighbours: int, alpha: float) -> None:
    gallery, queries = descriptors(40, 0), descriptors(9, 1)
    same, expanded = AlphaQE(neighbours, alpha)(gallery, queries, np.ones(40, np.bool_))
    assert same is gallery
    expected = [drawn(query, gallery, neighbours, alpha) for query in queries]
    np.testing.assert_allclose(expanded, expected, atol=1e-6)
    assert expanded.dtype == np.float32


@pytest.mark.parametrize(("neighbours", "alpha"), [(1, 3.0), (4, 3.0), (4, 0.0), (30, 1.5), (100, 3.0)])
def test_gallery_images_move_towards_their_neighbours(neighbours: int, alpha: float) -> None:
    gallery, queries = descriptors(40, 0), descriptors(9, 1)
    expected = [drawn(own, gallery, neighbours, alpha, excluded=i) for i, own in enumerate(gallery)]
    augmented, same = DatabaseAugmentation(neighbours, alpha)(gallery, queries, np.ones(40, np.bool_))
    assert same is queries
    np.testing.assert_allclose(augmented, expected, atol=1e-6)
    assert augmented.dtype == np.float32
    pieces, _ = DatabaseAugmentation(neighbours, alpha)(gallery, queries, chunk_bytes=33 * 6 * 4)
    np.testing.assert_allclose(pieces, augmented, atol=1e-6)


@pytest.mark.parametrize("step", STEPS)
def test_missing_images_stay_zeros_and_are_not_neighbours(step: type, tmp_path: Path) -> None:
    gallery, queries = descriptors(40, 0), descriptors(9, 1)
    known = np.ones(40, np.bool_)
    known[[0, 7, 8, 39]] = False
    gallery[~known] = 0
    queries[4] = 0
    found, asked = step(5, 0.0)(gallery, queries, known)
    rest, expected = step(5, 0.0)(gallery[known], queries)
    np.testing.assert_allclose(found[known], rest, atol=1e-6)
    np.testing.assert_allclose(asked, expected, atol=1e-6)
    assert not found[~known].any()
    assert not asked[4].any()
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = step(5, 0.0)(np.load(tmp_path / "gallery.npy", mmap_mode="r"), queries, known)
    np.testing.assert_array_equal(mapped[0], found)
    np.testing.assert_array_equal(mapped[1], asked)


@pytest.mark.parametrize("step", STEPS)
def test_empty_queries_single_images_and_missing_images_work(step: type) -> None:
    gallery, queries = descriptors(1, 0), descriptors(3, 1)
    found, asked = step()(gallery, queries[:0], np.ones(1, np.bool_))
    np.testing.assert_allclose(found, gallery, atol=1e-6)
    assert asked.shape == (0, 6)
    nothing = np.zeros((5, 6), np.float32)
    found, asked = step()(nothing, queries, np.zeros(5, np.bool_))
    assert not found.any()
    np.testing.assert_allclose(asked, queries, atol=1e-6)


def test_copies_do_not_replace_the_image_itself() -> None:
    """Five copies of an image: each finds the four others, whether or not it is in its own list."""
    gallery = np.repeat(descriptors(1, 0), 5, 0)
    augmented, _ = DatabaseAugmentation(neighbours=2)(gallery, gallery[:0])
    np.testing.assert_allclose(augmented, gallery, atol=1e-6)
    own, found = np.array([3, 0, 9]), np.array([[1, 3, 2], [0, 1, 2], [1, 2, 3]])
    others, cosines = without_self(own, found, np.array([[9, 8, 7], [9, 8, 7], [9, 8, 7]], np.float32))
    assert others.tolist() == [[1, 2], [1, 2], [1, 2]]
    assert cosines.tolist() == [[9, 7], [8, 7], [9, 8]]


def test_missing_and_opposite_neighbours_have_no_weight() -> None:
    cosines = np.array([[0.5, 0.0, -0.5, 0.25, np.nan]], np.float32)
    found = np.array([[3, 2, 1, -1, -1]])
    assert alpha_weights(cosines, found, 2.0).tolist() == [[0.25, 0, 0, 0, 0]]
    assert alpha_weights(cosines, found, 0.0).tolist() == [[1, 0, 0, 0, 0]]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("settings", [{"neighbours": 0}, {"alpha": -1.0}, {"alpha": float("nan")}])
def test_invalid_settings_are_refused(step: type, settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"^post\.\w+ .*{next(iter(settings))}=-?\w+"):
        step(**settings)


def test_cards_describe_the_settings() -> None:
    assert AlphaQE(5, 2.0).config() == {"query_expansion": "alpha", "neighbours": 5, "alpha": 2.0}
    assert DatabaseAugmentation().config() == {"database_augmentation": "alpha", "neighbours": 10, "alpha": 3.0}
