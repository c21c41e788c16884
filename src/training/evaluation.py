"""The Lightning module that runs benchmarks: alone in evaluation, and as the base of training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import lightning as L
import torch

from src.contracts import BadImage, Benchmark, ImageBatch, Ranking, Resize
from src.data.module import LandmarkDataModule
from src.extraction.extractor import Extractor
from src.models.dolg import DescriptorModel
from src.retrieval.index import FlatIndex
from src.retrieval.metrics import RevisitedMAP

# How many of each query's answers a ranking keeps, for figures.
TOP = 100


@dataclass(frozen=True)
class ExtractionOptions:
    """How descriptors are made and ranked: scales, resize rule, and what builds the gallery's index."""

    scales: Sequence[float] = (1.0,)
    resize: Resize = "released"
    index: Callable[[], FlatIndex] = FlatIndex


class RetrievalModule(L.LightningModule):
    """Runs the data module's benchmarks through one extractor and measures the rankings.

    Args:
        model: the descriptor network.
        validation, test: how descriptors are made in `trainer.validate` and `trainer.test`.

    After either, `rankings` holds one result a benchmark; the figures are logged as `val/medium` (first benchmark)
    or `val/NAME/medium` (further ones), `test/...` likewise.
    """

    def __init__(
        self,
        model: DescriptorModel,
        validation: ExtractionOptions | None = None,
        test: ExtractionOptions | None = None,
    ) -> None:
        super().__init__()
        # Convolutions on CPUs, dilated ones above all, and on tensor cores are faster with channels last.
        self.model = model.to(memory_format=torch.channels_last)
        self.validation = validation or ExtractionOptions()
        self.test_options = test or ExtractionOptions()
        self.rankings: list[Ranking] = []
        self._runs: list[_Run] = []

    def on_validation_epoch_start(self) -> None:
        """One metric for each validation benchmark."""
        self._begin(self._data.validation, self.validation)

    def on_test_epoch_start(self) -> None:
        """One metric for each test benchmark."""
        self._begin(self._data.test, self.test_options)

    def validation_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Descriptors of one batch of whole images."""
        self._runs[dataloader_idx].take(batch)

    def test_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Descriptors of one batch of whole images."""
        self._runs[dataloader_idx].take(batch)

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

    def _end(self, stage: str) -> None:
        self.rankings = [run.finish() for run in self._runs]
        for place, ranking in enumerate(self.rankings):
            prefix = stage if place == 0 else f"{stage}/{ranking.benchmark.name.replace(' ', '_')}"
            for difficulty in ranking.benchmark.difficulties:
                value = torch.tensor(ranking.evaluation[difficulty]["map"], dtype=torch.float32)
                self.log(f"{prefix}/{difficulty}", value.to(self.device), rank_zero_only=False, sync_dist=False)
        self._runs = []


class _Run:
    """One benchmark while its images come in."""

    def __init__(
        self, benchmark: Benchmark, extractor: Extractor, index: Callable[[], FlatIndex], device: torch.device
    ) -> None:
        self.benchmark = benchmark
        self.extractor = extractor
        dim = extractor.model.dim
        metric = RevisitedMAP(benchmark.ground_truth, benchmark.num_gallery, benchmark.queries, dim, index)
        self.metric = metric.to(device)
        self.bad: list[BadImage] = []
        self.start = time.perf_counter()

    def take(self, batch: ImageBatch) -> None:
        if batch.images:
            self.metric.update(self.extractor(batch.images), batch.positions)
        if batch.bad:
            self.metric.skip(batch.skipped)
            self.bad += batch.bad

    def finish(self) -> Ranking:
        evaluation = self.metric.compute()
        return Ranking(
            benchmark=self.benchmark,
            evaluation=evaluation,
            kappas=self.metric.kappas,
            top=self.metric.ranks[:, :TOP].copy(),
            bad=tuple(self.bad),
            seconds=time.perf_counter() - self.start,
        )
