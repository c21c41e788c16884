import hashlib
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dolglab.bootstrap import interval
from dolglab.contracts import BadImage
from dolglab.errors import UserError
from dolglab.results.card import brief_card, caveats, make_card, map_intervals, read_card, write_card
from dolglab.results.provenance import CHECKOUT, commit
from dolglab.results.tables import dataset_lines


def card_of(*rankings, checkpoint=None, config=None, **protocol):
    return make_card(
        name="demo/dolg",
        method="DOLG, R50",
        rankings=rankings,
        protocol=protocol,
        checkpoint=checkpoint,
        config=config or {},
    )


def test_a_card_survives_writing_and_reading(tmp_path, make_ranking):
    card = card_of(make_ranking(), config={"scales": (0.5, 1.0), "root": Path("data")}, image_size=1024)
    path = write_card(card, tmp_path / "deep" / "card.json")
    assert read_card(path) == card
    assert [file.name for file in path.parent.iterdir()] == ["card.json"]


def test_a_card_has_figures_of_its_own_difficulties(make_ranking):
    bad = (BadImage("folder/a.jpg", "truncated"),)
    (benchmark,) = card_of(make_ranking(difficulties=("medium",), bad=bad))["benchmarks"]
    assert benchmark == {
        "name": "toy",
        "digest": "0123456789abcdef",
        "queries": 2,
        "boxes": 1,
        "gallery": 8,
        "crop": "pil",
        "measure": "mAP",
        "difficulties": ["medium"],
        "map": {"medium": 0.75},
        "mp_at_k": {"medium": {"1": 1.0, "5": 0.625}},
        "ap": {"medium": [0.75, None]},
        "bad_images": [["folder/a.jpg", "truncated"]],
        "seconds": 2.5,
        "map_interval_95": {"medium": None},
    }


def full(ranking):
    """A ranking with all optional fields."""
    return replace(
        ranking,
        notes=("oracle shortlist", "queries not cropped"),
        stages={"index": "flat", "rerank": {"spatial": {"depth": 100}}},
        costs={"image_seconds": 0.5, "query_seconds": np.float32(0.25), "image_bytes": 2048},
        curves={"medium": np.linspace(1, 0, 101), "easy": np.full(101, np.nan)},
    )


def test_a_card_has_notes_stages_costs_and_curves(tmp_path, make_ranking):
    card = card_of(full(make_ranking(difficulties=("easy", "medium"))))
    (benchmark,) = read_card(write_card(card, tmp_path / "card.json"))["benchmarks"]
    assert benchmark["notes"] == ["oracle shortlist", "queries not cropped"]
    assert benchmark["stages"] == {"index": "flat", "rerank": {"spatial": {"depth": 100}}}
    assert benchmark["costs"] == {"image_seconds": 0.5, "query_seconds": 0.25, "image_bytes": 2048}
    assert benchmark["precision_recall"]["medium"] == pytest.approx(np.linspace(1, 0, 101))
    assert benchmark["precision_recall"]["easy"] == [None] * 101


def test_curves_of_other_difficulties_are_left_out(make_ranking):
    (benchmark,) = card_of(full(make_ranking(difficulties=("medium",))))["benchmarks"]
    assert list(benchmark["precision_recall"]) == ["medium"]


def test_a_short_card_keeps_the_tables_figures_and_intervals(make_ranking):
    ranking = full(make_ranking(difficulties=("medium",), crop="none"))
    ranking.evaluation["medium"]["ap"] = np.array([0.2, 0.8])
    card = card_of(ranking)
    (short,) = brief_card(card)["benchmarks"]
    assert short["notes"] == ["queries not cropped", "oracle shortlist"]
    assert short["map_interval_95"] == {"medium": [0.2, 0.8]}
    assert short["stages"] == card["benchmarks"][0]["stages"]
    assert short["costs"] == card["benchmarks"][0]["costs"]
    assert not {"ap", "precision_recall", "bad_images"} & set(short)


def test_intervals_of_an_older_card_are_computed_from_its_queries():
    ap = {"easy": [0.1, 0.5, None, 0.9], "medium": [0.5, None, None, None]}
    found = map_intervals({"ap": ap})
    assert found == {"easy": list(interval([0.1, 0.5, 0.9])), "medium": None}
    assert map_intervals({"ap": ap, "measure": "mAP@100"}) == found
    assert map_intervals({"ap": ap, "measure": "GAP"}) == {}


def test_a_known_release_of_the_photographs_is_kept(make_ranking):
    ranking = make_ranking()
    ranking = replace(ranking, benchmark=replace(ranking.benchmark, release="v1, faces blurred"))
    card = card_of(ranking)
    assert brief_card(card)["benchmarks"][0]["release"] == "v1, faces blurred"
    assert dataset_lines([card])[0].endswith(", photographs: v1, faces blurred.")


