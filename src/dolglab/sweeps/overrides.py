"""What a sweep's jobs are called: their folders say what differs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Value = str | bool | int | float | None


def override(key: str, value: Value) -> str:
    """`key=value` as Hydra reads it."""
    if value is None or isinstance(value, bool):
        return f"{key}={'null' if value is None else str(value).lower()}"
    return f"{key}={quoted(value) if isinstance(value, str) else value}"


def quoted(override: str) -> str:
    """As Hydra reads it: backslashes stand for themselves but before a quote."""
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', override)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def job_folder(number: int, swept: Mapping[str, str]) -> str:
    """A job's folder: its number, and what differs, such as `3_margin-0.15_p-2`."""
    return "_".join(
        [str(number), *(f"{label}-{_plain(swept[key])}" for key, label in short_names(list(swept)).items())]
    )


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last name of each dotted key, or the whole where two end alike."""
    last = {key: key.lstrip("+").rsplit(".", 1)[-1] for key in keys}
    return {key: label if list(last.values()).count(label) == 1 else key.lstrip("+") for key, label in last.items()}


def _plain(value: str) -> str:
    """What a folder's name, an override and a shell take as it is."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", value).strip("-") or "empty"
