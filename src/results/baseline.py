"""What a run is compared with on the same queries, and what it gained."""

from __future__ import annotations

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

    Of Revisited benchmarks that is the Medium one, of others the first.
    """
    difficulties = after.benchmark.difficulties
    shown = "medium" if "medium" in difficulties else difficulties[0]
    old, new = before.evaluation[shown], after.evaluation[shown]
    mean, low, high = (100 * value for value in difference(new["ap"], old["ap"]))
    verdict = "better" if low > 0 else "not better" if high < 0 or mean <= 0 else "perhaps better, perhaps by chance"
    measure, name, queries = after.benchmark.measure, after.benchmark.name, len(after.benchmark.queries)
    return (
        f"{name}: {verdict} than {baseline.method}: {measure} {100 * old['map']:.2f} -> {100 * new['map']:.2f} %, "
        f"a gain of {mean:+.2f} points (95 % interval {low:+.2f} to {high:+.2f}, {queries} queries)"
    )
