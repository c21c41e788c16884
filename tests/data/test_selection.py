"""Which images are used for training, and how often, compared with counts by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dolglab.contracts import TrainingSet
from dolglab.data.datasets import EpochSampler, draw_chances
from dolglab.data.gldv2 import capped, of_categories, select, subset
from dolglab.data.module import LandmarkDataModule
from dolglab.data.sources import GLDv2Source
from dolglab.errors import UserError

COUNTS = {"7": 5, "30": 1, "200": 12}


@pytest.fixture
def training() -> TrainingSet:
    ids = np.sort(np.random.default_rng(0).integers(0, 2**63, sum(COUNTS.values()), np.uint64))
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(3), list(COUNTS.values())))
    return TrainingSet(GLDv2Source("nowhere", "train", ids), ids, labels, np.array(list(COUNTS)))


def counts(training: TrainingSet) -> dict[str, int]:
    return dict(zip(training.classes.tolist(), np.bincount(training.labels).tolist(), strict=True))


def test_listed_landmarks_are_excluded(training: TrainingSet, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("30\n  200  # of ROxford\n\n999\n")
    left = select(training, exclude_landmarks=tmp_path / "list.txt")
    assert counts(left) == {"7": 5}
    assert left.ids.tolist() == training.ids[training.labels == 0].tolist()
    assert left.source.name(2) == training.source.name(int(np.flatnonzero(training.labels == 0)[2]))


def test_listed_images_are_left_out(training: TrainingSet, tmp_path: Path) -> None:
    only = np.flatnonzero(training.labels == 1)
    gone = np.concatenate([only, [0, 3]])
    (tmp_path / "list.txt").write_text("\n".join(f"{int(training.ids[row]):016x}" for row in gone))
    left = select(training, exclude_images=tmp_path / "list.txt")
    assert sorted(left.ids.tolist()) == sorted(np.delete(training.ids, np.unique(gone)).tolist())
    assert "30" not in left.classes


@pytest.mark.parametrize("line", ["123", "z" * 16, "00a1b2c3d4e5f607.jpg", "0x00000000000001", "+000000000000001"])
def test_an_invalid_list_is_refused(training: TrainingSet, tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(line)
    with pytest.raises(UserError, match=r"list\.txt.*16 hex digits"):
        select(training, exclude_images=tmp_path / "list.txt")
    with pytest.raises(UserError, match=r"gone\.txt"):
        select(training, exclude_landmarks=tmp_path / "gone.txt")


def test_categories_select_landmarks(training: TrainingSet, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("landmark_id,supercategory,kind\n7,church,human-made\n30,lake,natural\n200,castle,human-made\n")
    made = subset(training, of_categories(training, path, {"kind": "human-made"}))
    assert counts(made) == {"7": 5, "200": 12}
    both = of_categories(training, path, {"kind": "human-made", "supercategory": ["church", "lake"]})
    assert counts(subset(training, both)) == {"7": 5}
    with pytest.raises(UserError, match=r"size.* landmark_id, supercategory, kind"):
        of_categories(training, path, {"size": "large"})
    with pytest.raises(UserError, match="kind=modern"):
        of_categories(training, path, {"kind": "modern"})
    with pytest.raises(UserError, match=r"gone\.csv"):
        of_categories(training, tmp_path / "gone.csv", {"kind": "modern"})


def test_a_cap_keeps_the_same_images_whatever_else_is_there(training: TrainingSet) -> None:
    left = subset(training, capped(training, 4, seed=0))
    assert counts(left) == {"7": 4, "30": 1, "200": 4}
    alone = subset(training, training.labels == 2)
    assert subset(alone, capped(alone, 4, seed=0)).ids.tolist() == left.ids[left.labels == 2].tolist()
    assert subset(training, capped(training, 4, seed=1)).ids.tolist() != left.ids.tolist()
    with pytest.raises(UserError, match=r"data\.cap.* 0"):
        capped(training, 0, seed=0)


def test_an_empty_selection_is_refused(training: TrainingSet) -> None:
    with pytest.raises(UserError):
        subset(training, np.zeros(len(training), np.bool_))


def test_the_data_module_applies_all_selections(gldv2: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("30\n")
    data = LandmarkDataModule.from_gldv2(
        gldv2, holdout=0, exclude_landmarks=tmp_path / "list.txt", cap=3, batch_size=4, workers=0
    )
    assert data.classes == ["7", "200"]
    assert data.class_sizes.tolist() == [3, 3]
    (gldv2 / "index_image_to_landmark.csv").write_text("id,landmark_id\n")
    with pytest.raises(UserError, match=r"index_image_to_landmark\.csv"):
        LandmarkDataModule.from_gldv2(gldv2, train_csv="index_image_to_landmark.csv")


@pytest.mark.parametrize(("sampling", "power"), [("balanced", 0.0), ("sqrt", 0.5)])
def test_draws_depend_on_the_size_of_a_class(sampling: str, power: float) -> None:
    sizes = np.array([1, 9, 90])
    labels = np.repeat(np.arange(3), sizes)
    chances = draw_chances(labels, sampling)
    assert chances is not None
    share = sizes**power / (sizes**power).sum()
    np.testing.assert_allclose(np.bincount(labels, chances), share)
    np.testing.assert_allclose(chances[labels == 2], chances[-1])
    drawn = [row for epoch in range(40) for _, row in EpochSampler(100, 0, epoch=epoch, chances=chances)]
    # Four deviations of a binomial count.
    found = np.bincount(labels[drawn], minlength=3) / len(drawn)
    assert (np.abs(found - share) < 4 * np.sqrt(share * (1 - share) / len(drawn))).all()


def test_processes_share_one_sequence_of_draws() -> None:
    chances = draw_chances(np.repeat(np.arange(3), [1, 9, 10]), "balanced")
    whole = list(EpochSampler(20, 3, chances=chances))
    parts = [list(EpochSampler(20, 3, rank, 2, chances=chances)) for rank in range(2)]
    assert [key for pair in zip(*parts, strict=True) for key in pair] == whole


def test_unknown_sampling_is_refused() -> None:
    assert draw_chances(np.array([0, 1]), "uniform") is None
    with pytest.raises(UserError, match=r"data\.sampling=even .*uniform, balanced, sqrt"):
        draw_chances(np.array([0, 1]), "even")
