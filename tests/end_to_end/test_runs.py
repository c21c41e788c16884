"""Training and evaluation: the output and the files of a run."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dolglab.commands.evaluate import main as evaluate
from dolglab.commands.train import main as train
from dolglab.data.revisited import load_ground_truth
from dolglab.measures import revisited_evaluation
from end_to_end.runs import ROOT, SMALL, card, config, metrics, refused

pytestmark = pytest.mark.process


def test_training_writes_a_complete_run(trained: tuple[Path, float]) -> None:
    run, score = trained
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {"card.json", "config.yaml", "metrics.csv", "report.html", "grids/demo.jpg", "rankings/demo.json"} <= names
    assert {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "baseline/card.json"} <= names
    assert {"pictures/01.jpg", "pictures/titles.json"} <= names
    assert not [name for name in names if "partial" in name or name.endswith(".part")]
    validated = [float(row["val/medium"]) for row in metrics(run) if row.get("val/medium")]
    assert len(validated) == 2
    assert max(validated) == pytest.approx(score, abs=1e-6)
    assert [row for row in metrics(run) if row.get("pooling/p")]
    assert list(card(run)["protocol"]["selection"]) == ["demo validation"]


def test_a_run_stores_ranked_names(trained: tuple[Path, float], world: Path) -> None:
    run, _ = trained
    ranked = json.loads((run / "rankings" / "demo.json").read_text())
    lists = load_ground_truth(world / "test" / "gnd_test.pkl")
    assert list(ranked) == [f"jpg/{name}.jpg" for name in lists.queries]
    answers = np.array([[lists.gallery.index(Path(name).stem) for name in names] for names in ranked.values()])
    evaluation = revisited_evaluation(answers, lists.ground_truth)
    # The gallery of this world is shorter than the stored head of a ranking.
    assert answers.shape[1] == len(lists.gallery)
    assert evaluation["medium"]["map"] == pytest.approx(card(run)["benchmarks"][0]["map"]["medium"], abs=1e-9)


def test_evaluating_the_checkpoint_gives_the_same_table_as_the_training(
    trained: tuple[Path, float], world: Path, tmp_path: Path
) -> None:
    run, _ = trained
    medium = evaluate(
        config(
            "evaluate",
            f"output_dir={tmp_path / 'out'}",
            "name=again",
            f"checkpoint={run / 'checkpoints' / 'best.ckpt'}",
            f"benchmark.root={world / 'test'}",
            "scales=[1.0]",
            "trainer=cpu",
            "workers=0",
        )
    )
    tested = card(run)["benchmarks"][0]
    assert medium == pytest.approx(tested["map"]["medium"], abs=1e-6)
    evaluated = card(tmp_path / "out")
    again = evaluated["benchmarks"][0]
    assert again["digest"] == tested["digest"]
    assert again["precision_recall"]["medium"] == pytest.approx(tested["precision_recall"]["medium"], abs=1e-6)
    assert again["costs"]["image_bytes"] == tested["costs"]["image_bytes"] == 4 * 16
    assert min(tested["costs"].values()) > 0
    assert evaluated["checkpoint"]["sha256"] == card(run)["checkpoint"]["sha256"]
    assert evaluated["protocol"]["selection"] == card(run)["protocol"]["selection"]
    # The network has the name that its training gave it, and the evaluation its own.
    assert (evaluated["method"], evaluated["name"]) == ("dolg", "again")
    assert evaluated["validation_map"] is None
    page = (tmp_path / "out" / "report.html").read_text()
    assert "selected by validation on &#34;demo validation&#34;" in page
    assert "no validation" not in page


def test_crop_none_is_labelled(trained: tuple[Path, float], world: Path, tmp_path: Path, capsys) -> None:
    run, _ = trained
    options = [f"checkpoint={run / 'checkpoints' / 'best.ckpt'}", f"benchmark.root={world / 'test'}", "crop=none"]
    evaluate(config("evaluate", f"output_dir={tmp_path}", *options, "scales=[1.0]", "trainer=cpu", "workers=0"))
    assert "queries not cropped" in capsys.readouterr().out


@pytest.mark.parametrize("split", ["photos", "landmarks"])
def test_a_folder_of_photographs_is_trained_on(photos: Path, tmp_path: Path, split: str, capsys) -> None:
    options = ["model=gem", "model.dim=16", "margin=cosface", "data=folder", f"data.root={photos}"]
    options += [f"data.split={split}", "augment=gentle", "data.image_size=64", "fusion=concat"]
    train(config("train", f"output_dir={tmp_path}", *SMALL, *options))
    assert f"{photos.name} test {split}" in capsys.readouterr().out
    assert card(tmp_path)["benchmarks"][0]["difficulties"] == ["medium"]
    assert card(tmp_path)["protocol"]["colour"] is None


def test_an_evaluation_reads_colours_like_the_training(photos: Path, tmp_path: Path) -> None:
    options = ["model=gem", "model.dim=16", "data=folder", f"data.root={photos}", "data.image_size=64", "colour=srgb"]
    train(config("train", f"output_dir={tmp_path / 'run'}", *SMALL, *options))
    assert card(tmp_path / "run")["protocol"]["colour"] == "srgb"
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    for given, stated in (("auto", "srgb"), ("ignore", None)):
        options = [f"checkpoint={best}", "benchmark=folder", f"benchmark.root={photos}", f"colour={given}"]
        folder = tmp_path / given
        evaluate(config("evaluate", f"output_dir={folder}", *options, "scales=[1.0]", "trainer=cpu", "workers=0"))
        assert card(folder)["protocol"]["colour"] == stated


def test_the_untrained_network_is_evaluated_on_a_folder(photos: Path, tmp_path: Path) -> None:
    options = ["model=imagenet_gem", "backbone=efficientnet_lite0", "benchmark=folder", f"benchmark.root={photos}"]
    medium = evaluate(
        config("evaluate", f"output_dir={tmp_path}", *options, "scales=[1.0]", "trainer=cpu", "workers=0")
    )
    chance = 9 / 59
    assert medium is not None
    assert medium > 4 * chance


def test_real_photographs_in_the_revisited_layout_are_evaluated(
    trained: tuple[Path, float], shared_data: Path, tmp_path: Path
) -> None:
    run, _ = trained
    root = shared_data / "rparis6k-mini"
    options = [f"checkpoint={run / 'checkpoints' / 'best.ckpt'}", "benchmark=rparis6k", f"benchmark.root={root}"]
    options += [f"benchmark.ground_truth={root / 'gnd_rparis6k-mini.pkl'}", "scales=[0.5]", "max_side=256"]
    medium = evaluate(config("evaluate", f"output_dir={tmp_path}", *options, "trainer=cpu", "workers=0"))
    assert medium is not None
    assert 0 <= medium <= 1
    assert card(tmp_path)["benchmarks"][0]["gallery"] == 39


def test_verified_answers_on_real_photographs_are_right_and_drawn(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "rparis6k-mini"
    options = ["model=imagenet_gem", "backbone=efficientnet_lite0", "benchmark=rparis6k", f"benchmark.root={root}"]
    options += [f"benchmark.ground_truth={root / 'gnd_rparis6k-mini.pkl'}", "scales=[0.5]", "max_side=640", "workers=0"]
    options += ["rerank=spatial", "rerank.residual=8", "features=rootsift", "pictures=1", "trainer=cpu"]
    evaluate(config("evaluate", f"output_dir={tmp_path}", *options))
    benchmark = card(tmp_path)["benchmarks"][0]
    assert benchmark["mp_at_k"]["medium"]["1"] == 1
    assert benchmark["stages"]["rerank"]["rerank"] == "spatial"
    titles = json.loads((tmp_path / "pictures" / "titles.json").read_text())
    assert any("Matches of jpg/" in title for title in titles.values())
    assert len(list((tmp_path / "pictures").glob("*.jpg"))) == 2


def test_every_family_of_methods_ranks_the_demo_world(
    trained: tuple[Path, float], world: Path, tmp_path: Path, capsys
) -> None:
    """Families (A), aggregated and verified, and (C), verified, and whitened and refined descriptors."""
    checkpoint = f"checkpoint={trained[0] / 'checkpoints' / 'best.ckpt'}"
    common = [f"benchmark.root={world / 'test'}", "scales=[1.0]", "trainer=cpu", "workers=0", "pictures=0"]
    learned = ["benchmark@learn_on=demo", f"learn_on.root={world / 'validation'}", "learn_on.name=validation"]
    network = ["features.scales=[1.0,2.0]", "features.max_features=50"]
    families = {
        "asmk": ["features=rootsift", "aggregate=asmk", "aggregate.words=32", *learned, "rerank=spatial"],
        "verified": [checkpoint, "rerank=spatial", "oracle=true", *network],
        "whitened": [checkpoint, "post=[whitening,alpha_qe]", "post.whitening.shrink=0.5", *learned],
        "indexed": [checkpoint, "index=hnsw", "rerank=neighbours"],
    }
    for name, options in families.items():
        evaluate(config("evaluate", f"output_dir={tmp_path / name}", f"name={name}", *common, *options))
        result = card(tmp_path / name)["benchmarks"][0]
        assert 0 < result["map"]["medium"] <= 1
        assert result["costs"]["image_bytes"] > 0
        assert 0 <= result["lookalikes"]["siblings"] <= result["lookalikes"]["wrong"] <= 10
    said = capsys.readouterr().out
    assert "oracle shortlist" in said
    assert "lower bounds" in said
    assert "learned on validation" in said
    assert (tmp_path / "asmk" / "codebook.safetensors").is_file()
    again = [checkpoint, "post=[whitening]", f"post.whitening.matrix={tmp_path / 'whitened' / 'whitening.safetensors'}"]
    evaluate(config("evaluate", f"output_dir={tmp_path / 'again'}", *common, *again))
    other = ["model=imagenet_gem", "backbone=r18", "backbone.pretrained=false", *again[1:]]
    assert "another network" in refused(
        evaluate, config("evaluate", f"output_dir={tmp_path / 'b'}", *common, *other), capsys
    )


def test_an_unreadable_image_stops_an_evaluation_unless_it_is_skipped(world: Path, tmp_path: Path, capsys) -> None:
    broken = tmp_path / "test"
    shutil.copytree(world / "test", broken)
    victim = sorted((broken / "jpg").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:500])
    options = ["model=imagenet_gem", "backbone=r18", "backbone.pretrained=false", f"benchmark.root={broken}"]
    options += ["scales=[1.0]", "trainer=cpu", "workers=2"]
    assert victim.name in refused(evaluate, config("evaluate", f"output_dir={tmp_path / 'a'}", *options), capsys)
    evaluate(config("evaluate", f"output_dir={tmp_path / 'b'}", *options, "on_error=skip"))
    assert "1 image skipped" in capsys.readouterr().out
    assert card(tmp_path / "b")["benchmarks"][0]["bad_images"][0][0] == f"jpg/{victim.name}"


def test_a_broken_training_image_is_replaced_and_named(photos: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    for file in (tmp_path / "photos" / "landmark 0").iterdir():
        # All different, since copies would be in one part of the split.
        file.write_bytes(b"not an image" + file.name.encode())
    options = ["model=gem", "model.dim=16", "data=folder", f"data.root={tmp_path / 'photos'}", "on_error=skip"]
    train(config("train", f"output_dir={tmp_path / 'run'}", *SMALL, *options))
    with (tmp_path / "run" / "bad_images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["reason"] for row in rows} == {"not an image"}
    assert len(rows) == len({row["name"] for row in rows}) == 6
    assert "6 unreadable training images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "file"),
    [
        (["logger=tensorboard"], "tensorboard/events*"),
        (["logger=wandb", "logger.wandb.offline=true"], "wandb/offline-run*/run-*.wandb"),
        (["logger=none", "trainer.precision=bf16-mixed"], "report.html"),
    ],
)
def test_loggers_work_with_mixed_precision(photos: Path, tmp_path: Path, options: list[str], file: str) -> None:
    small = ["model.dim=16", "model.hidden=16", "data=folder", f"data.root={photos}", "margin.margin=0.3"]
    score = train(config("train", f"output_dir={tmp_path}", *SMALL, *small, "trainer.max_epochs=1", *options))
    assert score is not None
    assert list(tmp_path.glob(file))
    assert (tmp_path / "metrics.csv").exists() is ("logger=none" not in options)


def test_help_needs_no_torch() -> None:
    listing = "import sys, runpy; sys.argv = ['train', '--help']\n"
    listing += "try: runpy.run_module('src.train', run_name='__main__')\n"
    listing += "finally: print('heavy:', [m for m in ('torch', 'lightning', 'timm', 'cv2') if m in sys.modules])"
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", listing], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "heavy: []" in finished.stdout
