"""Documentation in the YAML of `conf`: groups, their choices, and options with their meanings.

The comment above a key explains it; without a comment, the docstring of the YAML's `_target_` does. The reference pages
and `--help` are generated from this. Docstrings are parsed, not imported, so neither needs torch.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml

# Options that people change first, with their common names; they are first in every list of options.
FIRST = {
    "max_epochs": "epochs",
    "image_size": "image size",
    "batch_size": "batch size",
    "lr": "learning rate",
    "workers": "workers",
    "precision": "precision",
}
# Keys that are not options, but instructions to Hydra.
PLUMBING = ("_target_", "_partial_", "_convert_", "_recursive_", "defaults", "hydra", "call")
# Marks a recipe, whose keys are at the root and not below the group's name.
GLOBAL = "@package _global_"
# An example in a header's comment.
EXAMPLE = re.compile(r"#\s{4,}(?P<command>\S.*)")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Option:
    """A key that can be set on the command line: its dotted name, its value as YAML, and its meaning."""

    name: str
    value: str
    text: str


@dataclass(frozen=True)
class Choice:
    """A file of `conf`: its description, examples and options, and the groups in its defaults with their meanings.

    `target` is its `_target_`; `parent` is the choice of its group that it extends.
    """

    name: str
    about: str
    examples: tuple[str, ...]
    options: tuple[Option, ...]
    groups: Mapping[str, str]
    target: str | None
    parent: str | None


def config_folder() -> Path:
    """The folder of configurations: inside an installed package, at the root of a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(folder for folder in (package / "conf", package.parents[1] / "conf") if folder.is_dir())


def group_files() -> dict[str, list[Path]]:
    """Every config group and its files, in the order of their names."""
    conf = config_folder()
    found: dict[str, list[Path]] = {}
    for path in sorted(conf.glob("*/**/*.yaml")):
        found.setdefault(path.parent.relative_to(conf).as_posix(), []).append(path)
    return found


@cache
def choices_of(group: str) -> dict[str, Choice]:
    """The choices of a group, such as "pooling", by name.

    An option of several choices may be explained in only one of the files.
    """
    choices = [read_choice(path) for path in sorted((config_folder() / group).glob("*.yaml"))]
    texts = {option.name: option.text for choice in choices for option in choice.options if option.text}
    return {choice.name: replace(choice, options=with_texts(choice.options, texts)) for choice in choices}


def option_text(key: str, choice: str | None = None) -> str:
    """The meaning of a group's option, by its dotted name: in one `choice`, or in the first that explains it.

    Empty if no file explains it.
    """
    group = key.partition(".")[0]
    known = choices_of(group) if "." in key else {}
    options = (option for name, one in known.items() if choice in (None, name) for option in one.options)
    return next((option.text for option in options if option.name == key and option.text), "")


def with_texts(options: Iterable[Option], texts: Mapping[str, str]) -> tuple[Option, ...]:
    """The options; those without a text get theirs from `texts`."""
    return tuple(replace(option, text=option.text or texts.get(option.name, "")) for option in options)


def first_things_first(options: Iterable[Option]) -> list[Option]:
    """The options, starting with those that people change first."""
    order = list(FIRST)
    return sorted(options, key=lambda o: order.index(last_name(o.name)) if last_name(o.name) in FIRST else len(order))


def last_name(key: str) -> str:
    """The last part of a dotted key."""
    return key.rpartition(".")[2]


