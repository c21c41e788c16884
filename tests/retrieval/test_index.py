"""Every kind of index compared with a full stable sort in numpy, and its errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dolglab.errors import UserError
from dolglab.retrieval.faiss_indexes import HNSWIndex, IVFFlatIndex, IVFPQIndex, OPQIndex
from dolglab.retrieval.index import FlatIndex, Index, recall
from retrieval.indexes import DIM, KINDS, Table, every_kind, rows, stable_sort

CONF = Path(__file__).resolve().parents[2] / "conf" / "index"


def test_flat_equals_a_stable_sort_of_the_full_product() -> None:
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((50, 8)).astype(np.float32)
    gallery[10:20] = gallery[0]
    queries = rng.standard_normal((7, 8)).astype(np.float32)
    index = FlatIndex()
    index.build(gallery)
    scores, positions = index.search(queries, 50)
    product = queries @ gallery.T
    expected = np.argsort(-np.round(product, 4), axis=1, kind="stable")
    assert (positions == expected).all()
    np.testing.assert_allclose(scores, np.take_along_axis(product, expected, 1), atol=1e-5)


def test_flat_gives_many_queries_the_answers_of_one_and_restores_faiss(
    data: tuple[Table, Table], built: dict[str, Index]
) -> None:
    usual = faiss.cvar.distance_compute_blas_threshold
    scores, positions = built["flat"].search(np.tile(data[1], (3, 1)), 20)
    for query, own_scores, own in zip(np.tile(data[1], (3, 1)), scores, positions, strict=True):
        few = built["flat"].search(query[None], 20)
        assert (few[1] == own).all()
        np.testing.assert_allclose(few[0][0], own_scores, atol=1e-6)
    assert faiss.cvar.distance_compute_blas_threshold == usual


@every_kind
def test_an_index_finds_its_share_of_the_nearest(kind: str, data: tuple[Table, Table], built: dict[str, Index]) -> None:
    exact = stable_sort(*data)[1]
    scores, positions = built[kind].search(data[1], 10)
    assert scores.shape == positions.shape == (40, 10)
    assert (scores.dtype, positions.dtype) == (np.float32, np.int64)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert recall(positions, exact, 10) >= KINDS[kind][1]
    assert len(built[kind]) == 1500


@pytest.mark.parametrize("kind", ["flat", "ivf_flat", "hnsw", "rabitq"])
def test_scores_of_whole_descriptors_are_their_cosines(
    kind: str, data: tuple[Table, Table], built: dict[str, Index]
) -> None:
    scores, positions = built[kind].search(data[1], 10)
    np.testing.assert_allclose(scores, np.take_along_axis(stable_sort(*data)[0], positions, 1), atol=1e-5)


@pytest.mark.parametrize("kind", ["ivf_pq", "opq_pq"])
def test_scores_of_codes_approximate_the_cosines(kind: str, data: tuple[Table, Table], built: dict[str, Index]) -> None:
    scores, positions = built[kind].search(data[1], 10)
    np.testing.assert_allclose(scores, np.take_along_axis(stable_sort(*data)[0], positions, 1), atol=0.15)


def test_ivf_with_all_lists_probed_is_exact(data: tuple[Table, Table]) -> None:
    index = IVFFlatIndex(lists=30, probes=1000)
    index.build(data[0])
    positions = index.search(data[1], 1500)[1]
    cosines, order = stable_sort(*data)
    assert (np.sort(positions) == np.arange(1500)).all()
    # Cosines that float32 cannot distinguish may be swapped.
    expected = np.take_along_axis(cosines, order, 1)
    np.testing.assert_allclose(np.take_along_axis(cosines, positions, 1), expected, atol=1e-6)


def test_probes_can_be_increased_after_building(data: tuple[Table, Table]) -> None:
    exact = stable_sort(*data)[1]
    index = IVFFlatIndex(lists=30, probes=1)
    index.build(data[0])
    few = recall(index.search(data[1], 10)[1], exact, 10)
    index.probes = 30
    assert few < recall(index.search(data[1], 10)[1], exact, 10) == 1


@every_kind
def test_the_same_descriptors_give_the_same_index(
    kind: str, data: tuple[Table, Table], built: dict[str, Index], tmp_path: Path
) -> None:
    np.save(tmp_path / "gallery.npy", data[0])
    again = KINDS[kind][0]()
    again.build(np.load(tmp_path / "gallery.npy", mmap_mode="r"))
    for ours, theirs in zip(again.search(data[1], 20), built[kind].search(data[1], 20), strict=True):
        assert (ours == theirs).all()


def test_a_gallery_added_in_parts_is_the_same(data: tuple[Table, Table], built: dict[str, Index]) -> None:
    again = KINDS["ivf_pq"][0]()
    again.build(data[0], rows_at_once=400)
    assert (again.search(data[1], 20)[1] == built["ivf_pq"].search(data[1], 20)[1]).all()


@every_kind
def test_equal_scores_are_in_gallery_order_even_at_the_end_of_the_list(kind: str) -> None:
    rng = np.random.default_rng(0)
    gallery = rows(rng.standard_normal((600, 8)))
    gallery[rng.permutation(600)[:60]] = gallery[7]
    make = {
        "ivf_flat": lambda: IVFFlatIndex(lists=4, probes=4),
        "ivf_pq": lambda: IVFPQIndex(lists=4, probes=4, code_bytes=8),
        "opq_pq": lambda: OPQIndex(code_bytes=8, iterations=2),
    }.get(kind, KINDS[kind][0])
    index = make()
    index.build(gallery)
    scores, positions = index.search(np.repeat(gallery[7:8], 3, 0), 25)
    same = np.flatnonzero((gallery == gallery[7]).all(1))
    assert (scores == scores[0, 0]).all()
    assert (positions == same[:25]).all()


@every_kind
def test_more_answers_than_images_are_filled_up(kind: str, data: tuple[Table, Table], built: dict[str, Index]) -> None:
    scores, positions = built[kind].search(data[1][:2], 1600)
    missing = positions == -1
    assert missing[:, 1500:].all()
    assert (missing == np.isneginf(scores)).all()
    for row in positions:
        assert len(np.unique(row[row >= 0])) == (row >= 0).sum() > 100


def test_empty_galleries_and_queries_give_no_answers() -> None:
    empty, one = np.empty((0, 4), np.float32), np.ones((1, 4), np.float32)
    index = FlatIndex()
    index.build(empty)
    scores, positions = index.search(one, 2)
    assert np.isneginf(scores).all()
    assert (positions == -1).all()
    index.build(one)
    assert index.search(empty, 3)[1].shape == (0, 3)
    assert index.search(one, 3)[1].tolist() == [[0, -1, -1]]


SMALL: list[tuple[int, Callable[[], Index]]] = [
    (1, IVFFlatIndex),
    (1, HNSWIndex),
    (16, lambda: IVFPQIndex(code_bytes=8, bits=4)),
    (32, lambda: OPQIndex(code_bytes=8, bits=4, iterations=2)),
    (39, lambda: IVFFlatIndex(lists=39)),
    (300, lambda: IVFPQIndex(code_bytes=8)),
    (300, lambda: OPQIndex(code_bytes=8, iterations=2)),
]


@pytest.mark.parametrize(("images", "make"), SMALL)
@pytest.mark.parametrize("alike", [False, True])
def test_small_galleries_are_indexed_and_faiss_says_nothing(
    images: int, make: Callable[[], Index], alike: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    gallery = rows(np.random.default_rng(0).standard_normal((images, DIM)))
    if alike:
        gallery[:] = gallery[0]
    index = make()
    index.build(gallery)
    score, position = index.search(gallery[:1], 1)
    assert position.tolist() == [[0]]
    assert 0.5 < score[0, 0] < 1.1
    assert capfd.readouterr() == ("", "")


def test_lists_are_the_square_root_of_the_gallery_where_training_allows() -> None:
    gallery = rows(np.random.default_rng(0).standard_normal((2500, 4)))
    sizes = []
    for sample in (2500, 400, 10):
        index = IVFFlatIndex(training_sample=sample)
        index.build(gallery)
        sizes.append(round((index.bytes_per_vector * 2500 - 2500 * (16 + 8)) / 16))
    assert sizes == [50, 10, 1]


@every_kind
def test_values_that_are_not_finite_are_refused(kind: str, data: tuple[Table, Table], built: dict[str, Index]) -> None:
    for value in (np.nan, np.inf):
        gallery = data[0].copy()
        gallery[-1, 3] = value
        with pytest.raises(UserError, match="gallery"):
            KINDS[kind][0]().build(gallery)
        with pytest.raises(UserError, match="query"):
            built[kind].search(gallery[-1:], 1)


@every_kind
def test_an_index_must_be_built_before_use(kind: str, tmp_path: Path) -> None:
    index = KINDS[kind][0]()
    assert len(index) == 0
    with pytest.raises(RuntimeError):
        index.search(np.ones((1, 4), np.float32), 1)
    with pytest.raises(RuntimeError):
        index.save(tmp_path / "index")
    with pytest.raises(RuntimeError):
        _ = index.bytes_per_vector


@every_kind
def test_each_configuration_makes_its_kind_with_its_defaults(kind: str) -> None:
    index = instantiate(OmegaConf.load(CONF / f"{kind}.yaml"))()
    plain = type(KINDS[kind][0]())()
    assert index.kind == kind
    assert vars(index) == vars(plain)


def test_only_flat_is_exact_and_has_no_depth() -> None:
    indexes = [make() for make, _ in KINDS.values()]
    assert [index.exact for index in indexes] == [True, *[False] * 5]
    assert [index.depth for index in indexes] == [None, *[1000] * 5]
    assert [index.kind for index in indexes] == list(KINDS)


def test_wrong_shapes_and_numbers_of_answers_are_refused(built: dict[str, Index]) -> None:
    with pytest.raises(UserError, match=r"query.*\(32,\)"):
        built["flat"].search(np.ones(32, np.float32), 1)
    with pytest.raises(UserError, match=r"\b0$"):
        built["flat"].search(np.ones((1, 32), np.float32), 0)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (IVFFlatIndex(lists=101), r"ivf_flat: 101 .* 100 .*index\.lists"),
        (IVFFlatIndex(lists=60, training_sample=50), r"ivf_flat: 60 .* 50 .*index\.lists"),
        (IVFPQIndex(code_bytes=8), r"ivf_pq: .* 256 .* 100.*index\.bits"),
        (OPQIndex(code_bytes=8), r"opq_pq: .* 256 .* 100.*index\.bits"),
        (OPQIndex(code_bytes=5), r"opq_pq: .* 5 bytes with 8 bits .* 32 .*index\.code_bytes"),
        (IVFPQIndex(code_bytes=3, bits=5), r"ivf_pq: .* 3 bytes with 5 bits .* 32 .*index\.code_bytes"),
    ],
)
def test_a_gallery_that_does_not_fit_the_settings_is_refused(index: Index, message: str) -> None:
    with pytest.raises(UserError, match=message):
        index.build(rows(np.random.default_rng(0).standard_normal((100, 32))))
    assert len(index) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IVFFlatIndex(lists=0), r"index\.lists .*not 0$"),
        (lambda: IVFFlatIndex(probes=0), r"index\.probes .*not 0$"),
        (lambda: IVFPQIndex(code_bytes=0), r"index\.code_bytes .*not 0$"),
        (lambda: IVFPQIndex(bits=13), r"index\.bits .*not 13$"),
        (lambda: IVFPQIndex(training_sample=0), r"index\.training_sample "),
        (lambda: OPQIndex(iterations=0), r"index\.iterations "),
        (lambda: OPQIndex(bits=3), r"index\.bits .*not 3$"),
        (lambda: OPQIndex(seed=-1), r"index\.seed .*not -1$"),
        (lambda: HNSWIndex(m=1), r"index\.m .*not 1$"),
        (lambda: HNSWIndex(ef_search=0), r"index\.ef_search "),
        (lambda: HNSWIndex(depth=0), r"index\.depth "),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Index], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_recall_is_the_mean_share_found() -> None:
    rng = np.random.default_rng(0)
    exact = np.stack([rng.permutation(60)[:20] for _ in range(9)])
    approximate = np.stack([rng.permutation(60)[:25] for _ in range(9)])
    approximate[:, 17:] = -1
    for k in (1, 10, 20):
        shares = [
            len(set(ours[:k].tolist()) & set(best[:k].tolist())) / k
            for ours, best in zip(approximate, exact, strict=True)
        ]
        assert recall(approximate, exact, k) == pytest.approx(np.mean(shares))


def test_recall_counts_existing_answers() -> None:
    exact = np.array([[4, 2, -1], [-1, -1, -1], [0, 1, 2]])
    approximate = np.array([[2, 4, -1], [5, -1, -1], [3, 2, -1]])
    assert recall(approximate, exact, 3) == pytest.approx((1 + 1 / 3) / 2)
    assert np.isnan(recall(approximate[1:2], exact[1:2], 3))
    with pytest.raises(UserError, match=r"recall@4 .*\(3, 3\)"):
        recall(approximate, exact, 4)


@pytest.mark.parametrize("kind", ["flat", "ivf_flat", "hnsw"])
def test_a_search_among_some_finds_only_these(kind: str, data: tuple[Table, Table], built: dict[str, Index]) -> None:
    gallery, queries = data
    allowed = np.zeros(len(gallery), np.bool_)
    # All near the queries, so that approximate kinds find them.
    allowed[np.unique(np.argsort(-(queries @ gallery.T), axis=1)[:, :3])] = True
    scores, positions = built[kind].search(queries, 3, allowed)
    assert allowed[positions[positions >= 0]].all()
    assert (positions[:, 0] == (queries @ gallery.T).argmax(1)).mean() >= 0.95
    everything, _ = built[kind].search(queries, 3)
    np.testing.assert_allclose(scores, everything, rtol=1e-4, atol=2e-2)
    assert (built["flat"].search(queries, int(allowed.sum()) + 1, allowed)[1][:, -1] == -1).all()


@pytest.mark.parametrize("kind", ["opq_pq", "rabitq"])
def test_kinds_without_selection_refuse_a_partial_search(
    kind: str, data: tuple[Table, Table], built: dict[str, Index]
) -> None:
    with pytest.raises(UserError, match=kind):
        built[kind].search(data[1], 3, np.ones(len(data[0]), np.bool_))
