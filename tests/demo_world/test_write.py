"""The world on disk: formats, determinism, and errors."""

import csv
import json
import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dolglab.demo_world.write import contact_sheet, write_world
from dolglab.errors import UserError

SMALL = {
    "train_families": 2,
    "validation_families": 1,
    "test_families": 2,
    "siblings": 2,
    "train_views": 3,
    "gallery_views": 4,
    "validation_distractors": 2,
    "test_distractors": 5,
    "width": 128,
    "height": 96,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("one") / "world", workers=1, **SMALL)


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def picture_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def truth(root: Path, split: str) -> dict:
    return pickle.loads((root / split / f"gnd_{split}.pkl").read_bytes())


def training(root: Path) -> dict[str, list[str]]:
    with (root / "train_clean.csv").open(newline="") as file:
        return {row["landmark_id"]: row["images"].split(" ") for row in csv.DictReader(file)}


def test_two_workers_write_the_same_bytes(world, tmp_path):
    assert contents(write_world(tmp_path / "world", workers=2, **SMALL)) == contents(world)


def test_another_seed_gives_another_world(world, tmp_path):
    sizes = {**SMALL, "train_families": 1, "test_families": 1, "test_distractors": 0}
    other = contents(write_world(tmp_path / "world", seed=1, workers=1, **sizes))
    assert not {p for p in other if p.endswith(".jpg")} & set(contents(world))


def test_training_set_has_the_layout_of_gldv2_clean(world):
    assert (world / "train_clean.csv").read_text().splitlines()[0] == "landmark_id,images"
    landmarks = training(world)
    ids = [name for names in landmarks.values() for name in names]
    numbers = [int(number) for number in landmarks]
    assert len(landmarks) == 4
    assert len(set(ids)) == len(ids) == 12
    assert all(re.fullmatch(r"[0-9a-f]{16}", name) for name in ids)
    assert numbers == sorted(numbers)
    assert numbers[-1] - numbers[0] > len(numbers)
    on_disk = {str(p.relative_to(world / "train")) for p in (world / "train").rglob("*.jpg")}
    assert on_disk == {f"{n[0]}/{n[1]}/{n[2]}/{n}.jpg" for n in ids}


@pytest.mark.parametrize(("split", "queries", "gallery"), [("validation", 2, 10), ("test", 4, 21)])
def test_benchmarks_have_the_layout_of_revisited_oxford(world, split, queries, gallery):
    data = truth(world, split)
    assert set(data) == {"imlist", "qimlist", "gnd"}
    assert (len(data["qimlist"]), len(data["imlist"])) == (queries, gallery)
    assert len(data["gnd"]) == queries
    names = data["imlist"] + data["qimlist"]
    assert len(set(names)) == len(names)
    assert {p.stem for p in (world / split / "jpg").iterdir()} == set(names)
    claimed: list[int] = []
    for name, entry in zip(data["qimlist"], data["gnd"], strict=True):
        assert set(entry) == {"bbx", "easy", "hard", "junk"}
        lists = [entry[key] for key in ("easy", "hard", "junk")]
        assert all(type(position) is int for positions in lists for position in positions)
        claimed += [position for positions in lists for position in positions]
        assert entry["easy"]
        assert entry["hard"]
        assert all(type(side) is float for side in entry["bbx"])
        left, top, right, bottom = entry["bbx"]
        width, height = picture_size(world / split / "jpg" / f"{name}.jpg")
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    assert len(set(claimed)) == len(claimed) == queries * SMALL["gallery_views"]
    assert set(claimed) <= set(range(gallery))


def test_all_pictures_have_the_requested_size(world):
    sizes = {picture_size(p) for p in world.rglob("*.jpg")}
    assert sizes <= {(128, 96), (96, 128)}
    for path in world.rglob("*.jpg"):
        picture = cv2.imread(str(path))
        assert picture is not None
        assert picture.std() > 5


def test_pickles_hold_plain_values_only(world):
    raw = (world / "test" / "gnd_test.pkl").read_bytes()
    assert raw[:2] == b"\x80\x02"
    assert b"numpy" not in raw


def test_the_three_sets_share_no_family(world):
    families = json.loads((world / "families.json").read_text())
    seen = {split: set(found.values()) for split, found in families.items()}
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    assert set(families["train"]) == set(training(world))
    for split in ("validation", "test"):
        data = truth(world, split)
        assert set(families[split]) == set(data["imlist"] + data["qimlist"])


def test_an_existing_world_is_not_drawn_again(world, capsys):
    before = contents(world)
    assert write_world(world, workers=1, **SMALL) == world
    assert "already" in capsys.readouterr().out
    assert contents(world) == before


def test_a_world_of_other_sizes_is_left_alone(world):
    before = contents(world)
    with pytest.raises(UserError, match=re.escape(str(world))):
        write_world(world, workers=1, **{**SMALL, "siblings": 3})
    assert contents(world) == before


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        write_world(tmp_path, workers=1, **SMALL)
    assert contents(tmp_path) == {"mine.txt": b"mine"}


def test_an_existing_file_is_left_alone(tmp_path):
    (tmp_path / "world").write_text("mine")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "world"))):
        write_world(tmp_path / "world", workers=1, **SMALL)
    assert (tmp_path / "world").read_text() == "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(pickle, "dump", fail)
    sizes = {**SMALL, "train_families": 1, "test_families": 1, "test_distractors": 0, "gallery_views": 1}
    with pytest.raises(error):
        write_world(tmp_path / "world", workers=1, **sizes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("train_families", 0),
        ("validation_families", 0),
        ("test_families", 0),
        ("siblings", 0),
        ("train_views", 0),
        ("gallery_views", 0),
        ("test_distractors", -1),
        ("width", 20),
        ("height", 0),
        ("workers", 0),
    ],
)
def test_invalid_sizes_are_refused_by_name(tmp_path, name, value):
    with pytest.raises(UserError, match=rf"^{name} .*{value}$"):
        write_world(tmp_path / "world", **{**SMALL, name: value})
    assert not list(tmp_path.iterdir())


def test_contact_sheet(world, tmp_path):
    out = contact_sheet(world, tmp_path / "deep" / "sheet.jpg", families=2)
    with Image.open(out) as picture:
        assert picture.format == "JPEG"
        assert picture.width == 1200
        assert np.asarray(picture).std() > 10
    assert [p.name for p in out.parent.iterdir()] == ["sheet.jpg"]


def test_a_contact_sheet_without_a_world_is_refused(tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        contact_sheet(tmp_path, tmp_path / "sheet.jpg")
    assert not (tmp_path / "sheet.jpg").exists()
