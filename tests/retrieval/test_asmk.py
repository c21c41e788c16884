"""ASMK compared with a plain numpy loop over images and words, and with the package's own pipeline."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from dolglab.errors import UserError
from dolglab.retrieval.asmk import ASMK
from dolglab.retrieval.asmk_codebook import Codebook, Origin, load_codebook

pytest.importorskip("asmk")

Gallery = list[tuple[int, NDArray[np.float32]]]


def descriptors(rng: np.random.Generator, n: int, dim: int = 32) -> NDArray[np.float32]:
    """L2-normalised descriptors around ten centres, so that images share words and words have several descriptors."""
    centres = np.random.default_rng(99).standard_normal((10, dim))
    rows = centres[rng.integers(0, 10, n)] + 0.7 * rng.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def gallery_of(seed: int, images: int = 30, dim: int = 32) -> Gallery:
    """Images with 0 to 39 descriptors, position 7 without any."""
    rng = np.random.default_rng(seed)
    return [(i, descriptors(rng, 0 if i == 7 else int(rng.integers(1, 40)), dim)) for i in range(images)]


def learned(**settings: object) -> ASMK:
    asmk = ASMK(**{"words": 16, "seed": 1, **settings})
    rng = np.random.default_rng(5)
    asmk.learn([descriptors(rng, 50) for _ in range(10)], "photos", "d1")
    return asmk


def aggregated(rows: NDArray, centroids: NDArray, assignments: int) -> dict[int, NDArray]:
    """The sum of residuals for each word, in float64, one descriptor at a time."""
    sums: dict[int, NDArray] = {}
    for row in rows.astype(np.float64):
        distances = ((centroids.astype(np.float64) - row) ** 2).sum(1)
        for word in np.argsort(distances)[:assignments].tolist():
            sums[word] = sums.get(word, 0) + row - centroids[word]
    return sums


def reference(
    gallery: Gallery, query: NDArray, centroids: NDArray, assignments: int, alpha: float, threshold: float, binary: bool
) -> NDArray[np.float64]:
    """Scores of all gallery images, image by image and word by word."""
    asked = aggregated(query, centroids, assignments)
    scores = np.zeros(len(gallery))
    for position, rows in gallery:
        has = aggregated(rows, centroids, 1)
        for word in asked.keys() & has.keys():
            a, b = asked[word], has[word]
            u = np.mean(np.where(a > 0, 1, -1) * np.where(b > 0, 1, -1)) if binary else a @ b / _norm(a) / _norm(b)
            scores[position] += u**alpha if u >= threshold else 0
        scores[position] /= np.sqrt(max(1, len(has)) * max(1, len(asked)))
    return scores


def _norm(vector: NDArray) -> float:
    return float(np.sqrt(vector @ vector)) + 1e-6


def codebook_of(asmk: ASMK, path: Path) -> Codebook:
    return load_codebook(asmk.save(path / "codebook.safetensors"))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("assignments", "alpha", "threshold"), [(5, 3.0, 0.0), (1, 1.0, 0.25), (40, 2.5, 0.1)])
def test_scores_equal_a_plain_loop(
    tmp_path: Path, binary: bool, assignments: int, alpha: float, threshold: float
) -> None:
    asmk = learned(binary=binary, assignments=assignments, alpha=alpha, threshold=threshold)
    gallery = gallery_of(0)
    asmk.build(gallery)
    centroids = codebook_of(asmk, tmp_path).centroids
    for seed in (1, 2, 3):
        query = descriptors(np.random.default_rng(seed), 20)
        expected = reference(gallery, query, centroids, assignments, alpha, threshold, binary)
        positions, scores = asmk.search(query)
        dense = np.zeros(len(gallery))
        dense[positions] = scores
        np.testing.assert_allclose(dense, expected, atol=1e-5)
        assert positions.dtype == np.int64
        assert scores.dtype == np.float32
        assert (np.diff(scores) <= 0).all()
        assert 7 not in positions


@pytest.mark.parametrize("binary", [True, False])
def test_scores_equal_the_package(tmp_path: Path, binary: bool) -> None:
    from asmk import ASMKMethod
    from asmk.codebook import Codebook as PackageCodebook
    from asmk.index import FaissL2Index

    asmk = learned(binary=binary)
    gallery = [item for item in gallery_of(3) if len(item[1])]
    asmk.build(gallery)
    words = PackageCodebook(FaissL2Index(), size=16)
    words.index(codebook_of(asmk, tmp_path).centroids)
    params = {
        "build_ivf": {
            "kernel": {"binary": binary},
            "ivf": {"use_idf": False},
            "quantize": {"multiple_assignment": 1},
            "aggregate": {},
        },
        "query_ivf": {
            "quantize": {"multiple_assignment": 5},
            "aggregate": {},
            "search": {"topk": None},
            "similarity": {"similarity_threshold": 0.0, "alpha": 3.0},
        },
    }
    owners = np.concatenate([np.full(len(rows), i) for i, rows in gallery])
    method = ASMKMethod(params, {}, codebook=words).build_ivf(np.concatenate([rows for _, rows in gallery]), owners)
    query = descriptors(np.random.default_rng(8), 25)
    _, _, ranks, package = method.query_ivf(query, np.zeros(25, int))
    positions, scores = asmk.rank(query, len(package[0]))
    np.testing.assert_allclose(scores, package[0], atol=1e-6)
    dense = np.empty(len(scores))
    dense[ranks[0]] = package[0]
    np.testing.assert_allclose(scores, dense[positions], atol=1e-6)


def test_equal_images_tie_in_gallery_order() -> None:
    asmk = learned()
    rng = np.random.default_rng(0)
    same, other = descriptors(rng, 30), descriptors(rng, 30)
    gallery = [(position, other if position % 3 else same) for position in range(60)]
    asmk.build(gallery[::-1])
    positions, scores = asmk.search(same)
    assert positions.tolist() == [*range(0, 60, 3), *(p for p in range(60) if p % 3)]
    assert len(np.unique(scores)) == 2


def test_batch_sizes_do_not_change_scores() -> None:
    asmk, gallery, query = learned(), gallery_of(4), descriptors(np.random.default_rng(9), 30)
    asmk.build(gallery)
    together, cost = asmk.search(query), asmk.bytes_per_image
    asmk.build(iter(gallery), features_at_once=50)
    apart = asmk.search(query)
    assert (together[0] == apart[0]).all()
    assert (together[1] == apart[1]).all()
    assert asmk.bytes_per_image == cost


def test_an_image_scores_one_with_itself() -> None:
    asmk = learned(assignments=1)
    rows = descriptors(np.random.default_rng(0), 12)
    asmk.build([(0, rows)])
    positions, scores = asmk.search(rows)
    assert positions.tolist() == [0]
    np.testing.assert_allclose(scores, [1.0], atol=1e-6)


def near(end: int, seed: int) -> NDArray[np.float32]:
    """Six descriptors near one of two opposite ends, 1 and -1."""
    noise = 0.01 * np.random.default_rng(seed).standard_normal((6, 32))
    return (end / np.sqrt(32) + noise).astype(np.float32)


def test_images_without_a_common_word_are_not_listed_and_come_last() -> None:
    asmk = ASMK(words=2, assignments=1)
    asmk.learn([near(1, 0), near(-1, 1)], "ends", "d")
    query = near(1, 2)
    asmk.build([(1, near(-1, 3)), (3, query), (2, near(-1, 4)), (0, query)])
    positions, scores = asmk.search(query)
    assert positions.tolist() == [0, 3]
    ordered, all_scores = asmk.rank(query, 6)
    assert ordered.tolist() == [0, 3, 1, 2, 4, 5]
    np.testing.assert_array_equal(all_scores, [*scores, 0, 0, 0, 0])
    asmk.build([(0, near(-1, 5))])
    assert asmk.search(query)[0].tolist() == []
    assert asmk.rank(query, 2)[0].tolist() == [0, 1]


def test_images_with_one_and_no_feature_are_ranked() -> None:
    asmk, gallery = learned(), gallery_of(0)
    asmk.build(gallery)
    assert len(asmk.search(gallery[0][1][:1])[0]) > 0
    none = np.empty((0, 32), np.float32)
    assert [len(part) for part in asmk.search(none)] == [0, 0]
    positions, scores = asmk.rank(none, 30)
    assert positions.tolist() == list(range(30))
    assert not scores.any()
    asmk.build([(0, none), (1, none)])
    assert len(asmk.search(gallery[0][1])[0]) == 0
    asmk.build([])
    assert len(asmk.search(gallery[0][1])[0]) == 0


def test_bytes_per_image_counts_the_whole_inverted_file(tmp_path: Path) -> None:
    asmk, gallery = learned(), gallery_of(0)
    asmk.build(gallery)
    centroids = codebook_of(asmk, tmp_path).centroids
    entries = sum(len(aggregated(rows, centroids, 1)) for _, rows in gallery)
    tables = 17 * 8 + 16 * 4 + 16 * 4
    assert asmk.bytes_per_image == (entries * (32 // 8 + 4) + 30 * 8 + tables) / 30


def test_learning_and_searching_depend_only_on_the_seed() -> None:
    gallery, query = gallery_of(0), descriptors(np.random.default_rng(1), 20)
    found = []
    for seed in (1, 1, 2):
        asmk = learned(seed=seed, training_features=300)
        asmk.build(gallery)
        found.append(asmk.rank(query, 30)[1])
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any()


@pytest.mark.parametrize(("dim", "input_dim", "reduced"), [(32, 96, 32), (128, 100, 96), (128, 64, 64), (None, 64, 64)])
def test_a_saved_codebook_is_loaded(tmp_path: Path, dim: int | None, input_dim: int, reduced: int) -> None:
    rng = np.random.default_rng(0)
    asmk = ASMK(words=8, dim=dim, iterations=3, seed=4)
    assert asmk.learned_on is None
    asmk.learn([descriptors(rng, 40, input_dim).astype(np.float16) for _ in range(4)], "Über\udc80 photos", "d1")
    file = asmk.save(tmp_path / "deep" / "codebook.safetensors")
    again = ASMK(dim=dim, codebook=str(file))
    assert again.learned_on == asmk.learned_on == ("Über\udc80 photos", "d1")
    about = again.config()
    assert about == {**asmk.config(), "assignments": 5}
    assert (about["words"], about["dim"], about["descriptor_dim"]) == (8, reduced, input_dim)
    assert (about["learned_features"], about["iterations"], about["seed"]) == (160, 3, 4)
    gallery, query = gallery_of(0, dim=input_dim), descriptors(rng, 20, input_dim)
    asmk.build(gallery)
    again.build(gallery)
    assert (asmk.rank(query, 30)[1] == again.rank(query, 30)[1]).all()
    assert asmk.rank(query, 30)[1].any()


def test_the_number_of_words_follows_from_the_number_of_features() -> None:
    assert learned(words=None).config()["words"] == 8


def test_too_few_features_are_refused() -> None:
    rows = [descriptors(np.random.default_rng(0), 10)]
    with pytest.raises(UserError, match=r"photos: aggregate\.words=10"):
        ASMK(words=16).learn(rows, "photos", "d")
    with pytest.raises(UserError, match="no local features"):
        ASMK().learn([np.empty((0, 32), np.float32)], "photos", "d")
    wide = [descriptors(np.random.default_rng(0), 10, 256)]
    with pytest.raises(UserError, match=r"10 features of photos .*128"):
        ASMK(words=2).learn(wide, "photos", "d")


def test_descriptors_that_do_not_fit_are_refused() -> None:
    asmk, gallery = learned(), gallery_of(0)
    asmk.build(gallery)
    with pytest.raises(UserError, match=r"the query have 64 .* photos takes 32"):
        asmk.search(descriptors(np.random.default_rng(0), 5, 64))
    with pytest.raises(UserError, match=r"gallery image 3 have 64"):
        asmk.build([(3, descriptors(np.random.default_rng(0), 5, 64))])
    bad = gallery[0][1].copy()
    bad[0, 0] = np.nan
    with pytest.raises(UserError, match="gallery image 4"):
        asmk.build([(4, bad)])
    with pytest.raises(UserError, match="image 1 of photos"):
        asmk.learn([gallery[0][1], bad], "photos", "d")
    mixed = [gallery[0][1], descriptors(np.random.default_rng(0), 5, 64)]
    with pytest.raises(UserError, match=r"\b32 .*\b64$"):
        asmk.learn(mixed, "photos", "d")
    with pytest.raises(ValueError, match="gallery position"):
        asmk.build([gallery[0], gallery[0]])


def test_binary_codes_need_a_multiple_of_32_dimensions() -> None:
    rows = [descriptors(np.random.default_rng(0), 50, 40)]
    with pytest.raises(UserError, match=r"aggregate\.dim=32 or aggregate\.binary=false"):
        ASMK(words=2, dim=None).learn(rows, "photos", "d")
    short = [rows[0][:, :20]]
    with pytest.raises(UserError, match=r"\b32 .* not 20"):
        ASMK(words=2).learn(short, "photos", "d")
    with pytest.raises(UserError, match=r"aggregate\.dim=100"):
        ASMK(dim=100)
    asmk = ASMK(words=2, dim=None, binary=False)
    asmk.learn(rows, "photos", "d")
    assert asmk.config()["dim"] == 40


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"words": 0}, r"aggregate\.words .*not 0$"),
        ({"dim": -32}, r"aggregate\.dim "),
        ({"assignments": 0}, r"aggregate\.assignments "),
        ({"iterations": 0}, r"aggregate\.iterations "),
        ({"training_features": 2**31}, r"aggregate\.training_features "),
        ({"seed": -1}, r"aggregate\.seed "),
        ({"alpha": 0.0}, r"aggregate\.alpha "),
        ({"alpha": float("nan")}, r"aggregate\.alpha "),
        ({"threshold": -0.5}, r"aggregate\.threshold "),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ASMK(**settings)


def test_files_that_are_not_codebooks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        ASMK(codebook=tmp_path / "nowhere")
    file = learned().save(tmp_path / "codebook.safetensors")
    with pytest.raises(UserError, match=r"aggregate\.words=16"):
        ASMK(words=32, codebook=file)
    with pytest.raises(UserError, match=r"cut .*\(SafetensorError\)"):
        load_codebook(_written(tmp_path / "cut", file.read_bytes()[:-7]))
    save_file({"centroids": np.ones((2, 32), np.float32)}, tmp_path / "other")
    with pytest.raises(UserError, match=r"other .*\(KeyError\)"):
        load_codebook(tmp_path / "other")
    projection = np.ones((64, 32), np.float32)
    origin = Origin("photos", "d", 10, 3, 0)
    wrong = Codebook(projection, np.ones(9, np.float32), projection, origin).save(tmp_path / "wrong")
    with pytest.raises(UserError, match="wrong"):
        load_codebook(wrong)
    infinite = Codebook(np.full((2, 32), np.inf, np.float32), None, None, origin).save(tmp_path / "infinite")
    with pytest.raises(UserError, match="infinite"):
        load_codebook(infinite)
    reduced = Codebook(projection[:8], np.ones(64, np.float32), projection, origin).save(tmp_path / "reduced")
    with pytest.raises(UserError, match=r"\b32 .* 64, .*aggregate\.dim=128"):
        ASMK(codebook=reduced)


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_missing_package_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asmk", None)
    with pytest.raises(UserError, match=r"dolglab\[asmk\]"):
        ASMK()


def test_searching_before_building_is_an_error() -> None:
    query = descriptors(np.random.default_rng(0), 5)
    with pytest.raises(RuntimeError):
        ASMK().build([(0, query)])
    with pytest.raises(RuntimeError):
        learned().search(query)
