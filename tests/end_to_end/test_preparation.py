"""GLDv2 by public commands only: from an unreliable server to figures in both of its tasks."""

from __future__ import annotations

import csv
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from archives import tar
from end_to_end.runs import NARROW, SMALL, card, command, kill_when, losses, samples_drawn
from warm_python import run_python
from web_server import Server

pytestmark = pytest.mark.process

ARCHIVES = 2
SPLITS = ("train", "index", "test")


def publish(server: Server, world: Path) -> dict[str, list[str]]:
    """A demo world as the published GLDv2; its images' ids by split.

    Its training images, one of them cut short, and as the index and test set copies of them under other ids.
    """
    files = sorted((world / "train").glob("?/?/?/*.jpg"))
    landmarks = landmarks_of(world / "train_clean.csv")
    ids = {"train": [file.stem for file in files]}
    images = {split: {} for split in SPLITS}
    images["train"] = {file.stem: file.read_bytes() for file in files}
    for split, first in [("index", "a"), ("test", "b")]:
        ids[split] = [first + name[1:] for name in ids["train"]]
        images[split] = dict(zip(ids[split], images["train"].values(), strict=True))
    broken = ids["train"][5]
    images["train"][broken] = images["train"][broken][:-300]
    for split in SPLITS:
        add_archives(server, split, images[split])
    for table in ("train_clean", "train", "train_label_to_category", "train_label_to_hierarchical"):
        server.add(f"/metadata/{table}.csv", (world / "train_clean.csv").read_bytes())
    for table, names in [("index", ids["index"]), ("test", ids["test"])]:
        server.add(f"/metadata/{table}.csv", "\n".join(["id", *names, ""]).encode())
    for table in ("index_image_to_landmark", "index_label_to_hierarchical"):
        server.add(f"/metadata/{table}.csv", b"id,landmark_id\n")
    retrieval, recognition = ["id,images,Usage"], ["id,landmarks,Usage"]
    for number, (source, name) in enumerate(zip(ids["train"], ids["test"], strict=True)):
        usage = ("Public", "Private", "Ignored")[number % 3]
        same = [i for i, t in zip(ids["index"], ids["train"], strict=True) if landmarks[t] == landmarks[source]]
        retrieval.append(f"{name},{' '.join(same)},{usage}")
        recognition.append(f"{name},{landmarks[source] if number % 5 else ''},{usage}")
    for task, rows in [("retrieval", retrieval), ("recognition", recognition)]:
        server.add(f"/ground_truth/{task}_solution_v2.1.csv", "\n".join([*rows, ""]).encode())
    return ids


def landmarks_of(path: Path) -> dict[str, str]:
    with path.open(newline="") as file:
        return {name: row["landmark_id"] for row in csv.DictReader(file) for name in row["images"].split()}


def add_archives(server: Server, split: str, images: Mapping[str, bytes]) -> None:
    names = list(images)
    for number in range(ARCHIVES):
        files = {f"{n[0]}/{n[1]}/{n[2]}/{n}.jpg": images[n] for n in names[number::ARCHIVES]}
        path = f"/{split}/images_{number:03}.tar"
        server.add(path, tar(files), md5=f"/md5sum/{split}/md5.images_{number:03}.txt")


def prepare(*options: str) -> subprocess.CompletedProcess[str]:
    return run_python(command(*options, module="src.prepare"))


def test_gldv2_is_prepared_from_the_server_to_both_figures(server: Server, world: Path, tmp_path: Path) -> None:
    ids = publish(server, world)
    root = tmp_path / "gldv2"
    where = ["task=gldv2", f"root={root}", "archives=0-1", f"base_url={server.url}"]
    server.faults["/train/images_000.tar"] += ["cut", 503, "cut"]
    server.faults["/train/images_001.tar"] += ["garbled", 404]
    failed = prepare(*where)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: 1 of 6 files could not be downloaded")
    assert len(failed.stderr.splitlines()) == 1
    for split in SPLITS:
        done = prepare(*where, f"split={split}")
        assert done.returncode == 0, done.stderr
        assert "24 images in 2 archives" in done.stdout
    assert prepare(*where, "mode=verify").returncode == 0
    assert not list(root.rglob("*.jpg"))

    scanned = prepare("task=scan", f"root={root}", "workers=1")
    assert "24 images read: 1 cannot be used" in scanned.stdout, scanned.stderr
    skipped = root / "train" / "skip_list.txt"
    assert skipped.read_text().startswith(ids["train"][5])

    options = [f"data.root={root}", *SMALL, *NARROW, "data=gldv2", "data.source=tar", "data.workers=1"]
    options += ["data.batch_size=2", "data.holdout=0", f"data.exclude_images={skipped}", "checkpoint_steps=3"]
    options += ["~data.test.roxford5k", "~data.test.rparis6k"]
    unbroken, run = tmp_path / "unbroken", tmp_path / "run"
    whole = run_python(command(f"hydra.run.dir={unbroken}", *options))
    assert whole.returncode == 0, whole.stderr
    last = run / "checkpoints" / "last.ckpt"
    kill_when(last.exists, command(f"hydra.run.dir={run}", *options))
    assert 0 < samples_drawn(last) < 22
    resumed = run_python(command(f"hydra.run.dir={run}", "resume=true"))
    assert resumed.returncode == 0, resumed.stderr
    assert losses(run) == pytest.approx(losses(unbroken), rel=1e-6)
    assert len(losses(run)) == 2 * 11
    assert not (run / "bad_images.csv").exists()
    assert card(run)["training"] == card(unbroken)["training"]
    assert card(run)["training"]["images"] == 23

    for task, measure, answers in [("retrieval", "mAP@100", 24), ("recognition", "GAP", 3)]:
        results = tmp_path / task
        extra = ["benchmark.neighbours=3", "on_error=skip"] if task == "recognition" else []
        evaluated = run_python(
            command(
                f"benchmark=gldv2_{task}",
                f"benchmark.root={root}",
                f"checkpoint={last}",
                f"hydra.run.dir={results}",
                "trainer=cpu",
                *extra,
                module="src.evaluate",
            )
        )
        assert evaluated.returncode == 0, evaluated.stderr
        (result,) = card(results)["benchmarks"]
        assert result["measure"] == measure
        assert result["queries"] == 16
        assert set(result["map"]) == {"public", "private"}
        assert 0 < result["map"]["public"] <= 1
        assert card(results)["training"] == card(run)["training"]
        (submitted,) = (results / "submissions").glob("*.csv")
        with submitted.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["id"] for row in rows} <= set(ids["test"])
        assert all(len(next(reversed(row.values())).split()) == (answers if answers > 3 else 2) for row in rows)


def test_an_unwritable_folder_is_reported(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        (tmp_path / "root").write_text("a file stands where the folder should be")
    else:
        (tmp_path / "root").mkdir(mode=0o555)
    refused = prepare("task=scan", f"root={tmp_path / 'root'}")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")
    assert len(refused.stderr.splitlines()) == 1
