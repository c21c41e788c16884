"""Generated parts of the reference: config groups from the YAML of `conf`, commands from the sources of `--help`."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from dolglab.__main__ import COMMANDS
from dolglab.commands.config_reference import (
    Choice,
    Option,
    choices_of,
    config_folder,
    first_things_first,
    group_files,
    read_choice,
    summary,
)

# Commands that Hydra configures, whose options are the keys of a YAML file. The others use Typer.
HYDRA = ("train", "evaluate", "prepare", "report", "tune")


def configs_page() -> str:
    """Every config group: a section, with a sub-section and a table of options for each choice."""
    lines = []
    for group, files in group_files().items():
        anchor = group.replace("/", "-")
        names = ", ".join(f"[`{path.stem}`](#{anchor}-{path.stem})" for path in files)
        lines += [f"## {group} {{#{anchor}}}", "", f"Choices: {names}.", ""]
        choices = choices_of(group)
        for path in files:
            lines += [f"### {group}={path.stem} {{#{anchor}-{path.stem}}}", ""]
            lines += _recipe(path) if group == "experiment" else _choice(choices[path.stem])
    return "\n".join(lines)


def commands_page() -> str:
    """Every command: a section, with a table of its options."""
    lines = []
    for name, what in COMMANDS.items():
        lines += [f"## {name}", "", f"{what[0].upper()}{what[1:]}.", ""]
        if name in HYDRA:
            lines += _hydra_command(read_choice(config_folder() / f"{name}.yaml"))
        else:
            lines += _typer_command(name)
    return "\n".join(lines)


def _hydra_command(command: Choice) -> list[str]:
    """The description of a command, with examples, groups and options."""
    groups = [
        f"| [`{name}`](configs.md#{name.partition('@')[0]}) | {_cell(text)} |" for name, text in command.groups.items()
    ]
    listed = ["| group | meaning |", "|---|---|", *groups, ""] if groups else []
    return [command.about, "", "```bash", *command.examples, "```", "", *listed, *_table(command.options)]


def _choice(choice: Choice) -> list[str]:
    built = [summary(choice.target), f"Builds `{choice.target}`."] if choice.target else []
    lines = [line for part in (*built, choice.about) if part for line in (part, "")]
    if choice.parent:
        lines += [f"Like `{choice.parent}`, with other values:" if choice.options else f"Like `{choice.parent}`.", ""]
    return [*lines, *_table(choice.options)]


def _recipe(path: Path) -> list[str]:
    """The comment of an experiment, then the file itself: a small difference to the defaults."""
    body = itertools.dropwhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    return [read_choice(path).about, "", "```yaml", *body, "```", ""]


def _table(options: Iterable[Option]) -> list[str]:
    ordered = first_things_first(options)
    rows = [f"| `{option.name}` | {_code(option.value)} | {_cell(option.text)} |" for option in ordered]
    return ["| option | value | meaning |", "|---|---|---|", *rows, ""] if rows else []


def _code(value: str) -> str:
    if value == "???":
        return "required"
    return f"`{_cell(value)}`" if value else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _typer_command(name: str) -> list[str]:
    """A table of the options of a Typer command, or one for each of its sub-commands."""
    module = importlib.import_module(f"dolglab.commands.{name}")
    if name == "library":
        inner = typer.main.get_group(module.app).commands.values()
        return [line for one in inner for line in (f"### {name} {one.name} {{#{name}-{one.name}}}", "", *_help(one))]
    app = typer.Typer(add_completion=False)
    app.command()(module.main)
    return _help(typer.main.get_command(app))


def _help(command: Any) -> list[str]:
    rows = []
    for parameter in command.params:
        names = parameter.opts if parameter.param_type_name == "option" else [parameter.name.upper()]
        default = "required" if parameter.required else parameter.default
        shown = "" if default is None or default is False else f"`{default}`"
        rows.append(f"| `{', '.join(names)}` | {shown} | {_cell(parameter.help or '')} |")
    return [command.help or "", "", "| option | default | meaning |", "|---|---|---|", *rows, ""]
