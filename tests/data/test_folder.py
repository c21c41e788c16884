"""A folder with one sub-folder per landmark: scanning, splitting, and use as a benchmark."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolglab.contracts import Benchmark, TrainingSet
from dolglab.data.folder import (
    SplitMode,
    class_benchmark,
    folder_benchmark,
    rows_by_landmark,
    scan_folder,
    split_folder,
)
from dolglab.data.sources import FolderSource
from dolglab.errors import UserError

MODES = get_args(SplitMode)


def fill(root: Path, counts: Mapping[str, int]) -> Path:
    for landmark, count in counts.items():
        (root / landmark).mkdir(parents=True)
        for number in range(count):
            (root / landmark / f"{number:02d}.jpg").write_bytes(os.fsencode(f"{landmark} {number}"))
    return root


def names_of(part: TrainingSet | Benchmark) -> list[str]:
    return [part.source.name(row) for row in range(len(part.source))]


@pytest.fixture
def town(tmp_path: Path) -> Path:
    counts = {"arc de triomphe": 20, "été": 15, "寺 🗼": 10, "a=b": 10, "few": 4, "one": 1, "tower": 30}
    return fill(tmp_path / "town", counts)


def test_scan_finds_images_below_landmarks_in_a_stable_order(town: Path) -> None:
    (town / "tower" / "inside").mkdir()
    (town / "tower" / "inside" / "x.PNG").write_bytes(b"x")
    (town / "tower" / "notes.txt").write_text("no image")
    (town / "lies beside.jpg").write_bytes(b"x")
    photos = scan_folder(town)
    assert photos.names == sorted(photos.names)
    assert len(photos.names) == 91
    assert "tower/inside/x.PNG" in photos.names
    assert [name.split("/")[0] for name in photos.names] == photos.landmarks.tolist()
    assert Counter(photos.landmarks.tolist())["寺 🗼"] == 10


def test_hidden_and_empty_folders_and_hidden_files_are_skipped(town: Path) -> None:
    before = scan_folder(town).names
    fill(town, {".ipynb_checkpoints": 3, "tower/.thumbnails": 3, "@eaDir": 2, "tower/#recycle": 1, "empty": 0})
    (town / "tower" / "._00.jpg").write_bytes(b"x")
    assert scan_folder(town).names == before


@pytest.mark.parametrize("mode", MODES)
def test_a_split_contains_every_photo_once(town: Path, mode: Literal["photos", "landmarks"]) -> None:
    parts = split_folder(town, mode)
    names = [name for part in parts for name in names_of(part)]
    assert sorted(names) == scan_folder(town).names


@pytest.mark.parametrize("mode", MODES)
def test_a_split_depends_on_the_seed(town: Path, mode: Literal["photos", "landmarks"]) -> None:
    first, again, other = (split_folder(town, mode, seed=seed) for seed in (0, 0, 3))
    assert [names_of(part) for part in first] == [names_of(part) for part in again]
    assert [names_of(part) for part in first] != [names_of(part) for part in other]
    assert first[1].digest == again[1].digest


def test_photos_mode_holds_out_a_share_of_each_landmark(town: Path) -> None:
    training, validation, test = split_folder(town, "photos", 0.2, 0.3)
    counts = [Counter(name.split("/")[0] for name in names_of(part)) for part in (training, validation, test)]
    assert [part["tower"] for part in counts] == [15, 6, 9]
    assert [part["été"] for part in counts] == [8, 3, 4]
    assert [part["few"] for part in counts] == [4, 0, 0]
    assert [part["one"] for part in counts] == [1, 0, 0]
    assert set(counts[1]) <= set(counts[0])


def test_adding_a_landmark_does_not_move_photos_of_others(town: Path) -> None:
    before = [set(names_of(part)) for part in split_folder(town, "photos")]
    fill(town, {"aaa": 12})
    after = [{name for name in names_of(part) if name[:4] != "aaa/"} for part in split_folder(town, "photos")]
    assert after == before


def test_landmarks_mode_shares_no_landmark(town: Path) -> None:
    parts = split_folder(town, "landmarks", seed=2)
    landmarks = [{name.split("/")[0] for name in names_of(part)} for part in parts]
    assert [len(part) for part in landmarks] == [3, 2, 2]
    assert len(set.union(*landmarks)) == 7


def test_training_set_has_labels_and_ids(town: Path) -> None:
    training, _, _ = split_folder(town, "photos")
    landmarks = [name.split("/")[0] for name in names_of(training)]
    assert training.classes[training.labels].tolist() == landmarks
    assert training.classes.tolist() == sorted(set(landmarks))
    assert (training.ids.dtype, training.labels.dtype) == (np.uint64, np.int64)
    assert len(set(training.ids.tolist())) == len(training)


def contents(part: TrainingSet | Benchmark) -> list[bytes]:
    return [part.source.read(row) for row in range(len(part.source))]


@pytest.mark.parametrize("mode", MODES)
def test_exact_copies_are_in_one_part(town: Path, mode: SplitMode, capsys: pytest.CaptureFixture[str]) -> None:
    apart = [set(names_of(part)) for part in split_folder(town, mode)]
    assert "exact copies" not in capsys.readouterr().out
    for place, photo in enumerate(sorted(town.glob("*/*.jpg"))[::3]):
        # Those of the last landmark: earlier photos come first.
        beside = (photo.parent, town / "寺 🗼")[place % 2]
        shutil.copyfile(photo, beside / f"copy {place}.jpg")
    parts = split_folder(town, mode)
    sides = [set(contents(part)) for part in parts]
    assert sum(len(side) for side in sides) == len(set.union(*sides)) == 90
    copies = {name for part in parts for name in names_of(part) if "copy" in name}
    said = capsys.readouterr().out
    assert re.search(r"\b30 exact copies", said)
    if mode == "photos":
        assert len(copies) == 30
        assert all(side <= set(names_of(part)) for part, side in zip(parts, apart, strict=True))
    else:
        dropped = re.search(r"\b30 exact copies.*\b(\d+)\b", said)
        assert dropped is not None
        assert len(copies) == 30 - int(dropped[1]) < 30
        assert {name.split("/")[0] for name in names_of(parts[0])} == {name.split("/")[0] for name in apart[0]}


def test_shares_count_distinct_photos(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", {"a": 5, "b": 5})
    for photo in sorted(root.glob("a/*.jpg")):
        for again in range(3):
            shutil.copyfile(photo, photo.with_name(f"{photo.stem} {again}.jpg"))
    training, validation, test = split_folder(root)
    for part, distinct in ((training, 1), (validation, 2), (test, 2)):
        counts = Counter(name.split("/")[0] for name in names_of(part))
        assert counts == {"a": 4 * distinct, "b": distinct}


def test_links_back_into_the_folder_are_not_landmarks(
    town: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = scan_folder(town).names
    elsewhere = fill(tmp_path / "elsewhere", {"arch": 3})
    for name, target in [
        ("itself", "."),
        ("above", ".."),
        ("tower too", "tower"),
        ("way round", str(elsewhere / ".." / "town" / "été")),
        ("gone", "nowhere"),
        ("round", "round"),
    ]:
        (town / name).symlink_to(target)
    (town / "arch").symlink_to(elsewhere / "arch")
    through = tmp_path / "link to town"
    through.symlink_to(town)
    for root in (town, through):
        assert scan_folder(root).names == sorted([*before, *(f"arch/{number:02d}.jpg" for number in range(3))])
        said = capsys.readouterr().out
        assert all(name in said for name in ("4 links", "itself", "above", "tower too"))


def test_landmarks_with_non_unicode_names_are_accepted(town: Path) -> None:
    latin = os.fsdecode(b"op\xe9ra")
    fill(town, {latin: 10})
    training, validation, _ = split_folder(town)
    assert latin in training.classes.tolist()
    assert sum(name.startswith(f"{latin}/") for name in names_of(validation)) == 2


def test_ground_truth_follows_the_folder_structure(town: Path) -> None:
    benchmark = folder_benchmark(town)
    names = names_of(benchmark)
    assert benchmark.name == "town"
    assert folder_benchmark(town, "mine").name == "mine"
    for query, positives in enumerate(benchmark.ground_truth.easy):
        landmark = names[query].split("/")[0]
        expected = [row for row, name in enumerate(names) if name.split("/")[0] == landmark and row != query]
        assert positives.tolist() == expected


def test_the_current_folder_gets_a_name(town: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(town)
    assert folder_benchmark(".").name == "town"
    assert split_folder(".")[1].name == "town validation photos"


@pytest.mark.parametrize(
    ("counts", "options", "why"),
    [
        (None, {}, r"root .*data\.root"),
        ({}, {}, "root"),
        ({"a": 0, "b": 0}, {}, "root"),
        ({"a": 10}, {}, "root: .* 1$"),
        ({"a": 4, "b": 3}, {}, "root: .* 5"),
        ({"a": 9, "b": 9}, {"mode": "landmarks"}, "root .* 2 "),
        ({"a": 9}, {"mode": "images"}, r"data\.split .*photos or landmarks.* images"),
        ({"a": 9}, {"validation": 0}, r"data\.validation_share and data\.test_share"),
        ({"a": 9}, {"validation": 0.6, "test": 0.4}, r"data\.validation_share and data\.test_share"),
        ({"abcdef"[row]: 1 for row in range(6)}, {"mode": "landmarks"}, "root validation landmarks"),
    ],
)
def test_a_folder_that_cannot_be_split_gives_one_clear_line(
    tmp_path: Path, counts: dict[str, int] | None, options: dict[str, Any], why: str
) -> None:
    root = tmp_path / "root"
    if counts is not None:
        root.mkdir()
        fill(root, counts)
    with pytest.raises(UserError, match=why) as error:
        split_folder(root, **options)
    assert "\n" not in str(error.value)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.lists(st.sampled_from(["a", "bb", "é", "🗼"]), max_size=20))
def test_members_are_the_rows_of_each_landmark(landmarks: list[str]) -> None:
    expected = {name: [row for row, other in enumerate(landmarks) if other == name] for name in set(landmarks)}
    found = rows_by_landmark(np.array(landmarks, np.str_))
    assert {name: rows.tolist() for name, rows in found.items()} == expected


def test_every_image_is_a_query_for_its_landmark(tmp_path: Path) -> None:
    names = [f"{row}.jpg" for row in range(6)]
    for name in names[:5]:
        (tmp_path / name).write_bytes(b"x")
    benchmark = class_benchmark("six", FolderSource(tmp_path, names), np.array(["b", "a", "b", "c", "a", "b"]))
    assert benchmark.num_gallery == 6
    assert benchmark.queries.tolist() == list(range(6))
    assert [part.tolist() for part in benchmark.ground_truth.easy] == [[2, 5], [4], [0, 5], [], [1], [0, 2]]
    assert [part.tolist() for part in benchmark.ground_truth.junk] == [[row] for row in range(6)]
    assert all(not len(part) for part in benchmark.ground_truth.hard)
    assert np.isnan(benchmark.boxes).all()
    assert benchmark.difficulties == ("medium",)


def test_the_digest_depends_on_names_sizes_and_labels(tmp_path: Path) -> None:
    names = ["0.jpg", "1.jpg", "2.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")

    def fingerprint(landmarks: list[str]) -> str:
        return class_benchmark("three", FolderSource(tmp_path, names), np.array(landmarks)).digest

    first = fingerprint(["a", "a", "b"])
    assert fingerprint(["a", "a", "b"]) == first
    assert fingerprint(["a", "a", "a"]) != first
    (tmp_path / "1.jpg").write_bytes(b"xy")
    assert fingerprint(["a", "a", "b"]) != first


@pytest.mark.parametrize("landmarks", [[], ["a"], ["a", "b", "c"]])
def test_a_benchmark_without_positives_is_an_error(tmp_path: Path, landmarks: list[str]) -> None:
    source = FolderSource(tmp_path, [f"{row}.jpg" for row in range(len(landmarks))])
    with pytest.raises(UserError, match="no landmark has two photos"):
        class_benchmark("nothing", source, np.array(landmarks, np.str_))
