"""Stanford Online Products (Song et al., CVPR 2016): each test photograph is a query for others of its product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dolglab.contracts import Benchmark, Difficulty, Figures, GroundTruth, IntArray, Ranked, Ranking
from dolglab.data.benchmarks.listing import (
    Counts,
    Rules,
    check_counts,
    fingerprint,
    listed_files,
    make_benchmark,
    read_table,
)
from dolglab.data.folder import rows_by_landmark
from dolglab.measures import ground_truth_ids_of, mean_scores, positive_ranks

KAPPAS = (1, 10, 100, 1000)
LIST = "Ebay_test.txt"
FETCH = "dolglab prepare task=sop downloads it"


def products_benchmark(root: str | Path, counts: Counts = None, name: str = "sop") -> Benchmark:
    """The photographs of `Ebay_test.txt` as gallery and as queries; each is left out of its own ranking.

    Args:
        root: folder with `Ebay_test.txt` and the photographs.
        counts: the number of photographs, twice.
        name: the name in results.

    Raises UserError for an invalid list, photographs that are missing or listed twice, and other numbers.
    """
    root = Path(root)
    rows = read_table(root / LIST, ("image_id", "class_id", "super_class_id", "path"), FETCH, separator=" ")
    notes = check_counts(name, root, len(rows), len(rows), counts)
    files = listed_files(root, [row["path"] for row in rows], FETCH)
    members = rows_by_landmark(np.array([row["class_id"] for row in rows], np.str_))
    positives = [members[row["class_id"]][members[row["class_id"]] != place] for place, row in enumerate(rows)]
    measure = ProductMeasure()
    return make_benchmark(
        name,
        source=files.source,
        num_gallery=len(rows),
        queries=np.arange(len(rows)),
        positives=positives,
        digest=fingerprint([files], positives),
        measure=measure,
        difficulties=measure.difficulties,
        itself=True,
        notes=notes,
        rules=Rules(
            "share of photographs with another of their product among the first k, test split only",
            "not cropped; resizing to 256 pixels and cropping to 224 is usual, but not done here",
            "nothing: a product with one photograph counts as a failure; the query has no rank",
            "equal scores are in list order",
        ),
    )


class ProductMeasure:
    """Recall@k as in metric learning, from the ranks of the positives, so that k may be large.

    Junk, such as the query itself, has no rank.
    """

    name = ""
    depth = 1

    def __init__(self, kappas: Sequence[int] = KAPPAS) -> None:
        self.kappas = tuple(map(int, kappas))

    @property
    def difficulties(self) -> tuple[Difficulty, ...]:
        """The figures' names."""
        return tuple(f"recall@{k}" for k in self.kappas)

    def ground_truth_ids(self, truth: GroundTruth) -> tuple[IntArray, ...]:
        """The positives of each query, and the query itself."""
        return ground_truth_ids_of(truth)

    def figures(self, truth: GroundTruth, rankings: Mapping[Difficulty, Ranked]) -> Figures:
        """1 or 0 for each query and k, and the mean."""
        found = positive_ranks("medium", next(iter(rankings.values())), truth)
        first = np.array([ranks[0] if len(ranks) else np.inf for ranks in found], np.float64)
        return Figures({f"recall@{k}": mean_scores((first < k).astype(np.float64)) for k in self.kappas})

    def submission(self, ranking: Ranking) -> None:
        """This benchmark has no submission file."""

    def settings(self) -> dict[str, object]:
        """The arguments of the constructor."""
        return {"kappas": self.kappas}
