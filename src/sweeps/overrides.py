"""Overrides as Hydra reads them, for commands that a program writes."""

from __future__ import annotations

import re

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