@cache
def read_choice(path: Path) -> Choice:
    """Read a YAML file of `conf`."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    root = yaml.compose(text, Loader=_LOADER)
    header = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    said = [line for line in header if GLOBAL not in line and not EXAMPLE.match(line)]
    examples = tuple(found["command"] for line in header if (found := EXAMPLE.match(line)))
    # Keys of files with another package are not prefixed by the group.
    group = path.parent.relative_to(config_folder()).as_posix()
    moved = group == "." or any("@package" in line for line in header)
    keys = {key.value: value for key, value in root.value}
    groups = _groups(keys.get("defaults"), lines)
    parents = [name for name in groups if (path.parent / f"{name}.yaml").exists() and "/" not in name and group != "."]
    target = keys["_target_"].value if "_target_" in keys else None
    options = list(_options(root, lines, "" if moved else f"{group.replace('/', '.')}.", len(header)))
    if "call" in keys:
        options = _with_call(options, keys["call"], lines, len(header))
    about = _comment(said)
    return Choice(path.stem, about, examples, tuple(options), groups, target, parents[0] if parents else None)


def _options(node: yaml.MappingNode, lines: Sequence[str], prefix: str, first: int) -> Iterator[Option]:
    """The options below a mapping, inner mappings flattened; comments above line `first` belong to the file."""
    targets = [value.value for key, value in node.value if key.value == "_target_"]
    arguments = docstring_arguments(targets[0]) if targets else {}
    for key, value in node.value:
        if key.value in PLUMBING:
            continue
        text = _above(key.start_mark.line, lines, first) or arguments.get(key.value, "")
        if isinstance(value, yaml.MappingNode) and value.value:
            inner = list(_options(value, lines, f"{prefix}{key.value}.", first))
            yield from [replace(o, text=o.text or (text if o is inner[0] else "")) for o in inner]
        else:
            shown = value.value if isinstance(value, yaml.ScalarNode) else yaml.serialize(value).strip()
            if not text and (same := _reference(value)):
                text = f"that of `{same[1]}`"
            yield Option(f"{prefix}{key.value}", shown, text)


def _with_call(options: Iterable[Option], call: yaml.MappingNode, lines: Sequence[str], first: int) -> list[Option]:
    """A task's options, explained by the docstring of its call, and the arguments of the call that have a comment."""
    targets = [value.value for key, value in call.value if key.value == "_target_"]
    arguments = docstring_arguments(targets[0])
    texts = {same[1]: arguments.get(key.value, "") for key, value in call.value if (same := _reference(value))}
    stated = ((key, value, _above(key.start_mark.line, lines, first)) for key, value in call.value)
    return [
        *with_texts(options, texts),
        *(Option(f"call.{key.value}", value.value, text) for key, value, text in stated if text),
    ]


def _reference(node: yaml.Node) -> re.Match[str] | None:
    """A match whose group is the name of the option that a value refers to, or None."""
    return re.fullmatch(r"\$\{([\w.]+)\}", node.value) if isinstance(node, yaml.ScalarNode) else None


def _groups(defaults: yaml.Node | None, lines: Sequence[str]) -> dict[str, str]:
    """The groups and files in a defaults list, with the comments above them."""
    found: dict[str, str] = {}
    for entry in defaults.value if isinstance(defaults, yaml.SequenceNode) else ():
        name = entry.value if isinstance(entry, yaml.ScalarNode) else entry.value[0][0].value
        if name != "_self_" and not name.startswith("override hydra"):
            found[name.removeprefix("override ").removeprefix("/")] = _above(entry.start_mark.line, lines, 0)
    return found


def _above(line: int, lines: Sequence[str], first: int) -> str:
    """The comment directly above a line, but not above line `first`."""
    start = line
    while start > first and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return _comment(lines[start:line])


def _comment(lines: Iterable[str]) -> str:
    return " ".join(line.lstrip().removeprefix("#").strip() for line in lines).strip()


def summary(target: str) -> str:
    """The first paragraph of the docstring of a `_target_`; empty for those of other libraries."""
    return " ".join(_docstring(target).split("\n\n")[0].split())


@cache
def docstring_arguments(target: str) -> dict[str, str]:
    """The text of each argument in the section `Args:` of a docstring."""
    _, _, section = _docstring(target).partition("\nArgs:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if not line.startswith("    "):
            break
        if start := re.match(r"    (\w[\w, ]*): (.*)", line):
            names = start[1].split(", ")
            found |= dict.fromkeys(names, start[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


@cache
def _docstring(target: str) -> str:
    """The docstring of a class, function or method of the project, by its dotted name."""
    package, *parts = target.split(".")
    path = Path(__file__).resolve().parents[1]
    while parts and (path / parts[0]).is_dir():
        path /= parts.pop(0)
    if package != "dolglab" or not parts or not (path := path / f"{parts[0]}.py").is_file():
        return ""
    found: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    for name in parts[1:]:
        inside = (node for node in ast.iter_child_nodes(found) if getattr(node, "name", None) == name)
        found = next(inside, ast.Module([], []))
    assert isinstance(found, ast.Module | ast.ClassDef | ast.FunctionDef)
    return inspect.cleandoc(ast.get_docstring(found) or "")
