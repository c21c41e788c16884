"""The mAP as a torchmetrics metric: ranks and measures descriptors that arrive in any order from several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from dolglab.contracts import DIFFICULTIES, Benchmark, Difficulty, Evaluation, Figures, GroundTruth, Measure, Ranked
from dolglab.errors import UserError
from dolglab.measures import RevisitedMeasure
from dolglab.processes import distributed
from dolglab.retrieval.index import FlatIndex, Index
from dolglab.retrieval.large_arrays import take_rows
from dolglab.retrieval.ranking import gallery_ranking

# Positions of images and their descriptors; or, as a process's last part, the positions that it skipped.
Part = tuple[NDArray[np.int64], NDArray[np.float32]] | NDArray[np.int64]


class RetrievalMetric(Metric):
    """Collects a benchmark's descriptors, ranks its gallery and measures the ranking.

    Positions are those of the benchmark's images: the first `num_gallery` are the gallery, `queries` are the positions
    of the queries. A repeated position (from a sampler's padding) counts once.

    Args:
        measure: computes the figures of a ranking.
        ground_truth: positives and junk of every query.
        num_gallery: images in the gallery.
        queries: (Q,) positions of the query images.
        dim: length of the descriptors.
        index: constructor of the gallery's index; an exact one is not built, because `exact_ranking` does not need it.
        difficulties: the difficulties for which `compute` returns figures.
        top: number of answers per query that are kept; by default as many as the measure uses.
        batches_per_message: number of updates per message between processes.

    The first of several processes ranks, and all get the result. `compute()` returns the measure's figures by
    difficulty, and stores the ranking in `ranked` and all figures in `figures`. It releases the descriptors, so
    `reset()` must follow. A skipped positive counts as not found, a skipped query has no answers, and a skipped
    negative is absent from the ranking.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    descriptors: list[Tensor]
    positions: list[Tensor]
    skipped: list[Tensor]

    def __init__(
        self,
        measure: Measure,
        ground_truth: GroundTruth,
        num_gallery: int,
        queries: NDArray[np.int64],
        dim: int,
        index: Callable[[], Index] = FlatIndex,
        difficulties: Sequence[Difficulty] = DIFFICULTIES,
        top: int | None = None,
        batches_per_message: int = 256,
        **kwargs: Any,
    ) -> None:
        # torchmetrics would send all descriptors to every process, twice.
        super().__init__(sync_on_compute=False, **kwargs)
        self.measure = measure
        self.ground_truth = ground_truth
        self.num_gallery = num_gallery
        self.queries = queries
        self.dim = dim
        self.index = index
        self.difficulties = tuple(difficulties)
        self.top = min(measure.depth if top is None else top, num_gallery)
        self.batches_per_message = batches_per_message
        self.ranked: Ranked | None = None
        self.figures: Figures | None = None
        self.add_state("descriptors", default=[], dist_reduce_fx="cat")
        self.add_state("positions", default=[], dist_reduce_fx="cat")
        self.add_state("skipped", default=[], dist_reduce_fx="cat")

    @classmethod
    def of(cls, benchmark: Benchmark, dim: int, index: Callable[[], Index] = FlatIndex) -> RetrievalMetric:
        """The metric of a benchmark, with its own measure."""
        return RetrievalMetric(
            benchmark.measure,
            benchmark.ground_truth,
            benchmark.num_gallery,
            benchmark.queries,
            dim,
            index,
            benchmark.difficulties,
        )

    @property
    def ranks(self) -> NDArray[np.int64]:
        """The first answers found by `compute`, (Q, top); -1 if there are no more images."""
        return np.empty((0, 0), np.int64) if self.ranked is None else self.ranked.top_k

    def compute(self) -> Evaluation:
        """Rank the gallery for each query and measure the ranking. Raises UserError if images are missing."""
        self.ranked = self._rank_in_first_process()
        self.figures = self.measure.figures(self.ground_truth, dict.fromkeys(self.difficulties, self.ranked))
        return self.figures.evaluation

    def update(self, descriptors: Float[Tensor, "b d"], positions: Int[Tensor, " b"]) -> None:
        """Add a batch of descriptors and their positions in the benchmark's list of images."""
        self.descriptors.append(descriptors.detach().float().cpu())
        self.positions.append(positions.cpu())

    def skip(self, positions: Int[Tensor, " b"]) -> None:
        """Record images that could not be read."""
        self.skipped.append(positions.cpu())

    def _rank_in_first_process(self) -> Ranked:
        """The ranking of every query, in all processes; a query that could not be read has no answers."""
        outcome: list[Ranked | UserError | None] = [None]
        if distributed() and dist.get_rank():
            for part in self._own_parts():
                dist.send_object_list([part], dst=0)
        else:
            try:
                outcome = [self._rank()]
            except UserError as error:
                outcome = [error]
        if distributed():
            dist.broadcast_object_list(outcome, src=0)
        if isinstance(outcome[0], Ranked):
            return outcome[0]
        assert outcome[0] is not None
        raise outcome[0]

    def _rank(self) -> Ranked:
        table, available = self._collect()
        gallery, queries = table[: self.num_gallery], take_rows(table, self.queries)
        wanted = self.measure.ground_truth_ids(self.ground_truth)
        gallery_available, query_available = available[: self.num_gallery], available[self.queries]
        return gallery_ranking(gallery, queries, wanted, self.top, gallery_available, query_available, self.index())

    def _collect(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """All processes' descriptors by position, (images, D), and which are available; called in the first process."""
        size = max(self.num_gallery, int(self.queries.max()) + 1)
        table = np.zeros((size, self.dim), np.float32)
        available, skipped = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
        # Everything is received before an error is raised, because the other processes would wait.
        for part in self._parts():
            if isinstance(part, tuple):
                table[part[0]], available[part[0]] = part[1], True
            else:
                skipped[part] = True
        missing = np.flatnonzero(~(available | skipped))
        if len(missing):
            raise UserError(f"{len(missing)} of {size} images have no descriptor (first: position {missing[0]})")
        if not available.any():
            raise UserError(f"none of the {size} images could be read")
        return table, available

    def _parts(self) -> Iterator[Part]:
        """The parts of all processes, one after the other."""
        yield from self._own_parts()
        for source in range(1, dist.get_world_size() if distributed() else 1):
            box: list[Part | None] = [None]
            while not isinstance(box[0], np.ndarray):
                dist.recv_object_list(box, src=source)
                assert box[0] is not None
                yield box[0]

    def _own_parts(self) -> Iterator[Part]:
        """This process's parts, which are released: descriptors, and finally the images that it skipped."""
        while self.positions:
            count = min(self.batches_per_message, len(self.positions))
            yield _pop_last(self.positions, count), _pop_last(self.descriptors, count)
        yield _pop_last(self.skipped, len(self.skipped)) if self.skipped else np.empty(0, np.int64)


class RevisitedMAP(RetrievalMetric):
    """Revisited mAP of descriptors, easy, medium and hard; `kappas` are the k of mP@k.

    The other arguments are those of `RetrievalMetric` from `ground_truth` on.
    """

    def __init__(self, *args: Any, kappas: Sequence[int] = (1, 5, 10), **kwargs: Any) -> None:
        super().__init__(RevisitedMeasure(kappas), *args, **kwargs)


def _pop_last(parts: list[Tensor], count: int) -> NDArray[Any]:
    """Remove the last `count` parts from the list, and concatenate them."""
    joined = torch.cat(parts[-count:]).numpy()
    del parts[-count:]
    return joined
