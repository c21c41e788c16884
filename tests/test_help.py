"""`--help` of the Hydra commands, and hints for keys and choices that do not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from dolglab.commands.config_reference import (
    Choice,
    choices_of,
    config_folder,
    docstring_arguments,
    option_text,
    read_choice,
)
from dolglab.commands.hints import nearest_choice, nearest_key
from dolglab.commands.hydra_help import FIRST_KEYS, command_help
from dolglab.models.pooling import GeM
from warm_python import run_python

COMMANDS = ("train", "evaluate", "prepare", "report", "tune")


def help_of(command: str, *overrides: str) -> str:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return command_help(command, compose(command, overrides=list(overrides), return_hydra_config=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_five_examples_each_group_and_each_choice(command: str) -> None:
    text, about = help_of(command), read_choice(config_folder() / f"{command}.yaml")
    assert sum(line.startswith(f"  dolglab {command} ") for line in text.splitlines()) >= 5
    words = set(re.findall(r"[\w@]+", text))
    for group in about.groups:
        choices = {path.stem for path in (config_folder() / group.partition("@")[0]).glob("*.yaml")}
        assert {group, *choices} <= words
    assert all(about.groups.values()), "a group without a comment"


@pytest.mark.parametrize("command", FIRST_KEYS)
def test_common_options_are_before_groups_and_other_options(command: str) -> None:
    text = help_of(command)
    places = [text.index(f"\n  {key}=") for key in FIRST_KEYS[command]]
    assert places == sorted(places)
    assert places[-1] < text.index("\nGroups ") < text.index("\nOptions")


def test_values_are_those_of_the_chosen_configuration() -> None:
    text = help_of("train", "experiment=photos", "trainer.max_epochs=3")
    assert "  trainer.max_epochs=3 " in text
    assert "  data.image_size=192 " in text
    assert "[efficientnet_lite0]" in text


@pytest.mark.parametrize(
    ("command", "recipe", "shown"),
    [
        ("train", "experiment=photos", "test_scales=[0.7071,1.0,1.4142]"),
        ("evaluate", "entry=xfeat_asmk_sp", "rerank.residual=12.0"),
        ("tune", "search=optimizer", "search.lr.key=optim.optimizer.lr"),
    ],
)
def test_a_recipe_shows_what_it_sets(command: str, recipe: str, shown: str) -> None:
    assert shown in help_of(command, recipe)


RECIPES = [
    pytest.param(choice, id=f"{group}-{name}")
    for group in ("experiment", "task", "entry", "search")
    for name, choice in choices_of(group).items()
]


@pytest.mark.parametrize("choice", RECIPES)
def test_a_recipe_has_a_title_that_its_details_do_not_repeat(choice: Choice) -> None:
    title, _, details = choice.about.partition(". ")
    assert 0 < len(title) <= 120
    assert title.rstrip(".") not in details


def test_a_task_shows_its_options_with_meanings() -> None:
    text = help_of("prepare", "task=pack")
    for option in read_choice(config_folder() / "task" / "pack.yaml").options:
        assert f"\n  {option.name}=" in text
        assert option.text
    assert "\n  call.train_families=2 " in help_of("prepare", "task=demo_world", "call.train_families=2")


@pytest.mark.parametrize("path", sorted((config_folder() / "task").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_task_has_a_description_and_explained_options(path: Path) -> None:
    choice = choices_of("task")[path.stem]
    assert choice.about
    assert [option.name for option in choice.options if not option.text and "${" not in option.value] in (
        [],
        # Options of the trainer that the recipe sets.
        ["trainer.logger", "trainer.enable_checkpointing"],
    )


def test_docstrings_are_read_without_importing() -> None:
    target = f"{GeM.__module__}.{GeM.__qualname__}"
    assert set(docstring_arguments(target)) >= {"channels", "p"}
    assert docstring_arguments("torch.optim.SGD") == {}
    assert option_text("data.root", "folder") != option_text("data.root", "gldv2")


KEYS = (
    *("seed", "resume", "freeze_epochs", "trainer.max_epochs", "trainer.devices", "trainer.precision"),
    *("data.root", "data.image_size", "data.batch_size", "data.workers", "data.split", "data._target_"),
    *("optim.optimizer.lr", "optim.optimizer.weight_decay", "margin.margin", "margin.scale", "local.attention"),
)
GROUPS = {"backbone": ["r50", "r101"], "optim": ["sgd", "adamw"], "data": ["folder", "demo"], "strategy": ["auto"]}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("optim.lr=0.01", "optim.optimizer.lr"),
        ("trainer.max_epoch=2", "trainer.max_epochs"),
        ("trainr.max_epochs=2", "trainer.max_epochs"),
        ("lr=0.1", "optim.optimizer.lr"),
        ("learning_rate=0.1", "optim.optimizer.lr"),
        ("batch_size=8", "data.batch_size"),
        ("data.batchsize=8", "data.batch_size"),
        ("epochs=3", "trainer.max_epochs"),
        ("epoch=3", "trainer.max_epochs"),
        ("image_size=224", "data.image_size"),
        ("workers=4", "data.workers"),
        ("num_workers=4", "data.workers"),
        ("precision=16-mixed", "trainer.precision"),
        ("gpus=2", "trainer.devices"),
        ("trainer.gpus=2", "trainer.devices"),
        ("resum=auto", "resume"),
        ("net=r101", "backbone=r101"),
        ("optimizer=adamw", "optim=adamw"),
        ("dataset=folder", "data=folder"),
    ],
)
def test_an_unknown_key_names_the_right_one(given: str, meant: str) -> None:
    key, _, value = given.partition("=")
    assert f"did you mean {meant}?" in nearest_key(key, value, KEYS, GROUPS)


def test_an_unknown_key_lists_the_keys_of_its_section() -> None:
    told = nearest_key("data.path", "x", KEYS, GROUPS)
    assert all(name in told for name in ("root", "image_size", "split"))
    assert "_target_" not in told


def test_a_choice_is_suggested_by_its_value_or_part_of_its_name() -> None:
    options = sorted(choices_of("backbone"))
    assert nearest_choice("resnet50", "backbone", options) == "r50"
    assert nearest_choice("resnet101", "backbone", options) == "r101"
    assert nearest_choice("dinov2", "backbone", options) == "vit_small_patch14_dinov2"
    assert nearest_choice("swin", "backbone", options) == "swin_small"
    assert nearest_choice("zzz", "backbone", options) is None


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["src.train", "--help"], 0, "trainer.max_epochs=100"),
        (["src.prepare", "task=scan", "--help"], 0, "\n  min_side=16"),
        (["src.train", "--hydra-help"], 0, "--config-dir"),
        (["src.train", "lr=0.1", "--help"], 2, "optim.optimizer.lr"),
        (["src.train", "data=demo", "model.pooling=gem"], 2, "pooling=gem"),
        (["src.train", "--epochs", "3"], 2, "trainer.max_epochs"),
        (["src.train", "--experiment", "photos"], 2, "experiment="),
        (["src.train", "photos"], 2, "experiment=photos"),
        (["src.report", "outputs/*/card.json"], 2, "cards="),
        (["src.train", "experiment=finetune"], 2, "weights="),
        (["src.train", "experiment=photos"], 2, "data.root="),
        (["src.train", "-m", "experiment=photos", "seed=1,2"], 2, "data.root="),
        (["src.train", "-m", "sed=1,2"], 2, "seed"),
        (["src.evaluate", "-m", "foo=1,2"], 2, "foo"),
        (["src.evaluate", "checkpoint=gone.ckpt", "name=a/b"], 2, "gone.ckpt"),
        (["src.embed", "gone", "--library", "library"], 2, "gone"),
        (["src.export", "--checkpoint", "gone", "--out", "out"], 2, "gone"),
        (["src.search", "--libary", "library"], 2, "--library"),
        (["src.search", "photo.jpg"], 2, "--library"),
        (["src.serve", "--library", "library", "--port", "many"], 2, "--port"),
        (["src.library", "duplicate"], 2, "duplicates"),
        (["src.library"], 0, "duplicates"),
        (["src.prepare"], 2, "demo_world"),
        (["src.tune", "--", "sed=1"], 2, "seed"),
    ],
    ids=str,
)
def test_help_and_refusals_leave_no_folder(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = run_python(["-m", *arguments], cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert done.stderr.count("\n") == bool(code)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_a_key_of_earlier_versions_is_accepted(tmp_path: Path) -> None:
    done = run_python(["-m", "src.train", "scales=[0.5]", "--cfg", "job"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "validation_scales:\n- 0.5\n" in done.stdout
