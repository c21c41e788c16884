"""The command line of a search: its own settings, then `--`, then those of every trial."""

from __future__ import annotations

from collections.abc import Sequence

from src.sweeps.overrides import quoted


def with_train(arguments: Sequence[str]) -> list[str]:
    """`arguments` for Hydra: what stands behind `--` as the list `train`."""
    if "--" not in arguments:
        return list(arguments)
    place = list(arguments).index("--")
    listed = ",".join(quoted(override) for override in arguments[place + 1 :])
    return [*arguments[:place], f"train=[{listed}]"]
