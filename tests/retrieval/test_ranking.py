"""Rankings compared with a full stable sort of exact products, for any parts of the gallery; operations on rankings."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dolglab.errors import UserError
from dolglab.measures import ranks_in
from dolglab.retrieval.faiss_indexes import IVFFlatIndex
from dolglab.retrieval.index import FlatIndex
from dolglab.retrieval.inner_products import InnerProducts, Queries, round_to_grid
from dolglab.retrieval.large_arrays import memory_map_of, take_rows
from dolglab.retrieval.ranking import (
    ChunkSizes,
    Ranked,
    exact_ranking,
    gallery_ranking,
    index_ranking,
    listed_ranking,
    reranked,
)

Array = NDArray[np.floating]


# So small that a gallery of a few hundred images has many parts.
SMALL = ChunkSizes(queries=3, images=33, first_images=2, values=40, pair_cost=2)


def whole(*, images: int = 300, queries: int = 8, dim: int = 6, seed: int = 0) -> tuple[Array, Array]:
    """Descriptors of small integers: all products are exact, and many are equal."""
    rng = np.random.default_rng(seed)
    values = [rng.integers(-3, 4, (count, dim)).astype(np.float32) for count in (images, queries)]
    return values[0], values[1]


def some(gallery: Array, queries: Array, count: int = 9) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(1)
    return [rng.permutation(len(gallery))[: count * (query % 4)] for query in range(len(queries))]


def check(ranked: Ranked, scores: Array, labelled: list[NDArray[np.int64]], top: int, known: NDArray[np.bool_]) -> None:
    """Assert that the ranking is the stable sort of these scores, (Q, N), without unavailable images."""
    for query, own in enumerate(scores):
        order = [image for image in np.argsort(-own, kind="stable").tolist() if known[image]]
        head = order[:top]
        assert ranked.top_k[query].tolist() == head + [-1] * (top - len(head))
        assert ranked.scores[query].tolist() == [own[image] for image in head] + [-math.inf] * (top - len(head))
        expected = [order.index(image) if known[image] else -1 for image in labelled[query].tolist()]
        assert ranked.ranks[query].tolist() == expected
        assert ranked.ground_truth_ids[query] is labelled[query]


@pytest.mark.parametrize("top", [1, 7, 400])
@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_equals_a_full_stable_sort(top: int, share: float, dtype: type[np.floating]) -> None:
    gallery, queries = whole()
    labelled = some(gallery, queries)
    known = np.random.default_rng(2).random(len(gallery)) < share
    ranked = exact_ranking(gallery.astype(dtype), queries, labelled, top, None if share == 1 else known, SMALL)
    check(ranked, queries @ gallery.T, labelled, top, known if share < 1 else np.ones(len(gallery), np.bool_))


@settings(derandomize=True, deadline=None, max_examples=40)
@given(data=st.data())
def test_equals_a_full_stable_sort_at_every_size(data: st.DataObject) -> None:
    images, asked = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 7))
    gallery, queries = whole(images=images, queries=asked, dim=data.draw(st.integers(1, 50)), seed=images)
    labelled = [np.array(data.draw(st.lists(st.integers(0, images - 1), max_size=8)), np.int64) for _ in queries]
    known = np.array(data.draw(st.lists(st.booleans(), min_size=images, max_size=images)))
    top = data.draw(st.integers(1, 20))
    ranked = exact_ranking(gallery, queries, labelled, top, known, SMALL)
    check(ranked, queries @ gallery.T, labelled, top, known)


def grid_scores(gallery: Array, queries: Array) -> Array:
    """Inner products, (Q, N), of rows rounded to multiples of their own steps, summed as Python integers."""

    def whole_numbers(rows: Array) -> tuple[NDArray[np.object_], list[Fraction]]:
        exponents = np.frexp(1.5 * np.linalg.norm(rows.astype(np.float64), axis=1))[1].tolist()
        steps = [Fraction(2) ** (exponent - 27) for exponent in exponents]
        values = [[round(Fraction(x) / step) for x in row] for row, step in zip(rows.tolist(), steps, strict=True)]
        return np.array(values, object).reshape(rows.shape), steps

    (left, left_steps), (right, right_steps) = whole_numbers(queries), whole_numbers(gallery)
    sums = zip((left @ right.T).tolist(), left_steps, strict=True)
    return np.array([[float(s * a * b) for s, b in zip(row, right_steps, strict=True)] for row, a in sums], np.float32)


def adversarial(
    rng: np.random.Generator, images: int, asked: int, dim: int, lengths: list[float]
) -> tuple[Array, Array]:
    """A gallery and queries with many near ties: copies, copies an ulp away, opposites, zeros, mixed lengths."""
    rows = rng.standard_normal((images + asked, dim)).astype(np.float32)
    if rng.random() < 0.3:
        rows = np.round(2 * rows)
    else:
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for row in range(1, len(rows)):
        kind = rng.choice(["own", "copy", "ulp", "opposite", "zero", "scaled"], p=[0.2, 0.2, 0.4, 0.1, 0.05, 0.05])
        if kind != "own":
            rows[row] = rows[rng.integers(0, row)] * {"zero": 0, "opposite": -1}.get(kind, 1)
        if kind == "ulp":
            value = rng.integers(0, dim)
            rows[row, value] = np.nextafter(rows[row, value], np.float32(rng.choice([-9, 9])))
        if kind == "scaled":
            rows[row] *= np.float32(rng.choice([0.5, 1 - 2**-20, 3]))
    rows *= rng.choice(lengths, (len(rows), 1)).astype(np.float32)
    rows = rows[rng.permutation(len(rows))]
    return rows[:images], rows[images:]


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.integers(1, 140),
    lengths=st.sampled_from([[1], [1], [1e-6], [1e-24], [1e-42], [1e4], [1e15], [1, 1e-3], [1e-30, 1, 1e5]]),
    chunks=st.builds(
        ChunkSizes,
        queries=st.just(3),
        images=st.integers(1, 200),
        scores=st.just(2**21),
        first_images=st.integers(1, 9),
        values=st.integers(1, 4000),
        pair_cost=st.sampled_from([1, 1, 2, 64]),
    ),
    most_labelled=st.sampled_from([0, 29]),
)
def test_near_ties_are_decided_by_exact_products(
    seed: int, dim: int, lengths: list[float], chunks: ChunkSizes, most_labelled: int
) -> None:
    rng = np.random.default_rng(seed)
    gallery, queries = adversarial(rng, int(rng.integers(1, 250)), int(rng.integers(1, 5)), dim, lengths)
    labelled = [rng.integers(0, len(gallery), rng.integers(0, most_labelled + 1)) for _ in queries]
    known, top = rng.random(len(gallery)) < 0.9, int(rng.integers(1, 9))
    ranked = exact_ranking(gallery, queries, labelled, top, known, chunks)
    check(ranked, grid_scores(gallery, queries), labelled, top, known)


@pytest.mark.parametrize("block", [64, 512])
@pytest.mark.parametrize("dim", [1, 64, 65, 700])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("length", [1.0, 1e-40, 1e-20, 3e4])
def test_quick_products_are_within_their_bound(block: int, dim: int, dtype: type[np.floating], length: float) -> None:
    rng = np.random.default_rng(dim)
    gallery, queries = (np.abs(rng.standard_normal((count, dim))) for count in (300, 5))
    gallery *= length / np.linalg.norm(gallery, axis=1, keepdims=True) * rng.random((300, 1))
    products, asked = InnerProducts(gallery.astype(dtype), 2000), Queries.of(queries.astype(np.float32), block)
    quick, error = products.quick(asked, np.arange(300))
    exact = products.exact(asked, np.arange(300))
    assert (np.abs(quick.astype(np.float64) - exact).max(1) <= error).all()
    assert (error > 0).all()
    asked_for, positions = rng.integers(0, 5, 700), rng.integers(0, 300, 700)
    assert (products.exact_pairs(asked, asked_for, positions) == exact[asked_for, positions]).all()


def test_products_are_exact_if_torch_may_round_below_float32() -> None:
    gallery, queries = whole()
    products, asked, everything = InnerProducts(gallery), Queries.of(queries), np.arange(len(gallery))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        quick, error = products.quick(asked, everything)
    finally:
        torch.set_float32_matmul_precision(before)
    assert (quick == products.exact(asked, everything)).all()
    assert (error == 0).all()
    assert (products.quick(asked, everything)[1] > 0).all()


@pytest.mark.parametrize("length", [1e25, 1e37])
def test_values_beyond_float32_are_multiplied_exactly(length: float) -> None:
    rng = np.random.default_rng(0)
    gallery, queries = rng.standard_normal((50, 9)) * length, rng.standard_normal((2, 9)).astype(np.float32) / length
    for rows in (gallery, np.float32(gallery)):
        quick, error = InnerProducts(rows).quick(Queries.of(np.float32(queries)), np.arange(50))
        assert (quick == InnerProducts(rows).exact(Queries.of(np.float32(queries)), np.arange(50))).all()
        assert (error == 0).all()


def test_equal_descriptors_tie_at_any_position() -> None:
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((5000, 37)).astype(np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    copies = np.sort(rng.permutation(5000)[:600])
    gallery[copies] = gallery[copies[0]]
    for asked in (1, 2, 5, 64):
        queries = np.concatenate([gallery[copies[:1]], gallery[:asked]])[:asked]
        ranked = exact_ranking(gallery, queries, [copies] * asked, 5)
        for ranks in ranked.ranks:
            assert (np.diff(ranks) == 1).all()
        assert ranked.top_k[0].tolist() == copies[:5].tolist()
        assert len(set(ranked.scores[0].tolist())) == 1


def test_results_do_not_depend_on_threads_parts_or_other_queries() -> None:
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((3000, 70)).astype(np.float32)
    queries = rng.standard_normal((9, 70)).astype(np.float32)
    labelled = some(gallery, queries, 40)
    threads = torch.get_num_threads()
    results = []
    for count, values in ((1, 2**18), (2, 7000), (3, 2**10)):
        torch.set_num_threads(count)
        results.append(exact_ranking(gallery, queries, labelled, 50, chunks=ChunkSizes(values=values)))
    torch.set_num_threads(threads)
    alone = [exact_ranking(gallery, queries[q : q + 1], labelled[q : q + 1], 50) for q in range(9)]
    for result in results[1:]:
        assert (result.top_k == results[0].top_k).all()
        assert (result.scores == results[0].scores).all()
        assert all(map(np.array_equal, result.ranks, results[0].ranks))
    assert all((one.scores[0] == own).all() for one, own in zip(alone, results[0].scores, strict=True))
    assert all((one.ranks[0] == own).all() for one, own in zip(alone, results[0].ranks, strict=True))


@pytest.mark.parametrize("length", [1.0, 0.714, 1e-12, 3e9])
@pytest.mark.parametrize("power", [1, 9])
def test_sums_of_products_on_the_grid_do_not_round(length: float, power: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2, 512)) ** power
    rows = (length * rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    one, other = round_to_grid(rows.astype(np.float64))
    exact = sum(Fraction(a) * Fraction(b) for a, b in zip(one.tolist(), other.tolist(), strict=True))
    for _ in range(20):
        order = rng.permutation(512)
        assert Fraction(float(np.cumsum(one[order] * other[order])[-1])) == exact
    true = sum(Fraction(a) * Fraction(b) for a, b in zip(*rows.tolist(), strict=True))
    assert abs(float(exact - true)) < 2**-24 * length**2


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_products_are_exact_if_torch_may_use_bfloat16(precision: str) -> None:
    rows = np.random.default_rng(0).standard_normal((9, 128)).astype(np.float32)
    products, queries, places = InnerProducts(rows), Queries.of(rows[:3]), np.arange(9)
    quick, error = products.quick(queries, places)
    assert (error > 0).all()
    torch.set_float32_matmul_precision(precision)
    try:
        found, error = products.quick(queries, places)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert (error == 0).all()
    assert (found == products.exact(queries, places)).all()
    np.testing.assert_allclose(quick, found, atol=1e-4)


def test_zeros_are_on_the_grid() -> None:
    assert (round_to_grid(np.zeros((3, 4))) == 0).all()
    gallery = np.zeros((3, 4), np.float32)
    ranked = exact_ranking(gallery, gallery[:1], [np.array([2, 0])], 2)
    assert ranked.top_k.tolist() == [[0, 1]]
    assert ranked.ranks[0].tolist() == [2, 0]


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_mapped_gallery_gives_the_same_ranking_and_keeps_changes(tmp_path: Path, mode: str) -> None:
    gallery, queries = whole()
    np.save(tmp_path / "gallery.npy", np.zeros_like(gallery) if mode == "c" else gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode=mode)  # pyright: ignore[reportArgumentType]
    if mode == "c":
        mapped[:] = gallery
    labelled = [positions[positions < 200] - 0 for positions in some(gallery, queries)]
    ranked = exact_ranking(np.asarray(mapped)[:200], queries, labelled, 5, chunks=SMALL)
    check(ranked, queries @ gallery[:200].T, labelled, 5, np.ones(200, np.bool_))
    assert (mapped == gallery).all()
    assert (memory_map_of(np.asarray(mapped)[3:9]) is None) == (mode == "c")
    assert memory_map_of(gallery) is None


def test_consecutive_rows_are_not_copied() -> None:
    table = np.arange(12.0).reshape(6, 2)
    assert np.shares_memory(take_rows(table, np.arange(2, 5)), table)
    for positions in ([], [1, 3], [2, 1, 0], [1, 1, 3], [4]):
        assert take_rows(table, np.array(positions, np.int64)).tolist() == table[np.array(positions, np.int64)].tolist()


def test_empty_galleries_have_no_answers() -> None:
    gallery, queries = whole(images=5, queries=2)
    labelled = [np.array([4, 1]), np.empty(0, np.int64)]
    for table, known in ((gallery, np.zeros(5, np.bool_)), (gallery[:0], None)):
        ranked = exact_ranking(table, queries, labelled if known is not None else [labelled[1]] * 2, 3, known)
        assert (ranked.top_k == -1).all()
        assert np.isneginf(ranked.scores).all()
        assert all((ranks == -1).all() for ranks in ranked.ranks)
    assert len(exact_ranking(gallery, queries[:0], [], 3)) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    gallery, queries = whole(images=40)
    nobody = some(gallery, queries, 0)
    spoiled = gallery.copy()
    spoiled[31, 2] = value
    with pytest.raises(UserError, match="gallery"):
        exact_ranking(spoiled, queries, nobody, 3)
    with pytest.raises(UserError, match="query"):
        exact_ranking(gallery, spoiled[30:32], nobody[:2], 3)
    # Unavailable descriptors may have any value.
    known = np.arange(40) != 31
    check(exact_ranking(spoiled, queries, nobody, 3, known), queries @ gallery.T, nobody, 3, known)


def test_inconsistent_shapes_are_refused() -> None:
    gallery, queries = whole(images=40, queries=2)
    nothing = np.empty(0, np.int64)
    with pytest.raises(UserError, match=r"\b5\b.*\b6\b"):
        exact_ranking(gallery, queries[:, :5], [nothing] * 2, 3)
    with pytest.raises(UserError, match=r"\b3\b.*\b2\b"):
        exact_ranking(gallery, queries, [nothing] * 3, 3)
    with pytest.raises(UserError, match=r"\b39\b.*\b40\b"):
        exact_ranking(gallery, queries, [nothing] * 2, 3, np.ones(39, np.bool_))
    for outside in (40, -1):
        with pytest.raises(UserError, match=rf"query 1 .*image {outside} .*40"):
            exact_ranking(gallery, queries, [nothing, np.array([3, outside])], 3)


def test_incomplete_lists_are_accepted() -> None:
    lists = [([5, 2, 9], [0.5, 0.25, 0.125]), ([7, -1, -1], [1.0, 3.0, 3.0]), ([], [])]
    labelled = [np.array([9, 4, 5, 9]), np.array([7]), np.array([7])]
    found = ((np.array(p, np.int64), np.array(s, np.float32)) for p, s in lists)
    ranked = listed_ranking(found, labelled, 2)
    assert ranked.top_k.tolist() == [[5, 2], [7, -1], [-1, -1]]
    assert ranked.scores.tolist() == [[0.5, 0.25], [1.0, -math.inf], [-math.inf, -math.inf]]
    assert [ranks.tolist() for ranks in ranked.ranks] == [[2, -1, 0, 2], [0], [-1]]
    assert ranks_in(np.array([3, 1]), np.empty(0, np.int64)).tolist() == []


def test_an_index_ranks_only_its_answers() -> None:
    gallery, queries = whole()
    labelled = some(gallery, queries)
    exact = exact_ranking(gallery, queries, labelled, 20, chunks=SMALL)
    index = FlatIndex()
    index.build(gallery)
    found = index_ranking(index, queries, labelled, 20, 50, queries_at_once=3)
    assert (found.top_k == exact.top_k).all()
    assert (found.scores == exact.scores).all()
    for ranks, own in zip(found.ranks, exact.ranks, strict=True):
        assert ranks.tolist() == np.where(own < 50, own, -1).tolist()


@pytest.mark.parametrize("index", [FlatIndex(), IVFFlatIndex(lists=4, probes=4, depth=300)])
def test_unknown_images_and_queries_are_left_out_of_every_kind_of_ranking(index: FlatIndex | IVFFlatIndex) -> None:
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((300, 8)).astype(np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    queries = gallery[:6] + np.float32(0.01)
    known, asked = rng.random(300) < 0.7, np.array([True, False, True, True, False, True])
    gallery[~known], queries[~asked] = np.nan, np.nan
    labelled = some(gallery, queries)
    ranked = gallery_ranking(gallery, queries, labelled, 4, known, asked, index)
    for query, own in enumerate(labelled):
        scores = np.nan_to_num(gallery.astype(np.float64)) @ np.nan_to_num(queries[query].astype(np.float64))
        order = [image for image in np.argsort(-scores, kind="stable").tolist() if known[image] and asked[query]]
        assert ranked.top_k[query].tolist() == (order[:4] or [-1] * 4)
        assert ranked.ranks[query].tolist() == [order.index(i) if i in order else -1 for i in own.tolist()]


def test_reordering_moves_images_and_scores() -> None:
    gallery, queries = whole(images=30, queries=3)
    labelled = [np.arange(30)] * 3
    before = exact_ranking(gallery, queries, labelled, 10)
    order = np.array([2, 0, 3, 1])
    after = reranked(before, {1: order})
    assert after.top_k[1].tolist() == [*before.top_k[1, order], *before.top_k[1, 4:]]
    assert after.scores[1].tolist() == [*before.scores[1, order], *before.scores[1, 4:]]
    full = np.argsort(before.ranks[1])
    assert np.argsort(after.ranks[1]).tolist() == [*full[order], *full[4:]]
    for query in (0, 2):
        assert after.ranks[query].tolist() == before.ranks[query].tolist()
        assert after.top_k[query].tolist() == before.top_k[query].tolist()
    assert before.top_k[1].tolist() == full[:10].tolist()


@pytest.mark.parametrize("order", [[0, 0, 1], [1, 2], list(range(11)), [0, 1, 2, 3, 4]])
def test_an_invalid_order_is_refused(order: list[int]) -> None:
    gallery, queries = whole(images=4, queries=1)
    ranked = exact_ranking(gallery, queries, [np.empty(0, np.int64)], 10)
    with pytest.raises(ValueError, match="query 0"):
        reranked(ranked, {0: np.array(order)})
