"""The entry points on small worlds: train, evaluate, report, resume, and what they refuse."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from src.data.demo_world.write import write_world
from src.evaluate import main as evaluate
from src.models.backbone import Backbone
from src.train import main as train
from src.training.checkpoints import load_model

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "backbone=r18",
    "backbone.pretrained=false",
    "data.image_size=64",
    "data.batch_size=8",
    "data.workers=0",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "optim.optimizer.lr=0.01",
    "test_scales=[1.0]",
]
NARROW = ["model.dim=16", "model.hidden=16"]


def config(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, overrides=list(overrides))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(
        tmp_path_factory.mktemp("world") / "demo",
        train_families=2,
        validation_families=1,
        test_families=1,
        siblings=2,
        train_views=6,
        gallery_views=9,
        validation_distractors=2,
        test_distractors=3,
        width=128,
        height=96,
        workers=1,
    )


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    run = tmp_path_factory.mktemp("runs") / "dolg"
    overrides = [f"output_dir={run}", "name=dolg", "data=demo", f"data.root={world}", *SMALL, *NARROW]
    score = train(config("train", *overrides, "model@baseline=imagenet_gem"))
    assert score is not None
    return run, score


def card(run: Path) -> dict:
    return json.loads((run / "card.json").read_text())


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_training_leaves_a_whole_run(trained: tuple[Path, float]) -> None:
    run, score = trained
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {"card.json", "config.yaml", "metrics.csv", "report.html", "grids/demo.jpg"} <= names
    assert {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "baseline/card.json"} <= names
    assert not [name for name in names if "partial" in name or name.endswith(".part")]
    validated = [float(row["val/medium"]) for row in metrics(run) if row.get("val/medium")]
    assert len(validated) == 2
    assert max(validated) == pytest.approx(score, abs=1e-6)
    assert [row for row in metrics(run) if row.get("pooling/p")]
    assert list(card(run)["protocol"]["selection"]) == ["demo validation"]


def test_evaluating_the_checkpoint_gives_the_table_of_the_training(
    trained: tuple[Path, float], world: Path, tmp_path: Path
) -> None:
    run, _ = trained
    medium = evaluate(
        config(
            "evaluate",
            f"output_dir={tmp_path / 'out'}",
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
    assert evaluated["benchmarks"][0]["digest"] == tested["digest"]
    assert evaluated["checkpoint"]["sha256"] == card(run)["checkpoint"]["sha256"]
    assert evaluated["protocol"]["selection"] == card(run)["protocol"]["selection"]


def test_crop_none_is_labelled(trained: tuple[Path, float], world: Path, tmp_path: Path, capsys) -> None:
    run, _ = trained
    options = [
        f"checkpoint={run / 'checkpoints' / 'best.ckpt'}",
        f"benchmark.root={world / 'test'}",
        "crop=none",
    ]
    evaluate(config("evaluate", f"output_dir={tmp_path}", *options, "scales=[1.0]", "trainer=cpu", "workers=0"))
    assert "queries not cropped" in capsys.readouterr().out


@pytest.mark.parametrize("split", ["photos", "landmarks"])
def test_a_folder_of_photographs(photos: Path, tmp_path: Path, split: str, capsys) -> None:
    options = ["model=gem", "model.dim=16", "margin=cosface", "data=folder", f"data.root={photos}"]
    options += [f"data.split={split}", "augment=gentle", "data.image_size=64", "fusion=concat"]
    train(config("train", f"output_dir={tmp_path}", *SMALL, *options))
    assert f"{photos.name} test {split}" in capsys.readouterr().out
    assert card(tmp_path)["benchmarks"][0]["difficulties"] == ["medium"]


def test_the_untrained_network_on_a_folder(photos: Path, tmp_path: Path) -> None:
    options = [
        "model=imagenet_gem",
        "backbone=efficientnet_lite0",
        "benchmark=folder",
        f"benchmark.root={photos}",
    ]
    medium = evaluate(
        config("evaluate", f"output_dir={tmp_path}", *options, "scales=[1.0]", "trainer=cpu", "workers=0")
    )
    chance = 9 / 59
    assert medium > 4 * chance


def test_real_photographs_in_the_revisited_layout(
    trained: tuple[Path, float], shared_data: Path, tmp_path: Path
) -> None:
    run, _ = trained
    root = shared_data / "rparis6k-mini"
    options = [
        f"checkpoint={run / 'checkpoints' / 'best.ckpt'}",
        "benchmark=rparis6k",
        f"benchmark.root={root}",
    ]
    options += [f"benchmark.ground_truth={root / 'gnd_rparis6k-mini.pkl'}", "scales=[0.5]", "max_side=256"]
    medium = evaluate(config("evaluate", f"output_dir={tmp_path}", *options, "trainer=cpu", "workers=0"))
    assert 0 <= medium <= 1
    assert card(tmp_path)["benchmarks"][0]["gallery"] == 39


def command(*overrides: str, module: str = "src.train") -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", module, *overrides]


def environment(**extra: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"} | extra


def losses(run: Path) -> list[float]:
    """Training losses in the order of their steps, which must be whole."""
    rows = [row for row in metrics(run) if row.get("train/loss")]
    assert [int(row["step"]) for row in rows] == list(range(len(rows)))
    return [float(row["train/loss"]) for row in rows]


def test_killed_twice_it_trains_as_if_nothing_had_happened(world: Path, tmp_path: Path) -> None:
    options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, "data.workers=1", "trainer.max_epochs=8"]
    unbroken, run = tmp_path / "unbroken", tmp_path / "run"
    whole = run_command(command(f"hydra.run.dir={unbroken}", *options))
    assert whole.returncode == 0, whole.stderr
    last = run / "checkpoints" / "last.ckpt"
    here = f"hydra.run.dir={run}"
    kill_when(last.exists, command(here, *options))
    before = last.stat().st_mtime_ns
    kill_when(lambda: last.stat().st_mtime_ns != before, command(here, "resume=true", "test_scales=[0.5]"))
    finished = run_command(command(here, "resume=true"))
    assert finished.returncode == 0, finished.stderr
    assert "epoch 1/" not in finished.stdout
    assert losses(run) == pytest.approx(losses(unbroken), rel=1e-6)
    assert len(losses(run)) == 3 * 8
    assert card(run)["protocol"]["scales"] == [0.5]
    best = max(float(row["val/medium"]) for row in metrics(run) if row.get("val/medium"))
    assert best == pytest.approx(
        max(float(row["val/medium"]) for row in metrics(unbroken) if row.get("val/medium")), abs=1e-6
    )


def kill_when(condition: Callable[[], bool], arguments: list[str]) -> None:
    """Start a command and end it with SIGKILL, its loader workers with it, once the condition holds."""
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until(condition, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_command(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=240
    )


def wait_until(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.05)


def test_a_run_that_is_told_to_stop_says_how_it_goes_on(world: Path, tmp_path: Path) -> None:
    for name, number, code in [("a", signal.SIGTERM, 143), ("b", signal.SIGINT, 130)]:
        run = tmp_path / name
        options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, "trainer.max_epochs=200", f"hydra.run.dir={run}"]
        process = subprocess.Popen(
            command(*options), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        wait_until((run / "checkpoints" / "last.ckpt").exists, process)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == code
        assert "resume=true name=" in said.strip().splitlines()[-1]
        assert "Traceback" not in said


def test_two_processes_share_the_batch_and_the_benchmark_and_resume(world: Path, tmp_path: Path, capsys) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    here = f"hydra.run.dir={run}"
    options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, "strategy=ddp_gloo", "trainer.devices=2"]
    finished = run_command(command(here, *options, "trainer.max_epochs=1"))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("page: ") == 1
    resumed = run_command(command(here, "resume=true", "trainer.max_epochs=2"))
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch 2/2" in resumed.stdout
    assert len(losses(run)) == 2 * 3
    checkpoint = f"checkpoint={run / 'checkpoints' / 'best.ckpt'}"
    root = f"benchmark.root={world / 'test'}"
    medium = evaluate(config("evaluate", f"output_dir={alone}", checkpoint, root, "trainer=cpu", "workers=0"))
    assert card(run)["benchmarks"][0]["map"]["medium"] == pytest.approx(medium, abs=1e-6)
    assert card(alone)["protocol"] == card(run)["protocol"]
    held = [f"output_dir={tmp_path / 'held'}", f"benchmark.root={world / 'validation'}", "benchmark.name=held"]
    selected = evaluate(config("evaluate", *held, checkpoint, "trainer=cpu", "workers=0"))
    scores = [float(row["val/medium"]) for row in metrics(run) if row.get("val/medium")]
    assert selected == pytest.approx(max(scores), abs=1e-6)
    assert "selected on this set" in capsys.readouterr().out


def test_a_head_spread_over_two_processes_trains_like_one(world: Path, tmp_path: Path) -> None:
    """Also from a checkpoint that the other number of processes wrote; the checkpoint holds the whole head."""
    options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, "class_parallel=true", "trainer.gradient_clip_val=5"]
    options += ["backbone.freeze_bn=true", "trainer.max_epochs=2", "local.attention=false"]
    two = ["strategy=ddp_gloo", "trainer.devices=2"]
    whole, parts = tmp_path / "one", tmp_path / "two"
    for run, extra in [(whole, []), (parts, two)]:
        done = run_command(command(f"hydra.run.dir={run}", *options, *extra))
        assert done.returncode == 0, done.stderr
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-3)
    kept = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, parts)]
    assert kept[0]["state_dict"]["head.weight"].shape == kept[1]["state_dict"]["head.weight"].shape == (4, 16)
    momenta = [state_of(checkpoint) for checkpoint in kept]
    for found in ((c["state_dict"]["head.weight"] for c in kept), momenta):
        one, other = found
        torch.testing.assert_close(other, one, rtol=1e-2, atol=1e-3)
    for run, extra in [(whole, two), (parts, ["strategy=auto", "trainer.devices=1"])]:
        done = run_command(command(f"hydra.run.dir={run}", "resume=true", "trainer.max_epochs=3", *extra))
        assert done.returncode == 0, done.stderr
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-2)
    assert len(losses(parts)) == 9


def state_of(checkpoint: dict) -> torch.Tensor:
    """The momentum of the head's weight."""
    return checkpoint["optimizer_states"][0]["state"][checkpoint["dolg_head_place"]]["momentum_buffer"]


