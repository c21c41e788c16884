"""Compare the ablation's runs: mAP over the seeds, and the number of wrong answers that are look-alike siblings.

    python experiments/fusion_ablation/compare.py outputs/fusion_ablation data/demo_world_320

Prints a table, and writes OUT/results.json and OUT/figure.png. A wrong answer is one of a query's first ten that
shows another landmark; it is a sibling if that landmark is in the query's family. Deviations are over the seeds (n -
1).
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dolglab.data.revisited import load_ground_truth

SETTINGS = ("global", "orthogonal", "concat", "hadamard")
FIGURES = ("medium", "hard", "wrong", "siblings", "sibling_share")
TITLES = ("mAP Medium, %", "mAP Hard, %", "wrong in the top 10", "siblings among them", "their share, %")
FIRST = 10


def wrong_answers(rankings: dict[str, list[str]], world: Path) -> tuple[int, int]:
    """Wrong answers among the first ten of all queries, and how many of these are siblings."""
    lists = load_ground_truth(world / "test" / "gnd_test.pkl")
    truth = lists.ground_truth
    family = json.loads((world / "families.json").read_text())["test"]
    wrong = siblings = 0
    for row, query in enumerate(lists.queries):
        same = {lists.gallery[i] for part in (truth.easy, truth.hard, truth.junk) for i in part[row].tolist()}
        answers = [Path(name).stem for name in rankings[f"jpg/{query}.jpg"][:FIRST]]
        others = [name for name in answers if name not in same]
        wrong += len(others)
        siblings += sum(family[name] == family[query] for name in others)
    return wrong, siblings


def figures_of(run: Path, world: Path) -> dict[str, float]:
    """One run's figures: mAP and share in percent, counts per query."""
    scores = json.loads((run / "card.json").read_text())["benchmarks"][0]
    wrong, siblings = wrong_answers(json.loads((run / "rankings" / "demo.json").read_text()), world)
    queries = scores["queries"]
    return {
        "medium": 100 * scores["map"]["medium"],
        "hard": 100 * scores["map"]["hard"],
        "wrong": wrong / queries,
        "siblings": siblings / queries,
        "sibling_share": 100 * siblings / wrong,
    }


def draw(results: dict[str, dict[str, list[float]]], path: Path) -> None:
    """One panel per figure: a dot per seed, connected over the settings, and the means."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels: list[Axes] = [figure.add_subplot(1, 3, place) for place in (1, 2, 3)]
    for panel, name in zip(panels, ("medium", "hard", "siblings"), strict=True):
        columns = [results[setting][name] for setting in SETTINGS]
        for seed in zip(*columns, strict=True):
            panel.plot(range(len(SETTINGS)), seed, "o-", color="#9aa5b1", markersize=4, linewidth=1)
        panel.plot(
            range(len(SETTINGS)), [statistics.mean(values) for values in columns], "_", color="#c0392b", ms=26, mew=2
        )
        panel.set_xticks(range(len(SETTINGS)), SETTINGS)
        panel.set_title(TITLES[FIGURES.index(name)] + (" (per query)" if name == "siblings" else ""))
        panel.margins(x=0.15)
    figure.supxlabel("one line per seed, the mean in red", fontsize=9)
    figure.savefig(path, dpi=110)


def main(out: Path, world: Path) -> None:
    """Read all runs, print and write the results."""
    seeds = sorted(folder for folder in out.iterdir() if (folder / "start").is_dir())
    results: dict[str, dict[str, list[float]]] = {}
    for setting in ("start", *SETTINGS):
        rows = [figures_of(seed / setting, world) for seed in seeds]
        results[setting] = {name: [round(row[name], 4) for row in rows] for name in FIGURES}
    print(f"| {len(seeds)} seeds: mean ± deviation | " + " | ".join(TITLES) + " |")
    print("|---|" + "---:|" * len(TITLES))
    for setting, figures in results.items():
        cells = [f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}" for values in figures.values()]
        print(f"| {setting} | " + " | ".join(cells) + " |")
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, out / "figure.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
