"""Files of version 0.1 can be read: checkpoints, models, libraries, descriptors (see fixtures/README.md)."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import dolglab
from dolglab.commands.hydra_cli import renamed
from dolglab.data.image_reading import Reading, decode, decode_shrunk, shrink
from dolglab.data.photos import query_pixels
from dolglab.library.ingest import embed_places
from dolglab.library.search_engine import SearchEngine
from dolglab.models.checkpoint import load_model, safe_config
from dolglab.models.dolg import DOLG
from dolglab.renamed import RENAMED, current_target
from end_to_end.runs import card, command, metrics
from warm_python import run_python

MADE = Path(__file__).parent / "fixtures" / "version_0_1"
PHOTOS = MADE / "photos"
# Values that depend on time.
TIMED = {"seconds", "costs"}


@pytest.mark.parametrize("source", ["run/checkpoints/last.ckpt", "model"])
def test_checkpoints_and_exported_folders_can_be_loaded(source: str) -> None:
    network, config = load_model(MADE / source)
    assert isinstance(network, DOLG)
    assert config["model"]["_target_"] == "dolglab.models.dolg.DOLG"
    assert network.pooling.p.requires_grad
    assert config["name"] == "fixture"


def test_descriptors_equal_the_stored_ones() -> None:
    kept = np.load(next(MADE.glob("descriptors/*/descriptors.npy")))
    model = dolglab.load(MADE / "run/checkpoints/last.ckpt")
    names = sorted(PHOTOS.glob("*/*.jpg"))
    made = model([str(path) for path in names])
    assert kept.shape[0] == len(names)
    # In any order: each has its counterpart.
    assert np.abs((made @ kept.T).max(axis=1) - 1).max() < 1e-5


@pytest.mark.process
def test_a_library_is_searched_and_gives_the_same_answers(tmp_path: Path) -> None:
    shutil.copytree(MADE / "library", tmp_path / "library")
    query = str(PHOTOS / "landmark_1" / "0.jpg")
    done = run_python(
        command(query, "--library", str(tmp_path / "library"), "--json", "--top", "20", module="src.search")
    )
    assert done.returncode == 0, done.stderr
    expected = json.loads((MADE / "search.json").read_text())[0]["answers"]
    found = json.loads(done.stdout)[0]["answers"]
    assert [answer["photo"] for answer in found] == [answer["photo"] for answer in expected]
    np.testing.assert_allclose([a["cosine"] for a in found], [a["cosine"] for a in expected], atol=1e-5)


def test_a_library_keeps_its_settings(tmp_path: Path) -> None:
    """With its own side and colours, and photos decoded at full size."""
    shutil.copytree(MADE / "library", tmp_path / "library")
    data = large_photo()
    (tmp_path / "large.jpg").write_bytes(data)
    embed_places([str(tmp_path / "large.jpg")], str(tmp_path / "library"))
    engine = SearchEngine(tmp_path / "library")
    how = {key: engine.library.identity[key] for key in ("max_side", "scales", "colour", "decoding")}
    assert how == {"max_side": 1024, "scales": [1.0], "colour": "ignore", "decoding": "full"}
    whole = shrink(decode(data, Reading(colour="ignore")), 1024)
    query = query_pixels(data, "large.jpg", engine.max_side, reading=engine.reading)
    np.testing.assert_array_equal(query, whole)
    ((best, *_),) = engine.search([whole], 1)
    assert best.photo.name == str(tmp_path / "large.jpg")
    assert best.cosine == pytest.approx(1, abs=1e-5)
    scaled = decode_shrunk(data, 1024, engine.reading._replace(decoding="scaled"))
    assert engine.search([scaled], 1)[0][0].cosine < 1 - 1e-4
    engine.library.close()


def large_photo() -> bytes:
    """A JPEG that is more than twice as large as 1024 pixels, with detail that decoding at a scale loses."""
    noise = np.random.default_rng(0).integers(0, 256, (1400, 2100, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.mark.process
def test_stored_descriptors_are_reused(tmp_path: Path) -> None:
    shutil.copytree(MADE / "descriptors", tmp_path / "descriptors")
    about = json.loads(next((tmp_path / "descriptors").glob("*/about.json")).read_text())
    if about["torch"] != torch.__version__:
        pytest.skip(f"they were made by torch {about['torch']}, which is part of what they are kept under")
    timing = next((tmp_path / "descriptors").glob("*/timing.json"))
    before = timing.read_text()
    checkpoint = f"checkpoint={MADE / 'run/checkpoints/last.ckpt'}"
    where = ["benchmark=folder", f"benchmark.root={PHOTOS}", f"store={tmp_path / 'descriptors'}"]
    asked = [checkpoint, *where, f"hydra.run.dir={tmp_path / 'run'}", "pictures=0", "trainer=cpu"]
    done = run_python(command(*asked, module="src.evaluate"))
    assert done.returncode == 0, done.stderr
    assert timing.read_text() == before
    assert len(list((tmp_path / "descriptors").iterdir())) == 1
    expected = json.loads((MADE / "evaluation_card.json").read_text())
    (found,), (before,) = card(tmp_path / "run")["benchmarks"], expected["benchmarks"]
    # Cards of that version have no digest of their rankings.
    assert found.pop("rankings")
    assert {k: v for k, v in found.items() if k not in TIMED} == {k: v for k, v in before.items() if k not in TIMED}


@pytest.mark.process
def test_a_run_is_resumed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(MADE / "run", run)
    (run / "card.json").unlink()
    more = ["resume=true", "trainer.max_epochs=3", f"data.root={PHOTOS}", f"hydra.run.dir={run}"]
    done = run_python(command(*more))
    assert done.returncode == 0, done.stderr
    assert "_target_" not in done.stdout
    assert max(int(row["epoch"]) for row in metrics(run) if row.get("val/medium")) == 2


def test_every_old_target_exists() -> None:
    from hydra.utils import get_object

    stayed = (
        "src.models.pooling.RMAC",
        "src.data.module.LandmarkDataModule.from_folder",
        "src.evaluation.overlap.Rule",
    )
    for old in (*RENAMED, *stayed):
        assert callable(get_object(current_target(old))), old
    assert current_target("src.models.mine.Own") == "src.models.mine.Own"


def test_targets_of_a_users_yaml_are_renamed_and_interpolations_stay() -> None:
    cfg = OmegaConf.create(
        {
            "backbone": {"_target_": "src.models.backbone.Backbone", "name": "???"},
            "model": {"_target_": "src.models.dolg.DOLG", "backbone": "${backbone}"},
            "steps": [{"_target_": "src.retrieval.post.expansion.AlphaQE"}, None, "${model}"],
            "own": {"_target_": "torch.optim.SGD"},
            "validation_scales": [1.0],
            "scales": [0.5],
        }
    )
    OmegaConf.set_struct(cfg, True)
    assert renamed(cfg, "evaluate").scales == [0.5]
    cfg = renamed(cfg, "train")
    assert cfg.validation_scales == [0.5]
    assert "scales" not in cfg
    assert cfg.model._target_ == "dolglab.models.dolg.DOLG"
    assert cfg.model.backbone._target_ == "dolglab.models.backbone.Backbone"
    assert cfg.steps[0]._target_ == "dolglab.retrieval.query_expansion.AlphaQE"
    assert cfg.own._target_ == "torch.optim.SGD"
    assert OmegaConf.is_interpolation(cfg.model, "backbone")


def test_a_class_that_moved_to_another_file_is_still_found() -> None:
    moved = safe_config({"_target_": "src.models.some.other.place.GeM", "p": 3.0})
    assert moved == {"_target_": "dolglab.models.pooling.GeM", "p": 3.0}
