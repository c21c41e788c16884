"""Users' mistakes give one line each, and leave nothing behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hydra import initialize_config_dir

from dolglab.commands.cli_errors import compose_config
from dolglab.commands.config_reference import config_folder
from dolglab.commands.evaluate import main as evaluate
from dolglab.commands.train import main as train
from dolglab.errors import UserError
from dolglab.io import write_text
from end_to_end.runs import NARROW, SMALL, command, config, refused
from warm_python import run_python

pytestmark = pytest.mark.process
NO_TRAINING = (
    "max_epochs=0",
    "max_epochs=-2",
    "max_steps=0",
    "limit_train_batches=0",
    "accumulate_grad_batches=0",
    "check_val_every_n_epoch=0",
)


def test_the_paper_recipe_without_data_names_how_to_get_it(tmp_path: Path, capsys) -> None:
    line = refused(train, config("train", f"output_dir={tmp_path / 'run'}", f"data.root={tmp_path}"), capsys)
    assert str(tmp_path / "train_clean.csv") in line
    assert "task=gldv2" in line
    assert "make demo" in line
    assert not (tmp_path / "run").exists()


def test_refusals_give_one_line_and_leave_nothing(
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
        (train, "train", [*folder, f"data.root={photos}", "data.batch_size=1000"], "use data.batch_size="),
        *((train, "train", [*demo, f"trainer.{limit}"], limit.split("=")[0]) for limit in NO_TRAINING),
        (train, "train", [*folder], "data.root"),
        (train, "train", [*demo, "margin.margin=4"], "margin"),
        (train, "train", [*demo, "backbone.name=resnet9000"], "unknown backbone"),
        (train, "train", [*demo, "resume=true"], "no run to resume"),
        (train, "train", [*demo, "name=''"], "not a valid run name"),
        (train, "train", [*demo, "resume=maybe"], "true, false or auto"),
        (train, "train", [*demo, "class_parallel=true", "margin=curricularface"], "does not work with CurricularFace"),
        (train, "train", [*demo, "class_parallel=true", "ema=0.9"], "neither ema"),
        (train, "train", [*demo, "ema=2"], "between 0 and 1"),
        (train, "train", [*demo, "data.batch_size=1"], "increase data.batch_size"),
        (train, "train", [*demo, "local.dilations=[1,4]"], "local maps of 4 x 4"),
        (train, "train", [*demo, "freeze_epochs=-2"], "freeze_epochs"),
        (train, "train", [*demo, "freeze_epochs=some"], "freeze_epochs"),
        (train, "train", [*demo, "name=../x"], "not a valid run name"),
        (train, "train", [*demo, "trainer.max_epochs=abc"], "trainer.max_epochs must be a whole number"),
        (train, "train", [*demo, "data.image_size=ninety"], "data.image_size must be a number, not ninety"),
        (train, "train", [*demo, "optim.optimizer.lr=fast"], "optim.optimizer.lr must be a number, not fast"),
        (train, "train", [*demo, "margin.margin=big"], "margin.margin must be a number, not big"),
        (train, "train", [*demo, "seed=-1"], "seed must be a whole number from 0"),
        (train, "train", [*demo, "data.batch_size=many"], "data"),
        (train, "train", [*demo, "trainer.devices=0"], "trainer"),
        (train, "train", [*demo, "trainer.precision=bf16-true"], "bf16-mixed"),
        (train, "train", [*demo, "test_scales=[]"], "scales must be a list of numbers"),
        (train, "train", [*demo, "+data.nosuch=3"], "nosuch"),
        (train, "train", ["data=demo", f"data.root={tmp_path / 'gone'}"], "dolglab prepare task=demo_world"),
        (evaluate, "evaluate", ["model=imagenet_gem", "benchmark=folder"], "benchmark.root=... is needed"),
        (evaluate, "evaluate", [f"checkpoint={best}", "scales=1.0"], "scales must be a list of numbers"),
        (evaluate, "evaluate", [f"checkpoint={best}", "scales=[a]"], "scales must be a list of numbers"),
        (evaluate, "evaluate", [f"checkpoint={best}", f"benchmark.root={world / 'test'}", "max_side=big"], "max_side"),
        (evaluate, "evaluate", [f"checkpoint={tmp_path / 'no.ckpt'}"], "checkpoint not found"),
        (evaluate, "evaluate", [], "set checkpoint=FILE"),
        (evaluate, "evaluate", [f"checkpoint={best}", "model=gem"], "not both"),
        (evaluate, "evaluate", [f"checkpoint={best}", f"benchmark.root={tmp_path / 'x'}"], "folder not found"),
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


def test_a_loss_that_is_not_finite_stops_with_the_batchs_ids(photos: Path, tmp_path: Path, capsys) -> None:
    options = ["model=gem", "model.dim=16", "data=folder", f"data.root={photos}", "optim.optimizer.lr=1e30"]
    line = refused(train, config("train", f"output_dir={tmp_path}", *SMALL, *options), capsys)
    assert "the loss became" in line
    ids, rest = line.split("ids of the batch: ")[1].split("; files: ")
    files, kept = rest.split("; the batch and the weights are in ")
    assert len(ids.split()) == 8
    evidence = torch.load(kept, weights_only=True)
    assert evidence["batch"]["ids"] == ids.split()
    assert evidence["batch"]["images"].shape == (8, 64, 64, 3)
    assert "head.weight" in evidence["state_dict"]
    assert all((photos / file).is_file() for file in files.split(", "))


@pytest.mark.parametrize(
    ("module", "overrides", "named"),
    [
        ("train", ["optim.lr=0.01"], ["optim.lr", "did you mean optim.optimizer.lr?"]),
        ("train", ["bacbone=r50"], ["did you mean backbone?", "r18", "swin_small"]),
        ("train", ["-m", "hydra.sweep.dir=FOLDER", "margn=1,2"], ["did you mean margin?", "cosface"]),
        ("train", ["-m", "hydra.sweep.dir=FOLDER", "backbone=r18,r51"], ["did you mean backbone=r50?", "r101"]),
        (
            "train",
            ["-m", "hydra.sweep.dir=FOLDER", "margin=subcenter_arcface,arcface", "margin.centres=2"],
            ["margin.centres=choice(2)"],
        ),
        (
            "train",
            ["-m", "hydra.sweep.dir=FOLDER", "margin=arcface,subcenter_arcface", "margin.centres=2"],
            ["margin.centres=choice(2)"],
        ),
        ("evaluate", ["learn_on=demo"], ["did you mean benchmark@learn_on?", "roxford5k"]),
        ("prepare", ["task=pakc"], ["did you mean task=pack?", "roxford5k"]),
        ("prepare", [], ["task=NAME", "demo_world", "gldv2"]),
        ("report", ["card=x"], ["did you mean cards?"]),
        ("tune", ["search=optimiser"], ["did you mean search=optimizer?", "margin_gem"]),
        ("train", ["x=[1"], ["x=[1"]),
        ("train", ["margin=null"], ["~GROUP"]),
        ("train", ["hydra.run.dir=FILE/run"], ["FILE/run: Not a directory"]),
        ("train", ["-m", "hydra.sweep.dir=FILE/run", "seed=1,2"], ["FILE/run: Not a directory"]),
    ],
)
def test_refusals_by_hydra_or_the_system_give_one_line_and_leave_nothing(
    tmp_path: Path, module: str, overrides: list[str], named: list[str]
) -> None:
    file, folder = tmp_path / "file", tmp_path / "sweep"
    file.touch()
    given = [override.replace("FILE", str(file)).replace("FOLDER", str(folder)) for override in overrides]
    done = run_python(command(*given, module=f"src.{module}"))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "+" not in line
    for words in named:
        assert words.replace("FILE", str(file)) in line
    assert not folder.exists()


@pytest.mark.parametrize(
    "override",
    ["data.image_size=abc", "optim.optimizer.lr=abc", "backbone._target_=dolglab.nothing", "margin._target_=nothing"],
)
def test_a_wrong_value_gives_one_line(photos: Path, tmp_path: Path, override: str) -> None:
    given = [
        "data=folder",
        f"data.root={photos}",
        f"output_dir={tmp_path / 'out'}",
        f"hydra.run.dir={tmp_path / 'out'}",
    ]
    done = run_python(command(*given, *SMALL, override))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert override.split(".")[0] in line
    assert not (tmp_path / "out").exists()


def within(config: str, overrides: list[str]) -> str:
    """The messages for overrides that do not compose."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"), pytest.raises(UserError) as refusal:
        compose_config(config, overrides)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("trainer.max_epoch=2", "trainer.max_epochs"),
        ("max_epochs=2", "trainer.max_epochs"),
        ("lr=0.1", "optim.optimizer.lr"),
        ("data.batchsize=8", "data.batch_size"),
        ("marign.margin=0.1", "margin.margin"),
        ("model@basline=gem", "model@baseline"),
        ("~loger", "logger"),
        ("hydra.swep.dir=x", "hydra.sweep.dir"),
    ],
)
def test_a_wrong_key_names_the_nearest_right_one(wrong: str, right: str) -> None:
    assert f"did you mean {right}?" in within("train", [wrong, "experiment=demo"])


