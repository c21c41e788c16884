"""The Lightning module that runs benchmarks: alone in evaluation, and as the base of training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
import torch.distributed as dist
from torch import nn

from dolglab.contracts import BadImage, Benchmark, GLDv2Benchmark, ImageBatch, Ranking, Resize
from dolglab.data.module import LandmarkDataModule
from dolglab.errors import UserError
from dolglab.extraction.extractor import Extractor, check_protocol
from dolglab.models.dolg import DescriptorModel
from dolglab.retrieval.gldv2_metrics import GLDv2Metric
from dolglab.retrieval.index import FlatIndex, Index
from dolglab.retrieval.metrics import RevisitedMAP


@dataclass(frozen=True)
class ExtractionOptions:
    """How descriptors are made and ranked: scales, resize rule, and what builds the gallery's index."""

    scales: Sequence[float] = (1.0,)
    resize: Resize = "released"
    index: Callable[[], Index] = FlatIndex

    def __post_init__(self) -> None:
        check_protocol(self.scales, self.resize)


class RetrievalModule(L.LightningModule):
    """Runs the data module's benchmarks through one extractor and measures the rankings.

    Args:
        model: the descriptor network.
        validation, test: how descriptors are made in `trainer.validate` and `trainer.test`.
        prefix: before the names of what is logged, such as "baseline/".

    After either, `rankings` holds one result a benchmark; the figures are logged as `val/medium` (first benchmark)
    or `val/NAME/medium` (further ones), `test/...` likewise.
    """

    def __init__(
        self,
        model: DescriptorModel,
        validation: ExtractionOptions | None = None,
        test: ExtractionOptions | None = None,
        prefix: str = "",
    ) -> None:
        super().__init__()
        # Convolutions on CPUs, dilated ones above all, and on tensor cores are faster with channels last.
        self.model = model.to(memory_format=torch.channels_last)
        self.validation = validation or ExtractionOptions()
        self.test_options = test or ExtractionOptions()
        self.prefix = prefix
        self.rankings: list[Ranking] = []
        self._runs: list[_Run] = []

    def on_validation_epoch_start(self) -> None:
        """One metric for each validation benchmark, and one network in all processes."""
        share_buffers(self.model)
        self._begin(self._data.validation, self.validation)

    def on_test_epoch_start(self) -> None:
        """One metric for each test benchmark."""
        self._begin(self._data.test, self.test_options)

    def validation_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Descriptors of one batch of whole images."""
        self._take(batch, dataloader_idx)

    def test_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Descriptors of one batch of whole images."""
        self._take(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Rank, measure and log."""
        self._end("val")

    def on_test_epoch_end(self) -> None:
        """Rank, measure and log."""
        self._end("test")

    @property
    def _data(self) -> LandmarkDataModule:
        """The trainer's data module, which Lightning attaches without declaring it."""
        return self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]

    def _begin(self, benchmarks: Sequence[Benchmark], options: ExtractionOptions) -> None:
        extractor = Extractor(self.model, options.scales, options.resize)
        self._runs = [_Run(benchmark, extractor, options.index, self.device) for benchmark in benchmarks]
        self._clock = time.perf_counter()

    def _take(self, batch: ImageBatch, place: int) -> None:
        """The time since the last batch, loading included, is this benchmark's."""
        self._runs[place].take(batch)
        now = time.perf_counter()
        self._runs[place].seconds += now - self._clock
        self._clock = now

    def _end(self, stage: str) -> None:
        self.rankings = [run.finish() for run in self._runs]
        for place, ranking in enumerate(self.rankings):
            prefix = self.prefix + (stage if place == 0 else f"{stage}/{ranking.benchmark.name.replace(' ', '_')}")
            for difficulty in ranking.benchmark.difficulties:
                value = torch.tensor(ranking.evaluation[difficulty]["map"], dtype=torch.float32)
                self.log(f"{prefix}/{difficulty}", value.to(self.device), rank_zero_only=False, sync_dist=False)
        self._runs = []


def run_test(
    trainer: L.Trainer, data: LandmarkDataModule, module: RetrievalModule, checkpoint: Path | None = None
) -> list[Ranking]:
    """Run the test benchmarks, with the weights of `checkpoint` where one is given; none gives no ranking.

    Raises UserError, which says that a given checkpoint is kept, where an image stops the test.
    """
    if not data.test:
        return []
    try:
        trainer.test(module, datamodule=data, ckpt_path=checkpoint, weights_only=True, verbose=False)
    except UserError as error:
        kept = f"training is done and {checkpoint} is kept, but the test stopped: " if checkpoint else ""
        raise UserError(f"{kept}{error}") from None
    return module.rankings


def share_buffers(model: nn.Module) -> None:
    """Give every process the buffers of the first: batch norm's statistics differ until DDP's next forward pass."""
    if dist.is_available() and dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


class _Run:
    """One benchmark while its images come in."""

    def __init__(
        self, benchmark: Benchmark, extractor: Extractor, index: Callable[[], Index], device: torch.device
    ) -> None:
        self.benchmark = benchmark
        self.extractor = extractor
        self.metric = metric_of(benchmark, extractor.model.dim, index).to(device)
        self.bad: list[BadImage] = []
        self.seconds = 0.0

    def take(self, batch: ImageBatch) -> None:
        if batch.images:
            self.metric.update(self.extractor(batch.images), batch.positions)
        if batch.bad:
            self.metric.skip(batch.skipped)
            self.bad += batch.bad

    def finish(self) -> Ranking:
        start = time.perf_counter()
        evaluation = self.metric.compute()
        searched = time.perf_counter() - start
        processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        return Ranking(
            benchmark=self.benchmark,
            evaluation=evaluation,
            kappas=self.metric.kappas,
            top=self.metric.ranks,
            bad=tuple(_of_all_processes(self.bad)),
            seconds=self.seconds + searched,
            answers=self.metric.answers if isinstance(self.metric, GLDv2Metric) else (),
            costs={
                "image_seconds": self.seconds * processes / len(self.benchmark.source),
                "query_seconds": searched / len(self.benchmark.queries),
                "image_bytes": 4.0 * self.extractor.model.dim,
            },
            curves=self.metric.curves if isinstance(self.metric, RevisitedMAP) else {},
        )


def metric_of(benchmark: Benchmark, dim: int, index: Callable[[], Index]) -> RevisitedMAP | GLDv2Metric:
    """What measures this benchmark."""
    if isinstance(benchmark, GLDv2Benchmark):
        return GLDv2Metric(benchmark, dim, index)
    return RevisitedMAP(benchmark.ground_truth, benchmark.num_gallery, benchmark.queries, dim, index)


def _of_all_processes(bad: list[BadImage]) -> list[BadImage]:
    if not (dist.is_available() and dist.is_initialized()):
        return bad
    parts: list[list[BadImage]] = [[]] * dist.get_world_size()
    dist.all_gather_object(parts, bad)
    return [image for part in parts for image in part]
