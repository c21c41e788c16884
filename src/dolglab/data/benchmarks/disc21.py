"""DISC21 (Douze et al., 2021), first subset: find copies among 4,991 references; micro-AP over all queries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, BoolArray, Difficulty, Figures, GroundTruth, IntArray, Ranked
from dolglab.data.benchmarks.listing import (
    Counts,
    Rules,
    check_counts,
    fingerprint,
    listed_files,
    make_benchmark,
    read_lines,
    read_table,
)
from dolglab.data.sources import JoinedSource
from dolglab.errors import UserError
from dolglab.measures import FirstAnswersMeasure, mean_scores

FIGURES: tuple[Difficulty, ...] = ("uAP", "recall@P90", "recall@1", "recall@10")
# Most lines in a submission.
LINES = 500_000
PRECISION = 0.9
FETCH = "dolglab prepare task=disc21 lists what to download"


def disc21_benchmark(
    root: str | Path, subset: str = "subset_1", counts: Counts = None, name: str | None = None
) -> Benchmark:
    """Queries and references of a published subset, with its matches.

    Args:
        root: folder with `list_files/SUBSET_queries`, `SUBSET_references` and `SUBSET_ground_truth.csv`, and with
            `images/queries/ID.jpg` and `images/references/ID.jpg`.
        subset: name of the subset.
        counts: its numbers of references and queries.
        name: the name in results.

    Raises UserError for missing or invalid lists, images that are missing or listed twice, and matches of images that
    are not listed.
    """
    root, name = Path(root), name or f"disc21_{subset}"
    lists = root / "list_files"
    references, queries = (read_lines(lists / f"{subset}_{kind}", FETCH) for kind in ("references", "queries"))
    notes = check_counts(name, root, len(references), len(queries), counts)
    files = [
        listed_files(root / "images", [f"{folder}/{image}.jpg" for image in ids], FETCH)
        for folder, ids in (("references", references), ("queries", queries))
    ]
    positives = _matches(lists / f"{subset}_ground_truth.csv", queries, references)
    depth = max(1, min(len(references), LINES // len(queries)))
    return make_benchmark(
        name,
        source=JoinedSource(*(part.source for part in files)),
        num_gallery=len(references),
        queries=np.arange(len(references), len(references) + len(queries)),
        positives=positives,
        digest=fingerprint(files, positives),
        measure=CopyMeasure(depth),
        difficulties=FIGURES,
        notes=notes,
        rules=Rules(
            f"micro-AP, recall at precision {PRECISION}, recall@k of matches; the first {depth} answers of each "
            f"query, at most {LINES:,} in total, scored by inner products",
            "not cropped; the method chooses the size",
            "nothing: matches that are not found count as failures; scores are not normalised",
            "equal scores are in the worst order: wrong answers first",
        ),
    )


def _matches(path: Path, queries: list[str], references: list[str]) -> tuple[IntArray, ...]:
    """The ascending positions of each query's references."""
    places, asked = ({name: place for place, name in enumerate(names)} for names in (references, queries))
    found: list[set[int]] = [set() for _ in queries]
    for row in read_table(path, ("query_id", "reference_id"), FETCH):
        query, reference = row["query_id"], row["reference_id"]
        if query not in asked or (reference and reference not in places):
            raise UserError(
                f"{path}: {query} and {reference or 'no reference'} are not listed: the lists have different versions"
            )
        if reference:
            found[asked[query]].add(places[reference])
    return tuple(np.array(sorted(own), np.int64) for own in found)


class CopyFigures(NamedTuple):
    """Micro-AP; the highest recall at precision 0.9 and its score threshold, NaN if that is not reached."""

    micro_ap: float
    recall_at_p90: float
    threshold_at_p90: float


def copy_figures(right: BoolArray, scores: NDArray[np.floating], matches: int) -> CopyFigures:
    """Figures of all answers together, given which are right and their scores, (n,) each, and the number of matches.

    Equal scores are in the worst order.
    """
    order = np.lexsort((right, -scores))
    right, scores = right[order], scores[order]
    found = np.cumsum(right)
    precision = found / np.arange(1, len(right) + 1)
    reached = np.flatnonzero(precision >= PRECISION)
    best = reached[found[reached].argmax()] if len(reached) else None
    return CopyFigures(
        float(precision[right].sum() / matches),
        float("nan") if best is None else float(found[best] / matches),
        float("nan") if best is None else float(scores[best]),
    )


def match_ranks(head: IntArray, scores: NDArray[np.floating], positives: IntArray) -> NDArray[np.float64]:
    """The 0-based rank of each positive among a query's answers, (k,), after equal scores; infinite if not found."""
    ranks = np.full(len(positives), np.inf)
    for place, positive in enumerate(positives.tolist()):
        at = np.flatnonzero(head == positive)
        if len(at):
            ranks[place] = np.count_nonzero(scores >= scores[at[0]]) - 1
    return ranks


class CopyMeasure(FirstAnswersMeasure):
    """uAP, recall at precision 0.9, and recall of matches among the first 1 and 10.

    Args:
        depth: number of first answers of each query.
    """

    name = ""

    def __init__(self, depth: int) -> None:
        self.depth = int(depth)

    def figures(self, truth: GroundTruth, rankings: Mapping[Difficulty, Ranked]) -> Figures:
        """The four figures; uAP and recall at precision 0.9 have no values for single queries."""
        ranked = next(iter(rankings.values()))
        top_k, scores = ranked.top_k[:, : self.depth], ranked.scores[:, : self.depth]
        right = np.array([np.isin(head, own) for head, own in zip(top_k, truth.easy, strict=True)])
        there = top_k >= 0
        together = copy_figures(right[there], scores[there], sum(map(len, truth.easy)))
        ranks = [match_ranks(*query) for query in zip(top_k, scores, truth.easy, strict=True)]
        nothing = np.full(len(truth), np.nan)
        values = {"uAP": (together.micro_ap, nothing), "recall@P90": (together.recall_at_p90, nothing)}
        for k in (1, 10):
            own = np.array([np.mean(found < k) if len(found) else np.nan for found in ranks])
            values[f"recall@{k}"] = float(np.mean(np.concatenate(ranks) < k)), own
        return Figures({name: mean_scores(own, value) for name, (value, own) in values.items()})

    def settings(self) -> dict[str, object]:
        """The arguments of the constructor."""
        return {"depth": self.depth}