def test_images_that_any_process_skipped_are_on_the_card(world: Path, tmp_path: Path) -> None:
    broken = tmp_path / "test"
    shutil.copytree(world / "test", broken)
    for victim in sorted((broken / "jpg").iterdir())[:2]:
        victim.write_bytes(b"")
    options = ["model=imagenet_gem", "backbone=r18", "backbone.pretrained=false", f"benchmark.root={broken}"]
    options += ["scales=[0.5]", "trainer=cpu", "trainer.devices=2", "strategy=ddp_gloo", "workers=0", "on_error=skip"]
    finished = run_command([*command(f"hydra.run.dir={tmp_path / 'run'}", *options, module="src.evaluate")])
    assert finished.returncode == 0, finished.stderr
    assert len(card(tmp_path / "run")["benchmarks"][0]["bad_images"]) == 2


def test_a_warm_start_with_averaged_weights_and_the_other_options(
    trained: tuple[Path, float], world: Path, tmp_path: Path, capsys
) -> None:
    before = trained[0] / "checkpoints" / "best.ckpt"
    options = [f"output_dir={tmp_path}", "data=demo", f"data.root={world}", *SMALL, *NARROW, "data.image_size=96"]
    options += [f"weights={before}", "ema=0.9", "trainer.precision=bf16-mixed"]
    options += ["optim.groups.layer_decay=0.5", "optim.groups.decay_norms=false", "trainer.accumulate_grad_batches=2"]
    train(config("train", *options, "trainer.max_epochs=1"))
    said = capsys.readouterr().out
    assert "and the head's class centres" in said
    assert "licence of its weights: bsd-3-clause" in said
    assert card(tmp_path)["config"]["licence"] == "bsd-3-clause"
    train(config("train", *options, "trainer.max_epochs=2", "resume=true"))
    stored = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    averaged, current = stored["state_dict"], stored["current_model_state"]
    assert averaged.keys() == current.keys()
    assert not torch.equal(averaged["model.fc.weight"], current["model.fc.weight"])
    assert {group["name"] for group in stored["optimizer_states"][0]["param_groups"]} >= {"level0", "new_flat"}
    model, _ = load_model(tmp_path / "checkpoints" / "last.ckpt")
    assert torch.equal(model.state_dict()["fc.weight"], averaged["model.fc.weight"])