def test_values_that_are_not_finite_are_null(tmp_path, make_ranking):
    card = card_of(make_ranking(maps=(float("nan"), 0.5, 0.5)), config={"clip": float("inf")})
    text = write_card(card, tmp_path / "card.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert card["config"] == {"clip": None}
    assert card["benchmarks"][0]["map"]["easy"] is None


def test_a_card_names_its_commit_and_versions(tmp_path, make_ranking):
    checkpoint = tmp_path / "model.ckpt"
    checkpoint.write_bytes(b"weights")
    card = card_of(make_ranking(), checkpoint=checkpoint)
    assert card["checkpoint"] == {"path": str(checkpoint), "sha256": hashlib.sha256(b"weights").hexdigest()}
    packages = {"torch", "lightning", "timm", "faiss", "numpy", "simplejpeg", "opencv", "pillow"}
    assert set(card["versions"]) == packages | {"python", "dolglab"}
    assert card["time"].endswith("+00:00")
    assert card["commit"] == commit(CHECKOUT)
    assert (CHECKOUT / "pyproject.toml").is_file()


@pytest.mark.parametrize(
    ("name", "data", "noted"),
    [
        ("roxford5k", {}, ["36 of the 70"]),
        ("rparis6k+1M", {}, ["38 of the 70"]),
        ("rparis6k", {"exclude_landmarks": "list.txt"}, []),
        ("rparis6k", {"_target_": "a.from_folder"}, []),
        ("toy", {}, []),
    ],
)
def test_weights_trained_on_landmarks_of_the_queries_are_noted(make_ranking, name, data, noted):
    config = {"train": {"data": {"_target_": "a.LandmarkDataModule.from_gldv2", **data}}}
    card = card_of(make_ranking(name), config=config)
    assert caveats(card, card["benchmarks"][0]) == []
    notes = caveats({**card, "training": {"landmarks": 81313}}, card["benchmarks"][0])
    assert [part in note for part, note in zip(noted, notes, strict=True)] == [True] * len(noted)


def test_a_failed_write_leaves_the_old_card_and_nothing_else(tmp_path, make_ranking):
    path = write_card(card_of(make_ranking()), tmp_path / "card.json")
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_card(card_of(make_ranking(), config={"model": object()}), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_not_utf_8_is_escaped(tmp_path, make_ranking):
    bad = (BadImage("caf\udce9.jpg", "zero bytes"),)
    path = write_card(card_of(make_ranking(bad=bad)), tmp_path / "card.json")
    assert read_card(path)["benchmarks"][0]["bad_images"] == [["caf\udce9.jpg", "zero bytes"]]


def spoil(card, **changes):
    return json.dumps({**card, **changes})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (lambda card: "not json", r"card\.json"),
        (lambda card: "[1, 2]", r"card\.json"),
        (lambda card: spoil(card, config={"x": float("nan")}), "NaN"),
        (lambda card: spoil(card, format=2), "format 2"),
        (lambda card: spoil(card, method=None), "method"),
        (lambda card: spoil(card, benchmarks=[{"name": "toy"}]), r"benchmarks\.digest"),
        (lambda card: spoil(card, benchmarks=["toy"]), r"benchmarks\.name"),
        (lambda card: spoil(card, benchmarks=[{**card["benchmarks"][0], "notes": "oracle"}]), r"benchmarks\.notes"),
        (lambda card: spoil(card, benchmarks=[{**card["benchmarks"][0], "costs": [1]}]), r"benchmarks\.costs"),
    ],
)
def test_files_that_are_not_cards_are_refused_in_one_line(tmp_path, make_ranking, text, reason):
    path = tmp_path / "card.json"
    path.write_text(text(card_of(make_ranking())))
    with pytest.raises(UserError, match=reason) as caught:
        read_card(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_card_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "card.json", tmp_path):
        with pytest.raises(UserError, match=re.escape(str(path))):
            read_card(path)


@pytest.mark.parametrize(
    ("crop", "boxes", "protocol", "skipped", "expected"),
    [
        ("pil", 1, {"selection": {"validation": "1" * 16}}, 0, []),
        ("none", 1, {}, 0, ["queries not cropped"]),
        ("none", 0, {}, 0, []),
        ("pil", 1, {"selection": {"toy": "0123456789abcdef"}}, 1, ["1 image skipped", "selected on this set"]),
        (
            "pil",
            1,
            {"selection": {"other": "1" * 16, "same": "0123456789abcdef"}},
            3,
            ["3 images skipped", "selected on this set"],
        ),
    ],
)
def test_caveats(make_ranking, crop, boxes, protocol, skipped, expected):
    nowhere = (float("nan"),) * 4
    box = (0.0, 0.0, 9.0, 9.0) if boxes else nowhere
    bad = tuple(BadImage(f"{number}.jpg", "empty") for number in range(skipped))
    card = card_of(make_ranking(crop=crop, boxes=(box, nowhere), bad=bad), **protocol)
    assert caveats(card, card["benchmarks"][0]) == expected


@pytest.mark.process
def test_commit_names_the_head_and_marks_changed_files(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert commit(tmp_path) is None
    git("init")
    assert commit(tmp_path) is None
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "file").write_text("one")
    git("add", ".")
    git("commit", "-m", "first")
    clean = commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    assert commit(tmp_path / "inside") is None
    (tmp_path / "library").mkdir()
    for name in ("rest.txt", "library/catalogue"):
        (tmp_path / name).touch()
    assert commit(tmp_path) == clean
    for name in ("conf", "src/dolglab"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "new").touch()
        assert commit(tmp_path) == f"{clean}+changes"
        (tmp_path / name / "new").unlink()
    (tmp_path / "inside" / "file").write_text("two")
    assert commit(tmp_path) == f"{clean}+changes"


def test_commit_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(Path(__file__).parents[2]) is None
