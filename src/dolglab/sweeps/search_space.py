"""What a search varies: the entries of `conf/search`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from optuna.trial import Trial

from dolglab.errors import UserError
from dolglab.sweeps.overrides import Value


@dataclass(frozen=True)
class Dimension:
    """One setting: an override's `key`, and its `choices`, or its range from `low` to `high`.

    Whole numbers at both ends give whole numbers. `log` is for ranges over powers of ten.
    """

    key: str
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        """Raise UserError for what is neither a range nor a choice."""
        numbers = [end for end in (self.low, self.high) if isinstance(end, int | float)]
        if self.choices and not numbers:
            return
        if self.choices or len(numbers) < 2 or numbers[0] >= numbers[1] or (self.log and numbers[0] <= 0):
            raise UserError(
                f"search: {self.key} wants choices, or low < high (above 0 with log), not low={self.low}, "
                f"high={self.high}, choices={list(self.choices)}"
            )

    def suggest(self, trial: Trial) -> Value:
        """A value for `trial`; the same one each time it is asked."""
        if self.choices:
            return cast("Value", trial.suggest_categorical(self.key, list(self.choices)))
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.key, self.low, self.high, log=self.log)
        assert self.low is not None
        assert self.high is not None
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)

    def example(self) -> Value:
        """One of its values.

        >>> Dimension("pooling", choices=("gem", "avg")).example()
        'gem'
        """
        return self.choices[0] if self.choices else self.low or 0


def read_space(search: Mapping[str, Mapping[str, Any] | None]) -> list[Dimension]:
    """The dimensions of a configuration; an entry that is null is none. Raises UserError for a wrong entry."""
    space = []
    for name, entry in search.items():
        if entry is None:
            continue
        try:
            space.append(Dimension(**{**entry, "choices": tuple(entry.get("choices") or ())}))
        except TypeError:
            raise UserError(f"search.{name} wants a key with choices, or low and high and log, not {entry}") from None
    keys = [dimension.key for dimension in space]
    if not space or len(set(keys)) < len(keys):
        raise UserError(f"search: it wants entries with a key each, not {keys or 'none'}")
    return space
