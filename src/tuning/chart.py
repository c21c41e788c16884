"""A search drawn: validation mAP over each setting it varied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from optuna.trial import FrozenTrial, TrialState

from src.files import write_text
from src.results.charts import COLOURS, INK, frame_row, standalone, svg_of
from src.tuning.space import Dimension

CHART = "search.svg"


def write_chart(trials: Sequence[FrozenTrial], space: Sequence[Dimension], folder: Path) -> Path | None:
    """Draw a dot a trial, over its number and over each setting; None where no trial has a figure.

    Finished trials are full, those that were given up hollow, at their last validation.
    """
    shown = [trial for trial in trials if _score(trial) is not None]
    if not shown:
        return None
    figure, axes = frame_row(["trial", *(part.key for part in space)], "validation mAP, %")
    _dots(axes[0], [trial.number for trial in shown], shown)
    _record(axes[0], shown)
    for place, part in zip(axes[1:], space, strict=True):
        values = [trial.params[part.key] for trial in shown]
        if part.choices:
            names = [str(choice) for choice in part.choices]
            values = [names.index(str(value)) for value in values]
            place.set_xticks(range(len(names)), names)
        elif part.log:
            place.set_xscale("log")
        _dots(place, values, shown)
    note = f"validation mAP (Medium), %: {len(shown)} trials, hollow where given up"
    return write_text(folder / CHART, standalone(svg_of(figure), folder.name, note))


def _dots(axes: Axes, across: Sequence[float], trials: Sequence[FrozenTrial]) -> None:
    for x, trial in zip(across, trials, strict=True):
        filled = trial.state == TrialState.COMPLETE
        face = COLOURS[0] if filled else "none"
        axes.plot(x, 100 * (_score(trial) or 0), "o", markersize=4, markeredgecolor=COLOURS[0], markerfacecolor=face)


def _record(axes: Axes, trials: Sequence[FrozenTrial]) -> None:
    """The best so far, as a line."""
    numbers, best = [], []
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            numbers.append(trial.number)
            best.append(max(100 * (trial.value or 0), *best[-1:], 0))
    axes.step(numbers, best, where="post", color=INK, linewidth=0.8)


def _score(trial: FrozenTrial) -> float | None:
    """Its result, or the last that is known of it."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    steps = trial.intermediate_values
    return steps[max(steps)] if trial.state == TrialState.PRUNED and steps else None
