"""What the runs of run.sh found: tables, figures and results.json.

    python experiments/local_detail/compare.py outputs/local_detail

Reads OUT/PART/SETTING/MODEL/SEED/card.json (of the recipe OUT/recipe/MODEL/SEED). Figures are means over the seeds with
their deviation (n - 1); differences are paired: the seeds' mean average precision of each query, DOLG less GeM, and the
95 % interval of a bootstrap over the queries. Writes OUT/results.md, results.json, landmarks.png, lookalikes.png.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dolglab.io import write_text
from dolglab.results.card import difference

Card = dict
# What is told of a run, by its column.
COLUMNS: dict[str, Callable[[Card], float]] = {
    "validation Medium": lambda card: 100 * card["validation_map"],
    "Medium": lambda card: 100 * scores(card)["map"]["medium"],
    "Hard": lambda card: 100 * scores(card)["map"]["hard"],
    "siblings among wrong answers": lambda card: 100 * sibling_share(card),
}
COLOURS = {"gem": "#3b7dd8", "dolg": "#e0703a"}
NAMES = {"gem": "GeM", "dolg": "DOLG"}


def scores(card: Card) -> dict:
    """The test's figures."""
    return card["benchmarks"][0]


def sibling_share(card: Card) -> float:
    """Which share of the wrong answers among a query's first ten shows a look-alike sibling."""
    counts = scores(card)["lookalikes"]
    return counts["siblings"] / counts["wrong"]


def read(out: Path) -> dict[str, dict[str, dict[int, Card]]]:
    """The cards there are, by setting, model and seed."""
    found: dict[str, dict[str, dict[int, Card]]] = {}
    for path in sorted(out.glob("**/card.json")):
        *setting, model, seed = path.parent.relative_to(out).parts
        found.setdefault("/".join(setting), {}).setdefault(model, {})[int(seed)] = json.loads(path.read_text())
    return found


def spread(values: Sequence[float]) -> str:
    """Mean and deviation; of one value itself."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def gain(models: dict[str, dict[int, Card]], difficulty: str) -> tuple[float, float, float] | None:
    """DOLG less GeM over the seeds that both have, with the interval; None where there are none."""
    seeds = sorted(models.get("gem", {}).keys() & models.get("dolg", {}).keys())
    if not seeds:
        return None
    ap = {
        name: np.array([scores(models[name][seed])["ap"][difficulty] for seed in seeds], float).mean(0)
        for name in ("dolg", "gem")
    }
    mean, low, high = difference(ap["dolg"], ap["gem"])
    return 100 * mean, 100 * low, 100 * high


def table(found: dict[str, dict[str, dict[int, Card]]]) -> str:
    """Markdown: a row a setting and model; with DOLG's the difference to the same setting's GeM."""
    lines = ["| setting | model | seeds | " + " | ".join(COLUMNS) + " | DOLG less GeM, Medium | Hard |"]
    lines.append("|---|---|---:|" + "---:|" * (len(COLUMNS) + 2))
    for setting, models in found.items():
        for model in ("gem", "dolg"):
            cards = list(models.get(model, {}).values())
            if not cards:
                continue
            cells = [spread([figure(card) for card in cards]) for figure in COLUMNS.values()]
            for difficulty in ("medium", "hard"):
                found_gain = gain(models, difficulty) if model == "dolg" else None
                cells.append("" if found_gain is None else "{:+.2f} ({:+.2f} to {:+.2f})".format(*found_gain))
            lines.append(f"| {setting} | {NAMES[model]} | {len(cards)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(panel: Axes, axis: dict[int, dict[str, dict[int, Card]]], column: str) -> None:
    """A line a model over an axis of settings: the seeds' mean, and each seed a dot."""
    for model, colour in COLOURS.items():
        points = {
            place: [COLUMNS[column](card) for card in models[model].values()]
            for place, models in sorted(axis.items())
            if model in models
        }
        panel.plot(
            list(points), [statistics.mean(values) for values in points.values()], "-", color=colour, label=NAMES[model]
        )
        for place, values in points.items():
            panel.plot([place] * len(values), values, "o", color=colour, markersize=4, alpha=0.6)
    panel.set_title(column + ", %")
    panel.legend(frameon=False)


def draw(found: dict[str, dict[str, dict[int, Card]]], out: Path) -> None:
    """The figures: mAP, and siblings among wrong answers, against landmarks and against cells of the local map."""
    axes = {
        name: {int(s.removeprefix(f"{name}/")): m for s, m in found.items() if s.startswith(f"{name}/")}
        for name in ("landmarks", "maps")
    }
    titles = {"landmarks": "training landmarks, as many steps", "maps": "cells a side of the local map"}
    shown = [name for name in axes if axes[name]]
    for file, columns in (("landmarks", ("Medium", "Hard")), ("lookalikes", ("siblings among wrong answers",))):
        if not shown:
            continue
        size = (4.2 * len(columns), 3.4 * len(shown))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(shown), len(columns), squeeze=False)
        for row, name in zip(panels, shown, strict=True):
            for panel, column in zip(row, columns, strict=True):
                plot(panel, axes[name], column)
                panel.set_xlabel(titles[name])
                if name == "landmarks":
                    panel.set_xscale("log")
                panel.set_xticks(sorted(axes[name]), [str(place) for place in sorted(axes[name])], minor=False)
                panel.minorticks_off()
        figure.savefig(out / f"{file}.png", dpi=110)


def main(out: Path) -> None:
    """Read every run, print and write."""
    found = read(out)
    text = table(found)
    print(text, end="")
    write_text(out / "results.md", text)
    results = {
        setting: {
            model: {
                seed: {name: round(figure(card), 4) for name, figure in COLUMNS.items()} for seed, card in cards.items()
            }
            for model, cards in models.items()
        }
        for setting, models in found.items()
    }
    write_text(out / "results.json", json.dumps(results, indent=1) + "\n")
    draw(found, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
