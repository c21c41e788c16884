from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolglab.contracts import TrainingSet
from dolglab.data.gldv2 import hold_out, load_gldv2, read_labels
from dolglab.data.sources import GLDv2Source, hash_share
from dolglab.errors import UserError

ID = "00a1b2c3d4e5f607"
OTHER = "ffffffffffffffff"


def synthetic(counts: list[int], seed: int = 0) -> TrainingSet:
    rng = np.random.default_rng(seed)
    ids = np.unique(rng.integers(0, 2**64, sum(counts), np.uint64))
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))[: len(ids)]
    names = np.array([f"{10 * label}" for label in range(len(counts))])
    return TrainingSet(GLDv2Source("nowhere", "train", ids), ids, labels, names)


def as_kaggle(folder: Path) -> None:
    """Rewrites the fixture's csv in Kaggle's form."""
    rows = [line.split(",") for line in (folder / "train_clean.csv").read_text().splitlines()[1:]]
    lines = [f"{name},{landmark}" for landmark, names in rows for name in names.split()]
    (folder / "train.csv").write_text("\n".join(["id,landmark_id", *lines]) + "\n")


def test_labels_are_positions_of_the_ascending_landmark_ids(gldv2: Path) -> None:
    training = load_gldv2(gldv2)
    assert training.classes.tolist() == ["7", "30", "200"]
    assert len(training) == 30
    assert np.all(training.ids[1:] > training.ids[:-1])
    rows = dict(line.split(",") for line in (gldv2 / "train_clean.csv").read_text().splitlines()[1:])
    for number, label in zip(training.ids, training.labels, strict=True):
        assert f"{int(number):016x}" in rows[str(training.classes[label])]
    for column, dtype in ((training.ids, np.uint64), (training.labels, np.int64)):
        assert column.dtype == dtype
    assert training.source.read(3)[:2] == b"\xff\xd8"


def test_both_csv_forms_give_the_same_set(gldv2: Path) -> None:
    as_kaggle(gldv2)
    clean, kaggle = load_gldv2(gldv2), load_gldv2(gldv2, "train.csv")
    np.testing.assert_array_equal(clean.ids, kaggle.ids)
    np.testing.assert_array_equal(clean.labels, kaggle.labels)
    np.testing.assert_array_equal(clean.classes, kaggle.classes)


@pytest.mark.parametrize(
    "text",
    [
        f"landmark_id,images\n5,{ID} {OTHER}\n",
        f"\ufefflandmark_id,images\r\n5,{ID} {OTHER}\r\n",
        f"images, landmark_id\n{ID}  {OTHER} ,5\n\n",
        f"id,landmark_id\r\n{ID},5\r\n{OTHER},5\r\n",
        f'id,url,landmark_id\n{ID},"http://host/a,b.jpg",5\n{OTHER},,5\n',
        f"landmark_id,images\n4,\n5,{ID} {OTHER}",
    ],
)
def test_harmless_variants_of_the_format_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    ids, landmarks = read_labels(tmp_path / "a.csv")
    assert ids.tolist() == [0x00A1B2C3D4E5F607, 2**64 - 1]
    assert landmarks.tolist() == [5, 5]
    assert (ids.dtype, landmarks.dtype) == (np.uint64, np.int64)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "landmark_id,images or id,landmark_id"),
        (b"landmark,images\n", "landmark_id,images or id,landmark_id.*'landmark,images'"),
        (f"{ID},5\n".encode(), f"'{ID},5'"),
        (b"landmark_id,images\n", "train.csv"),
        (b"landmark_id,images\n3,\n", "train.csv"),
        (b"landmark_id,images\n3,00a1b2\n", "row 2: '00a1b2'"),
        (f"landmark_id,images\n3,{ID}\n3,zzzzzzzzzzzzzzzz\n".encode(), "row 3: 'zzzz"),
        (b"id,landmark_id\n0x00000000000001,3\n", "row 2: '"),
        (b"id,landmark_id\n+000000000000001,3\n", "row 2: '"),
        (b"id,landmark_id\n00A1B2C3D4E5F607,3\n", "row 2: '00A1"),
        (b"id,landmark_id\n,3\n", "row 2: ''"),
        (f"id,landmark_id\n{ID},three\n".encode(), "row 2: .*three"),
        (f"id,landmark_id\n{ID},{2**70}\n".encode(), "row 2"),
        (f"id,landmark_id\n{ID}\n".encode(), "row 2"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "train.csv"),
        (b"id,landmark_id\n\xff\xfe,1\n", "train.csv"),
    ],
)
def test_a_bad_csv_gives_one_clear_line(tmp_path: Path, text: bytes, why: str) -> None:
    (tmp_path / "train.csv").write_bytes(text)
    with pytest.raises(UserError, match=why) as error:
        load_gldv2(tmp_path, "train.csv")
    assert "\n" not in str(error.value)
    assert "train.csv" in str(error.value)