def test_a_compiled_training_pass_gives_the_same_losses(world: Path, tmp_path: Path) -> None:
    """As commands: the checker of shape annotations, which tests put around every function, cannot be compiled."""
    options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, "trainer.max_epochs=1"]
    for name, compiler in [("plain", "null"), ("compiled", "aot_eager")]:
        done = run_command(command(f"hydra.run.dir={tmp_path / name}", *options, f"compiler={compiler}"))
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-3)


def test_frozen_layers_stay_as_they_are_through_a_training(photos: Path, tmp_path: Path) -> None:
    options = ["backbone=efficientnet_lite0", "backbone.freeze_until=4", "model=gem", "model.dim=16", "data=folder"]
    cfg = config("train", f"output_dir={tmp_path}", *SMALL[2:], *options, f"data.root={photos}", "trainer.max_epochs=1")
    train(cfg)
    after, _ = load_model(tmp_path / "checkpoints" / "last.ckpt")
    moved = {
        key.split(".")[2] if key.startswith("net.blocks") else "stem"
        for key, value in Backbone(cfg.backbone.name, weights=cfg.backbone.weights).state_dict().items()
        if not torch.equal(value, after.backbone.state_dict()[key])
    }
    assert moved == {"2", "3", "4", "5", "6"}


def refused(main: Callable[[DictConfig], object], cfg: DictConfig, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(cfg)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_without_data_the_paper_recipe_says_how_to_get_it(tmp_path: Path, capsys) -> None:
    line = refused(train, config("train", f"output_dir={tmp_path / 'run'}", f"data.root={tmp_path}"), capsys)
    assert str(tmp_path / "train_clean.csv") in line
    assert "curl" in line
    assert "make demo" in line
    assert not (tmp_path / "run").exists()


def test_refusals_are_one_line_and_leave_nothing(
    trained: tuple[Path, float], world: Path, photos: Path, tmp_path: Path, capsys
) -> None:
    run, _ = trained
    best = run / "checkpoints" / "best.ckpt"
    (tmp_path / "empty").mkdir()
    folder = ["data=folder", *SMALL]
    demo = ["data=demo", f"data.root={world}", *SMALL, *NARROW]
    out = f"output_dir={tmp_path / 'out'}"
    for main, name, overrides, message in [
        (train, "train", [*folder, f"data.root={tmp_path / 'gone'}"], "folder not found"),
        (train, "train", [*folder, f"data.root={tmp_path / 'empty'}"], "no images"),
        (train, "train", [*folder, f"data.root={photos}", "data.batch_size=1000"], "fewer than one batch"),
        (train, "train", [*folder], "data.root"),
        (train, "train", [*demo, "margin.margin=4"], "margin"),
        (train, "train", [*demo, "backbone.name=resnet9000"], "unknown backbone"),
        (train, "train", [*demo, "resume=true"], "no run to resume"),
        (train, "train", [*demo, "name=''"], "no name for a run"),
        (train, "train", [*demo, "class_parallel=true", "margin=curricularface"], "does not work with CurricularFace"),
        (train, "train", [*demo, "class_parallel=true", "ema=0.9"], "neither ema"),
        (train, "train", [*demo, "ema=2"], "between 0 and 1"),
        (train, "train", [*demo, "data.batch_size=1"], "raise data.batch_size"),
        (train, "train", [*demo, "name=../x"], "no name for a run"),
        (train, "train", [*demo, "trainer.max_epochs=abc"], "whole numbers, not abc"),
        (train, "train", [*demo, "seed=-1"], "seed must be a whole number from 0"),
        (train, "train", [*demo, "data.batch_size=many"], "data"),
        (train, "train", [*demo, "trainer.devices=0"], "trainer"),
        (train, "train", [*demo, "trainer.precision=bf16-true"], "bf16-mixed"),
        (train, "train", [*demo, "test_scales=[]"], "scales must be a list of numbers"),
        (train, "train", [*demo, "+data.nosuch=3"], "nosuch"),
        (train, "train", ["data=demo", f"data.root={tmp_path / 'gone'}"], "src.prepare task=demo_world"),
        (evaluate, "evaluate", ["model=imagenet_gem", "benchmark=folder"], "benchmark.root=... is needed"),
        (evaluate, "evaluate", [f"checkpoint={best}", "scales=1.0"], "scales must be a list of numbers"),
        (evaluate, "evaluate", [f"checkpoint={best}", "scales=[a]"], "scales must be a list of numbers"),
        (evaluate, "evaluate", [f"checkpoint={best}", f"benchmark.root={world / 'test'}", "max_side=big"], "max_side"),
        (evaluate, "evaluate", [f"checkpoint={tmp_path / 'no.ckpt'}"], "checkpoint not found"),
        (evaluate, "evaluate", [], "give checkpoint=FILE"),
        (evaluate, "evaluate", [f"checkpoint={best}", "model=gem"], "not both"),
        (
            evaluate,
            "evaluate",
            [f"checkpoint={best}", f"benchmark.root={tmp_path / 'x'}"],
            "folder not found",
        ),
        (evaluate, "evaluate", [f"checkpoint={best}", f"benchmark.root={tmp_path / 'empty'}"], "no gnd"),
        (evaluate, "evaluate", [f"checkpoint={best}", "crop=square"], "crop"),
    ]:
        assert message in refused(main, config(name, out, *overrides), capsys)
        assert not (tmp_path / "out").exists()


def test_two_runs_in_one_folder_are_refused(trained: tuple[Path, float], world: Path, capsys) -> None:
    overrides = [f"output_dir={trained[0]}", "data=demo", f"data.root={world}", *SMALL, *NARROW]
    assert "already holds a run" in refused(train, config("train", *overrides), capsys)


def test_a_refused_run_does_not_take_its_name(world: Path, tmp_path: Path, capsys) -> None:
    broken = tmp_path / "test"
    shutil.copytree(world / "test", broken)
    next((broken / "jpg").iterdir()).write_bytes(b"")
    untrained = ["model=imagenet_gem", "backbone=r18", "backbone.pretrained=false", "trainer=cpu", "workers=0"]
    for out, main, name, options in [
        ("evaluated", evaluate, "evaluate", [*untrained, f"benchmark.root={broken}", "scales=[1.0]"]),
        ("trained", train, "train", ["data=demo", f"data.root={world}", f"data.test.demo.root={broken}", *SMALL]),
    ]:
        options = [f"output_dir={tmp_path / out}", "trainer.max_epochs=1", *options]
        assert "zero bytes" in refused(main, config(name, *options, *(NARROW if main is train else [])), capsys)
        main(config(name, *options, "on_error=skip", *(NARROW if main is train else [])))
        assert "1 image skipped" in capsys.readouterr().out


def test_a_run_does_not_go_on_with_another_split(photos: Path, tmp_path: Path, capsys) -> None:
    options = [f"output_dir={tmp_path}", *SMALL, *NARROW, "data=folder", f"data.root={photos}", "trainer.max_epochs=1"]
    train(config("train", *options))
    assert "not those that" in refused(train, config("train", *options, "resume=true", "seed=5"), capsys)


def test_two_images_of_one_cell_a_map_train(photos: Path, tmp_path: Path) -> None:
    options = [*SMALL, *NARROW, "data=folder", f"data.root={photos}", "data.batch_size=2", "data.image_size=32"]
    train(config("train", f"output_dir={tmp_path}", *options, "trainer.max_epochs=1", "trainer.limit_train_batches=3"))
    assert len(metrics(tmp_path)) >= 3


def test_another_network_cannot_resume_a_run(trained: tuple[Path, float], world: Path, capsys) -> None:
    overrides = [
        f"output_dir={trained[0]}",
        "data=demo",
        f"data.root={world}",
        *SMALL,
        "model.dim=8",
        "resume=true",
    ]
    assert "another architecture" in refused(train, config("train", *overrides), capsys)


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
        file.write_bytes(b"not an image")
    options = [
        "model=gem",
        "model.dim=16",
        "data=folder",
        f"data.root={tmp_path / 'photos'}",
        "on_error=skip",
    ]
    train(config("train", f"output_dir={tmp_path / 'run'}", *SMALL, *options))
    with (tmp_path / "run" / "bad_images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["reason"] for row in rows} == {"not an image"}
    assert len(rows) == len({row["name"] for row in rows}) == 6
    assert "6 unreadable training images" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_with_the_batchs_ids(photos: Path, tmp_path: Path, capsys) -> None:
    options = ["model=gem", "model.dim=16", "data=folder", f"data.root={photos}", "optim.optimizer.lr=1e30"]
    line = refused(train, config("train", f"output_dir={tmp_path}", *SMALL, *options), capsys)
    assert "the loss became" in line
    ids, files = line.split("ids of the batch: ")[1].split("; files: ")
    assert len(ids.split()) == 8
    assert all((photos / file).is_file() for file in files.split(", "))


@pytest.mark.parametrize(
    ("options", "file"),
    [
        (["logger=tensorboard"], "tensorboard/events*"),
        (["logger=wandb", "logger.wandb.offline=true"], "wandb/offline-run*/run-*.wandb"),
        (["logger=none", "trainer.precision=bf16-mixed"], "report.html"),
    ],
)
def test_loggers_and_mixed_precision(photos: Path, tmp_path: Path, options: list[str], file: str) -> None:
    small = ["model.dim=16", "model.hidden=16", "data=folder", f"data.root={photos}", "margin.margin=0.3"]
    score = train(config("train", f"output_dir={tmp_path}", *SMALL, *small, "trainer.max_epochs=1", *options))
    assert score is not None
    assert list(tmp_path.glob(file))
    assert (tmp_path / "metrics.csv").exists() is ("logger=none" not in options)


def test_an_unknown_override_is_named(tmp_path: Path) -> None:
    finished = subprocess.run(
        command("margn=arcface", f"hydra.run.dir={tmp_path}"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode != 0
    assert "margn" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_help_needs_no_torch() -> None:
    listing = "import sys, runpy; sys.argv = ['train', '--help']\n"
    listing += "try: runpy.run_module('src.train', run_name='__main__')\n"
    listing += "finally: print('heavy:', [m for m in ('torch', 'lightning', 'timm', 'cv2') if m in sys.modules])"
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", listing], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "heavy: []" in finished.stdout