def test_an_unknown_key_lists_the_keys_of_its_section() -> None:
    assert "margin.zzzzz" in (said := within("train", ["margin.zzzzz=1"]))
    assert "scale" in said
    assert "did you mean" not in within("train", ["zzzzz=1"])
    assert "seed exists already" in within("train", ["+seed=1"])


def test_own_configurations_may_use_names_of_version_0_1(tmp_path: Path) -> None:
    for name, text in {
        "task/own": "call: {_target_: src.data.preparation.scan.scan_gldv2, root: gone, split: train}",
        "pooling/own": "{}",
        "experiment/wrong": "defaults: [{override /poling: own}]",
    }.items():
        write_text(tmp_path / f"{name}.yaml", f"# @package _global_\n{text}\n")
    own = ["--config-dir", str(tmp_path)]
    done = run_python(command(*own, "task=own", module="src.prepare"))
    assert done.returncode == 2
    assert "gone" in done.stderr
    done = run_python(command(*own, "experiment=wrong"))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    for words in ("(in experiment/wrong.yaml)", "did you mean pooling?", ", own"):
        assert words in line


def test_processes_started_by_torchrun_need_a_common_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    done = run_python(command("data=demo", *SMALL))
    assert done.returncode == 2
    assert "set name=" in done.stderr