def test_a_landmark_of_any_number_of_images_is_read(tmp_path: Path) -> None:
    ids = [f"{number:016x}" for number in range(9000)]
    (tmp_path / "a.csv").write_text(f"landmark_id,images\n1,{' '.join(ids)}\n")
    assert read_labels(tmp_path / "a.csv")[0].tolist() == list(range(9000))


def test_duplicate_ids_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train_clean.csv").write_text(f"landmark_id,images\n1,{ID} {OTHER}\n2,{ID}\n")
    with pytest.raises(UserError, match=ID):
        load_gldv2(tmp_path)


@pytest.mark.parametrize("root", [".", "missing"])
def test_missing_data_names_the_path_and_the_remedies(tmp_path: Path, root: str) -> None:
    with pytest.raises(UserError, match=r"train_clean\.csv.*task=gldv2.*make demo") as error:
        load_gldv2(tmp_path / root)
    assert "\n" not in str(error.value)


def test_labels_without_images_are_refused(gldv2: Path) -> None:
    training = load_gldv2(gldv2)
    (gldv2 / training.source.name(0)).unlink()
    (gldv2 / training.source.name(9)).unlink()
    with pytest.raises(UserError, match=rf"2 of 30 .*{re.escape(training.source.name(0))}"):
        load_gldv2(gldv2)


def test_hold_out_is_a_deterministic_disjoint_share_that_keeps_every_landmark() -> None:
    training = synthetic([1, 2, 3, 5, 400, 900, 60, 80, 2000])
    rest, benchmark = hold_out(training, 0.3, seed=1)
    again, _ = hold_out(training, 0.3, seed=1)
    np.testing.assert_array_equal(rest.ids, again.ids)
    assert hold_out(training, 0.3, seed=2)[0].ids.tolist() != rest.ids.tolist()
    assert set(rest.labels.tolist()) == set(range(9))
    assert rest.classes is training.classes
    label_of = dict(zip(training.ids.tolist(), training.labels.tolist(), strict=True))
    assert [label_of[number] for number in rest.ids.tolist()] == rest.labels.tolist()
    assert isinstance(benchmark.source, GLDv2Source)
    assert not set(rest.ids.tolist()) & set(benchmark.source.ids.tolist())
    assert 1 - len(rest) / len(training) == pytest.approx(0.3, abs=0.03)


def test_hold_out_does_not_depend_on_the_order_of_the_images() -> None:
    training = synthetic([30, 40, 50])
    order = np.random.default_rng(1).permutation(len(training))
    ids, labels = training.ids[order], training.labels[order]
    shuffled = TrainingSet(GLDv2Source("nowhere", "train", ids), ids, labels, training.classes)
    assert set(hold_out(training, 0.2)[0].ids.tolist()) == set(hold_out(shuffled, 0.2)[0].ids.tolist())


def test_held_out_photos_are_queries_for_their_landmark() -> None:
    training = synthetic([40] * 30)
    _, benchmark = hold_out(training, 0.2, landmarks=10, photos=3)
    assert isinstance(benchmark.source, GLDv2Source)
    label_of = dict(zip(training.ids.tolist(), training.labels.tolist(), strict=True))
    labels = np.array([label_of[number] for number in benchmark.source.ids.tolist()])
    values, counts = np.unique(labels, return_counts=True)
    assert len(values) == 10
    assert set(counts.tolist()) <= {2, 3}
    assert benchmark.difficulties == ("medium",)
    for query, positives in enumerate(benchmark.ground_truth.easy):
        expected = [row for row in range(len(labels)) if labels[row] == labels[query] and row != query]
        assert positives.tolist() == expected
        assert benchmark.ground_truth.junk[query].tolist() == [query]


@settings(max_examples=30, derandomize=True, deadline=None)
@given(counts=st.lists(st.integers(1, 12), min_size=1, max_size=8), share=st.floats(0.05, 0.95))
def test_hold_out_of_any_set_keeps_one_of_each_landmark(counts: list[int], share: float) -> None:
    training = synthetic(counts)
    held = np.bincount(training.labels[hash_share(training.ids, 0) < share], minlength=len(counts))
    if not any(1 < part < count for part, count in zip(held, np.bincount(training.labels), strict=True)):
        with pytest.raises(UserError, match="held-out"):
            hold_out(training, share)
        return
    rest, benchmark = hold_out(training, share)
    assert set(rest.labels.tolist()) == set(training.labels.tolist())
    assert any(len(part) for part in benchmark.ground_truth.easy)


@pytest.mark.parametrize("share", [0, 1, -0.1, 2])
def test_impossible_shares_are_refused(share: float) -> None:
    with pytest.raises(UserError, match=r"data\.holdout"):
        hold_out(synthetic([5, 5]), share)
