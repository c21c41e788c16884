"""`--help` of the commands that Hydra configures, generated from the YAML in `conf`.

Options are shown with their values in the composed configuration, so that `dolglab train experiment=photos --help`
shows what that recipe sets, and `dolglab prepare task=pack --help` the options of packing. Hydra's own help is at
`--hydra-help`, the whole configuration at `--cfg job`.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from dolglab.commands.config_reference import (
    FIRST,
    Choice,
    Option,
    choices_of,
    config_folder,
    first_things_first,
    last_name,
    read_choice,
)

# What people change first, by command, in this order.
FIRST_KEYS = {
    "train": (
        "trainer.max_epochs",
        "data.image_size",
        "data.batch_size",
        "optim.optimizer.lr",
        "data.workers",
        "trainer.precision",
    ),
    "evaluate": ("max_side", "scales", "workers", "trainer.precision", "trainer.devices"),
}
# Groups whose choices are whole recipes, which their names do not explain: choices are listed with their titles, and
# the chosen one is described.
RECIPES = ("experiment", "task", "entry", "search")
USAGE = {
    "train": "train [GROUP=CHOICE | KEY=VALUE] ...",
    "evaluate": "evaluate [GROUP=CHOICE | KEY=VALUE] ...",
    "prepare": "prepare task=NAME [KEY=VALUE] ...",
    "report": "report cards=PATHS [KEY=VALUE] ...",
    "tune": "tune name=NAME [search=NAME] [KEY=VALUE] ... -- [KEY=VALUE of dolglab train] ...",
}
MAX_WIDTH, TEXT_AT = 110, 30


def command_help(command: str, cfg: DictConfig) -> str:
    """The help of a command for its configuration `cfg`, which was composed with Hydra's own section."""
    about = read_choice(config_folder() / f"{command}.yaml")
    chosen = cfg.hydra.runtime.choices
    values = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False))
    recipe = _recipe_of(command, chosen)
    options = first_things_first([*about.options, *(recipe.options if recipe and command == "prepare" else ())])
    first = FIRST_KEYS.get(command, ())
    explained = {option.name: option for key in first for option in _options_at(key, about, chosen)}
    lines = [f"usage: dolglab {USAGE[command]}", "", *_wrap(about.about), ""]
    lines += ["Examples:", *(f"  {example}" for example in about.examples), ""]
    if recipe:
        lines += [f"{recipe.name}:", *_wrap(recipe.about, "  "), *_settings(recipe, command), ""]
    if first:
        lines += ["What people change first, with current values:"]
        lines += _options([explained[key] for key in first if key in explained], values, known_as=True)
    groups = recipe.groups if recipe and command == "prepare" else about.groups
    for name, text in groups.items():
        if name in RECIPES and (command == "tune" or not recipe):
            lines += [f"{name}=NAME: {text}", *_recipes(name), ""]
    if others := {name: text for name, text in groups.items() if name not in RECIPES}:
        lines += ["Groups (GROUP=CHOICE), with the current choice in brackets:", *_groups(others, chosen), ""]
    if rest := [option for option in options if option.name not in first]:
        lines += ["Options, with current values:", *_options(rest, values)]
    return "\n".join([*lines, *_more(command, recipe)])


def _recipe_of(command: str, chosen: Mapping[str, Any]) -> Choice | None:
    """The recipe that was chosen, such as an experiment or a task."""
    for group in RECIPES:
        if isinstance(name := chosen.get(group), str):
            return read_choice(config_folder() / group / f"{name}.yaml")
    return None


def _settings(recipe: Choice, command: str) -> list[str]:
    """What a recipe sets, in the syntax of the command line; the options of a task are listed instead."""
    settings = " ".join(f"{option.name}={_typed(option.value)}" for option in recipe.options)
    return _wrap(f"It sets {settings}", "  ") if command != "prepare" and settings else []


def _options_at(key: str, about: Choice, chosen: Mapping[str, Any]) -> Iterator[Option]:
    """The option of a dotted key: the command's own, or one of its group."""
    group = key.partition(".")[0]
    inside = choices_of(group).values() if group in chosen else (about,)
    found = [option for choice in inside for option in choice.options if option.name == key]
    # All choices of a group explain it alike.
    yield from found[:1]


def _options(options: Iterable[Option], values: Mapping[str, Any], known_as: bool = False) -> list[str]:
    """Each option on one or more lines: key, current value, meaning. Options that only copy another are left out."""
    lines = []
    for option in options:
        value = _value(values, option.name, option.value)
        if value and option.text and not option.text.startswith("that of `"):
            name = FIRST.get(last_name(option.name), "") if known_as else ""
            said = f"{name}: {option.text}" if name and not option.text.startswith(name) else option.text
            lines += _entry(f"{option.name}={value}", said)
    return [*lines, ""]


def _value(values: Mapping[str, Any], key: str, given: str) -> str:
    """The value of a dotted key in the syntax of the command line; empty if it has no value of its own."""
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if found is None:
        return "null" if given == "null" else ""
    text = str(found).lower() if isinstance(found, bool) else str(found).replace("'", "")
    return "..." if "${" in text or text == "???" else _typed(text)


def _typed(value: str) -> str:
    """A value as it is typed: lists without spaces."""
    return value.replace(", ", ",") if value.startswith(("[", "{")) else value


def _recipes(group: str) -> Iterator[str]:
    """Each choice of a group with its title, the first sentence of its comment."""
    for choice in choices_of(group).values():
        yield from _entry(choice.name, choice.about.split(". ")[0].rstrip("."))


def _groups(groups: Mapping[str, str], chosen: Mapping[str, Any]) -> Iterator[str]:
    """Each group with its meaning, and its choices below."""
    known = read_choice(config_folder() / "evaluate.yaml").groups
    for name, text in groups.items():
        group, now = name.partition("@")[0], chosen.get(name)
        files = (path.stem for path in sorted((config_folder() / group).glob("*.yaml")))
        yield from _entry(name, text or known.get(group, ""))
        yield from _wrap(" ".join(f"[{file}]" if file == now else file for file in files), " " * 6)


def _more(command: str, recipe: Choice | None) -> list[str]:
    shown = {"prepare": "task=NAME", "train": "experiment=NAME", "tune": "search=NAME", "evaluate": "entry=NAME"}
    lines = []
    if command in shown and (command == "tune" or not recipe):
        lines += _entry(f"{shown[command]} --help", "what it sets, and its options")
    lines += _entry("--cfg job", "print the whole configuration; of one group with --package GROUP")
    if command in ("train", "evaluate"):
        lines += _entry("-m KEY=A,B", "one run for each value")
    return [*lines, *_entry("--hydra-help", "Hydra's own flags, such as --config-dir for your own YAML files")]


def _entry(head: str, text: str) -> list[str]:
    """A head with its text beside it, or below it if the head is long."""
    said = textwrap.wrap(text, _width() - TEXT_AT, break_on_hyphens=False)
    beside = len(head) + 4 <= TEXT_AT
    first = f"  {head:<{TEXT_AT - 4}}  {said[0] if said else ''}".rstrip() if beside else f"  {head}"
    return [first, *(" " * TEXT_AT + line for line in said[beside:])]


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, _width(), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _width() -> int:
    return max(60, min(MAX_WIDTH, shutil.get_terminal_size().columns - 1))
