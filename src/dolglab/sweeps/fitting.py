"""The jobs of a sweep whose options belong to only some of the swept choices."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence

from hydra.errors import ConfigCompositionException

from dolglab.commands.cli_errors import UNKNOWN_KEY


def fitting_jobs(jobs: Sequence[Sequence[str]], compose: Callable[[list[str]], object]) -> list[list[str]]:
    """The overrides of each job, without options that its configuration does not have; jobs that are then equal, once.

    `compose` composes a job's configuration. Says on stderr which options are left out of how many jobs. Raises the
    error of `compose` for an option that no job has, and for anything else that it refuses.
    """
    fitting: list[list[str]] = []
    left_out, refused = Counter[str](), dict[str, ConfigCompositionException]()
    for job in jobs:
        overrides = list(job)
        while (missing := _missing(overrides, compose)) is not None:
            option, error = missing
            refused.setdefault(_key(option), error)
            left_out[option] += 1
            overrides.remove(option)
        fitting.append(overrides)
    known = {_key(option) for job in fitting for option in job}
    for key, error in refused.items():
        if key not in known:
            raise error
    for option, count in left_out.items():
        print(f"{option} is left out of {count} of {len(jobs)} jobs, which have no such option", file=sys.stderr)
    return [list(job) for job in dict.fromkeys(map(tuple, fitting))]


def _missing(
    overrides: Sequence[str], compose: Callable[[list[str]], object]
) -> tuple[str, ConfigCompositionException] | None:
    """The first of the overrides whose option does not exist, with the error; None if the job can be composed."""
    try:
        compose(list(overrides))
    except ConfigCompositionException as error:
        unknown = UNKNOWN_KEY.search(str(error))
        option = next((text for text in overrides if unknown and _key(text) == (unknown[1] or unknown[2])), None)
        if option is None:
            raise
        return option, error
    return None


def _key(override: str) -> str:
    return override.partition("=")[0]
