"""What a run is compared with on the same queries, and what it gained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from src.contracts import Ranking
from src.results.bootstrap import difference

UNTRAINED = "untrained ImageNet GeM"


@dataclass(frozen=True)
class Baseline:
    """A network whose rankings of the same benchmarks stand beside a run's.

    Attributes:
        rankings: one a benchmark, in the run's order.
        method: what results call it.
        checkpoint: its file, where it was trained; with the sets that chose it and what it was trained on, as in cards.
    """

    rankings: Sequence[Ranking]
    method: str = UNTRAINED
    checkpoint: Path | None = None
    selection: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, object] | None = None


def gain(baseline: Baseline, before: Ranking, after: Ranking) -> str:
    """A line: mAP of a benchmark before and after, and the gain with its paired bootstrap interval over the queries.

    Of Revisited benchmarks that is the Medium one, of others the first. Measures without a figure for each query have
    no interval.
    """
    benchmark = after.benchmark
    shown = "medium" if "medium" in benchmark.difficulties else benchmark.difficulties[0]
    old, new = before.evaluation[shown], after.evaluation[shown]
    points = 100 * (new["map"] - old["map"])
    _, low, high = (100 * value for value in difference(new["ap"], old["ap"]))
    interval = "no interval" if math.isnan(low) else f"95 % interval {low:+.2f} to {high:+.2f}"
    return (
        f"{benchmark.name}: {_verdict(points, low)} than {baseline.method}: {benchmark.measure} "
        f"{100 * old['map']:.2f} -> {100 * new['map']:.2f} %, {points:+.2f} points ({interval}, "
        f"{len(benchmark.queries)} queries)"
    )


def _verdict(points: float, low: float) -> str:
    if points <= 0:
        return "not better"
    return "better" if low > 0 else "perhaps better, perhaps by chance,"
