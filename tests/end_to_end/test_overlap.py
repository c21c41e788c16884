"""A leak planted in a training set is found by the command, and excluded from a training by its list."""

from __future__ import annotations

import csv
import io
import json
import pickle
import shutil
from pathlib import Path

import pytest
from hydra.utils import instantiate
from PIL import Image

from end_to_end.runs import command, config
from warm_python import run_python

pytestmark = pytest.mark.process

LEAK = "990000"


def plant(world: Path, root: Path) -> set[str]:
    """The world with two re-encoded easy positives of a test landmark among its training images."""
    shutil.copytree(world, root)
    truth = pickle.loads((world / "test" / "gnd_test.pkl").read_bytes())
    ids = []
    for number, position in enumerate(truth["gnd"][0]["easy"][:2]):
        ids.append(f"{number:x}" * 16)
        file = root / "train" / ids[-1][0] / ids[-1][1] / ids[-1][2] / f"{ids[-1]}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.open(world / "test" / "jpg" / f"{truth['imlist'][position]}.jpg").save(file, quality=80)
    (root / "train_clean.csv").write_text((world / "train_clean.csv").read_text() + f"{LEAK},{' '.join(ids)}\n")
    return set(ids)


def test_a_planted_leak_is_found_and_excluded(world: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "gldv2", tmp_path / "overlap"
    planted = plant(world, root)
    where = [f"root={root}", f"out={out}", f"store={tmp_path / 'store'}", "benchmark=demo"]
    where += [
        f"benchmark.root={world / 'test'}",
        "backbone=r18",
        "backbone.pretrained=false",
        "trainer=cpu",
        "workers=0",
    ]
    done = run_python(command("task=overlap", *where, module="src.prepare"))
    assert done.returncode == 0, done.stderr
    assert "1 of 5 landmarks of the training set show a landmark of demo (2 of 26 images)" in done.stdout
    assert "it misses" in done.stdout

    with (out / "overlap.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {Path(row["training_image"]).stem for row in rows} == planted
    assert {row["landmark"] for row in rows} == {LEAK}
    assert [int(row["inliers"]) for row in rows] == sorted((int(row["inliers"]) for row in rows), reverse=True)
    assert min(int(row["inliers"]) for row in rows) >= 15
    about = json.loads((out / "about.json").read_text())
    assert about["found"] == {"landmarks": 1, "images": 2}
    assert about["verification"]["kind"] == "affine"
    assert Image.open(io.BytesIO((out / "contact_sheet.jpg").read_bytes())).width > 800
    assert not list(out.glob("*.part"))

    options = ["data=gldv2", f"data.root={root}", "data.batch_size=2", "data.workers=0", "data.holdout=0"]
    options += ["~data.test.roxford5k", "~data.test.rparis6k"]
    listed = f"data.exclude_landmarks={out / 'exclude_landmarks.txt'}"
    full, clean = (
        instantiate(config("train", "output_dir=out", "name=x", *options, *more).data) for more in ([], [listed])
    )
    assert LEAK in full.classes
    assert clean.classes == [name for name in full.classes if name != LEAK]
    # A card has the digest of the training list.
    assert clean.digests()["training"] != full.digests()["training"]
    assert clean.digests()["images"] == 24
