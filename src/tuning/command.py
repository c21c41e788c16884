"""The command line of a search: its own settings, then `--`, then those of every trial."""

from __future__ import annotations

import re
from collections.abc import Sequence


def with_train(arguments: Sequence[str]) -> list[str]:
    """`arguments` for Hydra: what stands behind `--` as the list `train`."""
    if "--" not in arguments:
        return list(arguments)
    place = list(arguments).index("--")
    listed = ",".join(quoted(override) for override in arguments[place + 1 :])
    return [*arguments[:place], f"train=[{listed}]"]


def quoted(override: str) -> str:
    """As Hydra reads it: backslashes stand for themselves but before a quote."""
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', override)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'
