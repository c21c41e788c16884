"""Realistic folders: unreadable photos, and landmarks whose names are not Unicode."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from pathlib import Path

import pytest

from dolglab.commands.evaluate import main as evaluate
from dolglab.commands.train import main as train
from dolglab.data.folder import split_folder
from dolglab.models.checkpoint import read_run
from dolglab.sharing.export import export
from end_to_end.runs import NARROW, SMALL, card, config

pytestmark = pytest.mark.process

LATIN = os.fsdecode(b"op\xe9ra")


@pytest.fixture
def mine(photos: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder with an unreadable photo in each part of its split, and the names of these photos."""
    root = tmp_path / "mine"
    shutil.copytree(photos, root)
    (root / "landmark 0").rename(root / LATIN)
    sources = [part.source for part in split_folder(root)]
    bad = [next(name for name in map(source.name, range(len(source))) if LATIN in name) for source in sources]
    for name in bad:
        (root / name).write_bytes(os.fsencode(f"no photo: {name}"))
    return root, bad


def test_unreadable_photos_and_non_unicode_names_do_not_stop_training(
    mine: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, bad = mine
    options = [*SMALL, *NARROW, "experiment=photos", f"data.root={root}", "baseline=null", "local=attention"]
    # As in the command.
    sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    for epochs, more in ((1, []), (2, ["resume=true"])):
        run = [f"output_dir={tmp_path / 'run'}", f"trainer.max_epochs={epochs}", *more]
        train(config("train", *options, *run))
        said = capsys.readouterr().out
        assert all(name.encode(errors="backslashreplace").decode() in said for name in bad[1:])
    with (tmp_path / "run" / "bad_images.csv").open(newline="", errors="surrogateescape") as file:
        assert [row["name"] for row in csv.DictReader(file)] == bad[:1]
    assert [image[0] for image in card(tmp_path / "run")["benchmarks"][0]["bad_images"]] == bad[2:]

    model = export(str(tmp_path / "model"), checkpoint=str(tmp_path / "run" / "checkpoints" / "last.ckpt"))
    assert LATIN in read_run(model)["classes"]
    capsys.readouterr()
    options = ["experiment=finetune", f"weights={model}", f"data.root={root}", "data.image_size=64", "trainer=cpu"]
    options += ["data.batch_size=8", "data.workers=0", "trainer.max_epochs=1", "test_scales=[1.0]", "ema=0.999"]
    train(config("train", f"output_dir={tmp_path / 'better'}", *options))
    assert "and the head's class centres" in capsys.readouterr().out
    for folder in (tmp_path / "better", tmp_path / "better" / "baseline"):
        assert [image[0] for image in card(folder)["benchmarks"][0]["bad_images"]] == bad[2:]


def test_an_evaluation_draws_readable_queries(mine: tuple[Path, list[str]], tmp_path: Path) -> None:
    root, bad = mine
    options = ["model=imagenet_gem", "backbone=r18", "backbone.name=test_resnet.r160_in1k", "backbone.pretrained=false"]
    options += ["benchmark=folder", f"benchmark.root={root}", "scales=[1.0]", "trainer=cpu", "workers=0"]
    evaluate(config("evaluate", f"output_dir={tmp_path / 'run'}", *options, "on_error=skip", "pictures=60"))
    assert {image[0] for image in card(tmp_path / "run")["benchmarks"][0]["bad_images"]} == set(bad)
    assert len(list((tmp_path / "run" / "pictures").glob("*.jpg"))) == 60 - len(bad)
