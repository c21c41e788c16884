"""The results of run.sh: tables, figures and results.json.

    python experiments/local_detail/compare.py outputs/local_detail

Reads OUT/PART/SETTING/MODEL/SEED/card.json (for the recipe OUT/recipe/MODEL/SEED), and the card of the untrained
network in baseline/ beside it, if there is one. Figures are means over the seeds with their deviation (n - 1).
Differences are paired. If all seeds have the same queries, they are differences of each query's average precision,
averaged over the seeds, with a 95 % bootstrap interval over the queries. For a folder, which each seed splits
differently, they are differences of each split's mAP, with the standard error over the splits. Minutes are those of
training epochs, without validation. Writes OUT/results.md, results.json, landmarks.png and lookalikes.png.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dolglab.bootstrap import difference
from dolglab.io import write_text

Card = dict
Models = dict[str, dict[int, Card]]
# The columns of a run; None if it was not measured.
COLUMNS: dict[str, Callable[[Card], float | None]] = {
    "validation Medium": lambda card: percent(card.get("validation_map")),
    "Medium": lambda card: percent(scores(card)["map"]["medium"]),
    "Hard": lambda card: percent(scores(card)["map"].get("hard")),
    "wrong of ten": lambda card: answers(card).get("wrong"),
    "siblings of ten": lambda card: answers(card).get("siblings"),
    "siblings among wrong answers": lambda card: percent(sibling_share(card)),
    "training, min": lambda card: card["minutes"],
}
COLOURS = {"gem": "#3b7dd8", "dolg": "#e0703a"}
NAMES = {"untrained": "GeM, untrained", "gem": "GeM", "dolg": "DOLG"}
# The columns of differences: other model and difficulty.
GAINS = {
    "minus untrained, Medium": ("untrained", "medium"),
    "minus GeM, Medium": ("gem", "medium"),
    "minus GeM, Hard": ("gem", "hard"),
}


def scores(card: Card) -> dict:
    """The figures of the test."""
    return card["benchmarks"][0]


def percent(share: float | None) -> float | None:
    """A share as a percentage."""
    return None if share is None else 100 * share


def answers(card: Card) -> dict[str, float]:
    """The numbers of wrong answers and look-alike siblings in a query's first ten; empty for photographs."""
    return scores(card).get("lookalikes") or {}


def sibling_share(card: Card) -> float | None:
    """The share of those wrong answers that shows a sibling."""
    counts = answers(card)
    return counts["siblings"] / counts["wrong"] if counts else None


def minutes(run: Path, batch: int) -> float:
    """The time of a run's epochs, from their images per second."""
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/images_per_second_epoch")]
    ends = [int(row["step"]) + 1 for row in rows]
    steps = np.diff([0, *ends])
    return sum(batch * steps / [float(row["train/images_per_second_epoch"]) for row in rows]) / 60


def read(out: Path) -> dict[str, Models]:
    """The existing cards, by setting, model and seed."""
    found: dict[str, Models] = {}
    for path in sorted(out.glob("**/card.json")):
        *setting, model, seed = path.parent.relative_to(out).parts
        card = json.loads(path.read_text())
        if seed == "baseline":
            # It is the same for both models.
            *setting, _, seed = [*setting, model]
            model, card["minutes"] = "untrained", None
        else:
            card["minutes"] = minutes(path.parent, card["config"]["data"]["batch_size"])
        found.setdefault("/".join(setting), {}).setdefault(model, {})[int(seed)] = card
    return dict(sorted(found.items(), key=by_number))


def by_number(item: tuple[str, Models]) -> tuple[str, int, str]:
    """Settings of a study in the order of their numbers."""
    study, _, place = item[0].partition("/")
    return study, int(place) if place.isdecimal() else -1, place


