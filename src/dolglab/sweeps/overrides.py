"""Hydra overrides as text: what a sweep's jobs are given on their command lines, and folders named by them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Value = str | bool | int | float | None


def override(key: str, value: Value) -> str:
    """`key=value` as Hydra reads it.

    >>> override("ema", None), override("name", "a b"), override("seed", 3)
    ('ema=null', 'name="a b"', 'seed=3')
    """
    if value is None or isinstance(value, bool):
        return f"{key}={'null' if value is None else str(value).lower()}"
    return f"{key}={quoted(value) if isinstance(value, str) else value}"


def quoted(text: str) -> str:
    """A string in quotes as Hydra reads them: backslashes stand for themselves but before a quote."""
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def with_train(arguments: Sequence[str]) -> list[str]:
    """The command line of a search as Hydra reads it: what stands behind `--` as the list `train`.

    >>> with_train(["tune", "trials=3", "--", "experiment=demo"])
    ['tune', 'trials=3', 'train=["experiment=demo"]']
    """
    if "--" not in arguments:
        return list(arguments)
    place = list(arguments).index("--")
    return [*arguments[:place], f"train=[{','.join(map(quoted, arguments[place + 1 :]))}]"]


def job_folder(number: int, swept: Mapping[str, str]) -> str:
    """A job's folder: its number, and what differs, in letters that a file system, an override and a shell take.

    >>> job_folder(3, {"margin.margin": "0.15", "pooling.p": "2"})
    '3_margin-0.15_p-2'
    """
    values = {key: re.sub(r"[^A-Za-z0-9.+-]+", "-", value).strip("-") or "empty" for key, value in swept.items()}
    return "_".join([str(number), *(f"{name}-{values[key]}" for key, name in short_names(list(swept)).items())])


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last name of each dotted key, or the whole where two end alike."""
    last = {key: key.lstrip("+").rsplit(".", 1)[-1] for key in keys}
    return {key: name if list(last.values()).count(name) == 1 else key.lstrip("+") for key, name in last.items()}
