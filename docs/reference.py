"""The generated parts of the reference: config groups from the YAML of `conf`, commands from what `--help` knows.

Docstrings are read, not imported: the site builds without torch.
"""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import griffe
import typer
import yaml

from dolglab.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
# Commands that Hydra configures: their options are the keys of a YAML. The others are Typer's.
HYDRA = ("train", "evaluate", "prepare", "report", "tune")
# What people change first stands first.
FIRST = ("max_epochs", "image_size", "batch_size", "lr", "workers", "precision")
# Keys that are no options: they say how Hydra puts a configuration together and calls what it names.
PLUMBING = ("_target_", "_partial_", "_convert_", "_recursive_", "defaults", "hydra", "call")


@dataclass(frozen=True)
class Option:
    """A key that can be given on the command line: its dotted name, its value as YAML and what it means."""

    name: str
    value: str
    text: str


@dataclass(frozen=True)
class Choice:
    """A file of a config group: what is said of it, its options and the choice of its group that it begins with."""

    name: str
    about: str
    options: list[Option]
    parent: str | None


def groups() -> dict[str, list[Path]]:
    """Every config group and its files, in the order of their names."""
    found: dict[str, list[Path]] = {}
    for path in sorted(CONF.glob("*/**/*.yaml")):
        found.setdefault(path.parent.relative_to(CONF).as_posix(), []).append(path)
    return found


def configs_page() -> str:
    """Every config group: a section, with a sub-section and a table of options for each choice."""
    lines = []
    for group, files in groups().items():
        anchor = group.replace("/", "-")
        names = ", ".join(f"[`{path.stem}`](#{anchor}-{path.stem})" for path in files)
        lines += [f"## {group} {{#{anchor}}}", "", f"Choices: {names}.", ""]
        choices = {path: read_choice(path, group) for path in files}
        # An option that several choices have is explained in one file.
        texts = {o.name: o.text for choice in choices.values() for o in choice.options if o.text}
        for path, choice in choices.items():
            lines += [f"### {group}={path.stem} {{#{anchor}-{path.stem}}}", ""]
            lines += _recipe(path) if group == "experiment" else _choice(choice, texts)
    return "\n".join(lines)


def commands_page() -> str:
    """Every command: a section, with a table of its options."""
    lines = []
    for name, summary in COMMANDS.items():
        lines += [f"## {name}", "", f"{summary[0].upper()}{summary[1:]}.", ""]
        if name in HYDRA:
            lines += _choice(read_choice(CONF / f"{name}.yaml", ""), {})
        else:
            lines += _typer_command(name)
    return "\n".join(lines)


def read_choice(path: Path, group: str) -> Choice:
    """What a YAML of `conf` holds; its comments say what an option means, or else its constructor's docstring does."""
    text = path.read_text()
    lines = text.splitlines()
    root = yaml.compose(text)
    header = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    # What is moved out of its group is given by its own name: at the root, or as what a multirun varies.
    moved = any("@package" in line for line in header)
    prefix = "" if moved else f"{group.replace('/', '.')}."
    keys = {key.value: value for key, value in root.value}
    about = _comment([line for line in header if "@package" not in line])
    if target := keys.get("_target_"):
        about = "\n\n".join(part for part in (_summary(target.value), about) if part)
    defaults = yaml.safe_load(text).get("defaults", [])
    parents = [name for name in defaults if isinstance(name, str) and (path.parent / f"{name}.yaml").exists()]
    options = list(_options(root, lines, prefix.lstrip("."), len(header)))
    return Choice(path.stem, about, options, parents[0] if parents else None)


def _options(node: yaml.MappingNode, lines: list[str], prefix: str, first: int) -> Iterator[Option]:
    """The options below a mapping, inner mappings flattened; comments above line `first` belong to the file."""
    targets = [value.value for key, value in node.value if key.value == "_target_"]
    arguments = _arguments(targets[0]) if targets else {}
    for key, value in node.value:
        if key.value in PLUMBING:
            continue
        above = key.start_mark.line
        start = above
        while start > first and lines[start - 1].lstrip().startswith("#"):
            start -= 1
        text = _comment(lines[start:above]) or arguments.get(key.value, "")
        if isinstance(value, yaml.MappingNode) and value.value:
            inner = list(_options(value, lines, f"{prefix}{key.value}.", first))
            yield from [Option(o.name, o.value, o.text or (text if o is inner[0] else "")) for o in inner]
        else:
            shown = value.value if isinstance(value, yaml.ScalarNode) else yaml.serialize(value).strip()
            if not text and (same := re.fullmatch(r"\$\{([\w.]+)\}", shown)):
                text = f"that of `{same[1]}`"
            yield Option(f"{prefix}{key.value}", shown, text)


def _comment(lines: list[str]) -> str:
    return " ".join(line.lstrip().removeprefix("#").strip() for line in lines)


def _choice(choice: Choice, texts: dict[str, str]) -> list[str]:
    lines = [choice.about, ""] if choice.about else []
    if choice.parent:
        lines += [f"As `{choice.parent}`, with other values:" if choice.options else f"As `{choice.parent}`.", ""]
    return [*lines, *_table([replace(o, text=o.text or texts.get(o.name, "")) for o in choice.options])]


def _recipe(path: Path) -> list[str]:
    """An experiment is a small difference to the defaults: its comment, then the file itself."""
    about = read_choice(path, "experiment").about
    body = itertools.dropwhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    return [about, "", "```yaml", *body, "```", ""]


def _table(options: list[Option]) -> list[str]:
    if not options:
        return []
    ordered = sorted(options, key=lambda option: _rank(option.name.rpartition(".")[2]))
    rows = [f"| `{option.name}` | {_code(option.value)} | {_cell(option.text)} |" for option in ordered]
    return ["| option | value | meaning |", "|---|---|---|", *rows, ""]


def _rank(key: str) -> int:
    return FIRST.index(key) if key in FIRST else len(FIRST)


def _code(value: str) -> str:
    if value == "???":
        return "needed"
    return f"`{_cell(value)}`" if value else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _typer_command(name: str) -> list[str]:
    """A table of a Typer command's options, or of each of its commands."""
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


@cache
def _package() -> griffe.Object | griffe.Alias:
    return griffe.load("dolglab", search_paths=[ROOT / "src"])


@cache
def _docstring(target: str) -> list[griffe.DocstringSection]:
    """The sections of the docstring of a class or function of the project; nothing for another library's."""
    package, _, path = target.partition(".")
    if package != "dolglab":
        return []
    found = _package()[path]
    return found.docstring.parse("google", warnings=False) if found.docstring else []


def _summary(target: str) -> str:
    """The first paragraph of a docstring, and the name of what is built."""
    texts = [section.value for section in _docstring(target) if section.kind is griffe.DocstringSectionKind.text]
    first = texts[0].split("\n\n")[0] if texts else ""
    return f"{first}\n\nBuilds `{target}`.".strip()


def _arguments(target: str) -> dict[str, str]:
    kind = griffe.DocstringSectionKind.parameters
    sections = [section.value for section in _docstring(target) if section.kind is kind]
    return {name: a.description for section in sections for a in section for name in a.name.split(", ")}