def spread(values: Sequence[float]) -> str:
    """Mean and deviation; a single value itself; empty without values."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def gain(models: Models, model: str, other: str, difficulty: str) -> str:
    """`model` minus `other` over the seeds that both have; empty without any."""
    seeds = sorted(models.get(model, {}).keys() & models.get(other, {}).keys())
    tests = {name: [scores(models[name][seed]) for seed in seeds] for name in (model, other) if seeds}
    if model == other or not tests or difficulty not in tests[model][0]["ap"]:
        return ""
    ap = {name: [100 * np.array(test["ap"][difficulty], float) for test in found] for name, found in tests.items()}
    if len({test["digest"] for test in tests[model]}) == 1:
        return "{:+.2f} ({:+.2f} to {:+.2f})".format(*difference(np.mean(ap[model], 0), np.mean(ap[other], 0)))
    splits = [float(np.nanmean(a) - np.nanmean(b)) for a, b in zip(ap[model], ap[other], strict=True)]
    return f"{statistics.mean(splits):+.2f} (standard error {statistics.stdev(splits) / len(splits) ** 0.5:.2f})"


def measured(cards: Mapping[int, Card], column: str) -> list[float]:
    """The existing values of a column."""
    return [value for card in cards.values() if (value := COLUMNS[column](card)) is not None]


def table(found: dict[str, Models]) -> str:
    """Markdown: a row per setting and model, with differences to others of the same setting."""
    lines = ["| " + " | ".join(["setting", "model", "seeds", *COLUMNS, *GAINS]) + " |"]
    lines.append("|---|---|---:|" + "---:|" * (len(COLUMNS) + len(GAINS)))
    for setting, models in found.items():
        for model in (name for name in NAMES if name in models):
            cells = [spread(measured(models[model], column)) for column in COLUMNS]
            if model != "untrained":
                cells += [gain(models, model, other, difficulty) for other, difficulty in GAINS.values()]
            else:
                cells += [""] * len(GAINS)
            lines.append(f"| {setting} | {NAMES[model]} | {len(models[model])} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(panel: Axes, axis: dict[int, Models], column: str, style: str, how: str) -> None:
    """A line per model over an axis of settings: the mean over seeds, and a dot per seed."""
    for model, colour in COLOURS.items():
        points = {place: measured(models[model], column) for place, models in sorted(axis.items()) if model in models}
        means = [statistics.mean(values) for values in points.values()]
        panel.plot(list(points), means, style, color=colour, label=f"{NAMES[model]}, {how}")
        for place, values in points.items():
            panel.plot([place] * len(values), values, "o", color=colour, markersize=4, alpha=0.6)
    panel.set_title(column + ", %")
    panel.legend(frameon=False, fontsize=8)


def draw(found: dict[str, Models], out: Path) -> None:
    """The figures: mAP, and siblings among wrong answers, against landmarks and against cells of the local map."""

    def axis(name: str) -> dict[int, Models]:
        return {int(s.removeprefix(f"{name}/")): m for s, m in found.items() if s.startswith(f"{name}/")}

    axes = {name: (axis(name), axis(f"whole_{name}")) for name in ("landmarks", "maps")}
    titles = {"landmarks": "training landmarks (equal numbers of steps)", "maps": "cells per side of the local map"}
    shown = [name for name, (frozen_first, _) in axes.items() if frozen_first]
    for file, columns in (("landmarks", ("Medium", "Hard")), ("lookalikes", ("siblings among wrong answers",))):
        if not shown:
            continue
        size = (4.2 * len(columns), 3.4 * len(shown))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(shown), len(columns), squeeze=False)
        for row, name in zip(panels, shown, strict=True):
            for panel, column in zip(row, columns, strict=True):
                frozen_first, whole = axes[name]
                plot(panel, frozen_first, column, "-", "frozen first")
                if whole:
                    plot(panel, whole, column, "--", "all trained")
                panel.set_xlabel(titles[name])
                if name == "landmarks":
                    panel.set_xscale("log")
                places = sorted(frozen_first.keys() | whole.keys())
                panel.set_xticks(places, [str(place) for place in places], minor=False)
                panel.minorticks_off()
        figure.savefig(out / f"{file}.png", dpi=110)


def of_run(card: Card) -> dict:
    """The entry of a run in results.json: its figures, its commit, and each query's average precision in %."""
    figures = {name: round(value, 4) for name, figure in COLUMNS.items() if (value := figure(card)) is not None}
    ap = {
        difficulty: [None if value is None else round(100 * value, 2) for value in values]
        for difficulty, values in scores(card)["ap"].items()
    }
    return {**figures, "commit": card["commit"], "ap": ap}


def main(out: Path) -> None:
    """Read all runs, print and write the results."""
    found = read(out)
    text = table(found)
    print(text, end="")
    write_text(out / "results.md", text)
    results = {
        setting: {model: {seed: of_run(card) for seed, card in cards.items()} for model, cards in models.items()}
        for setting, models in found.items()
    }
    write_text(out / "results.json", json.dumps(results) + "\n")
    draw(found, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
