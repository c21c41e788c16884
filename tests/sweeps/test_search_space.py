"""The settings that a search varies."""

from __future__ import annotations

import optuna
import pytest

from dolglab.errors import UserError
from dolglab.sweeps.study import Dimension, read_space


def test_values_are_in_range_of_their_type_and_reproducible():
    space = read_space(
        {
            "batch": {"key": "data.batch_size", "low": 2, "high": 5},
            "lr": {"key": "optim.optimizer.lr", "low": 0.001, "high": 0.1, "log": True},
            "fusion": {"key": "fusion", "choices": ["concat", "orthogonal"]},
            "left_out": None,
        }
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    seen = []
    for _ in range(100):
        trial = study.ask()
        batch, rate, fusion = values = [part.suggest(trial) for part in space]
        assert isinstance(batch, int)
        assert batch in range(2, 6)
        assert 0.001 <= float(rate) <= 0.1
        assert fusion in ("concat", "orthogonal")
        assert [part.suggest(trial) for part in space] == values
        seen.append(values)
    assert {batch for batch, *_ in seen} == {2, 3, 4, 5}
    # Uniform over powers of ten: half are below the middle.
    assert sum(rate < 0.01 for _, rate, _ in seen) in range(30, 71)


@pytest.mark.parametrize(
    "entry",
    [
        {"key": "x"},
        {"key": "x", "low": 1},
        {"key": "x", "low": 2, "high": 1},
        {"key": "x", "low": 0, "high": 1, "log": True},
        {"key": "x", "low": 0, "high": 1, "choices": [1]},
        {"low": 0, "high": 1},
        {"key": "x", "low": 0, "high": 1, "steps": 4},
    ],
)
def test_incomplete_and_conflicting_entries_are_refused(entry):
    with pytest.raises(UserError, match=entry.get("key", "name")):
        read_space({"name": entry})


def test_empty_and_repeated_search_spaces_are_refused():
    with pytest.raises(UserError, match=r"none"):
        read_space({"name": None})
    with pytest.raises(UserError, match=r"'x', 'x'"):
        read_space({name: {"key": "x", "low": 0, "high": 1} for name in "ab"})


def test_an_example_is_one_of_the_values():
    assert Dimension("x", choices=("b", "c")).example() == "b"
    assert Dimension("x", 0.5, 1).example() == 0.5
