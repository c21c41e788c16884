"""The Lightning module that validates during training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import lightning as L
import torch
import torch.distributed as dist
from torch import nn

from dolglab.contracts import BadImage, Benchmark, ImageBatch, Ranking, Resize, ScalePooling, TrainingSet
from dolglab.extraction.extractor import Extractor, check_protocol
from dolglab.models.dolg import DescriptorModel
from dolglab.processes import distributed, gather_all
from dolglab.retrieval.index import FlatIndex, Index
from dolglab.retrieval.map_metric import RetrievalMetric


@runtime_checkable
class LandmarkData(Protocol):
    """The interface of a data module for training, in addition to its loaders; `LandmarkDataModule` implements it.

    Attributes:
        training: names the images of a batch whose loss is not finite; None if they have no names.
        validation: a benchmark for each validation loader.
    """

    training: TrainingSet | None
    validation: list[Benchmark]

    @property
    def batches_per_epoch(self) -> int:
        """The number of complete global batches per epoch."""
        ...


@dataclass(frozen=True)
class ExtractionOptions:
    """How descriptors are computed and ranked: scales, resizing, pooling of scales, the gallery's index."""

    scales: Sequence[float] = (1.0,)
    resize: Resize = "released"
    index: Callable[[], Index] = FlatIndex
    scale_pooling: ScalePooling = "mean"

    def __post_init__(self) -> None:
        check_protocol(self.scales, self.resize, self.scale_pooling)

    def extractor(self, network: DescriptorModel) -> Extractor:
        """The extractor with these options, for a network in eval mode."""
        return Extractor(network, self.scales, self.resize, scale_pooling=self.scale_pooling)


class RetrievalModule(L.LightningModule):
    """Validates: runs the data module's validation benchmarks through one extractor and measures the rankings.

    Afterwards `rankings` holds one result per benchmark. The figures are logged as `val/medium` for the first benchmark
    and `val/NAME/medium` for others.
    """

    def __init__(self, model: DescriptorModel, validation: ExtractionOptions | None = None) -> None:
        super().__init__()
        # Convolutions are faster with channels last, on CPUs (above all dilated ones) and on tensor cores.
        self.model = model.to(memory_format=torch.channels_last)
        self.validation = validation or ExtractionOptions()
        self.rankings: list[Ranking] = []
        self._runs: list[_ValidationRun] = []

    def on_validation_epoch_start(self) -> None:
        """Start a metric for each benchmark; the network is made equal in all processes."""
        share_buffers(self.model)
        self._extractor = self.validation.extractor(self.model)
        metrics = [RetrievalMetric.of(b, self.model.dim, self.validation.index) for b in self._data.validation]
        runs = zip(self._data.validation, metrics, strict=True)
        self._runs = [_ValidationRun(benchmark, metric.to(self.device)) for benchmark, metric in runs]
        self._clock = time.perf_counter()

    def validation_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Describe one batch of whole images, and add the time since the last batch to the benchmark's."""
        run = self._runs[dataloader_idx]
        if batch.images:
            run.metric.update(self._extractor(batch.images), batch.positions)
        if batch.bad:
            run.metric.skip(batch.skipped)
            run.bad += batch.bad
        now = time.perf_counter()
        run.seconds += now - self._clock
        self._clock = now

    def on_validation_epoch_end(self) -> None:
        self.rankings = [run.finish() for run in self._runs]
        for number, ranking in enumerate(self.rankings):
            for name, value in logged_figures("val", number, ranking).items():
                figure = torch.tensor(value, dtype=torch.float32, device=self.device)
                self.log(name, figure, rank_zero_only=False, sync_dist=False)
        self._runs = []

    @property
    def _data(self) -> LandmarkData:
        """The trainer's data module; Lightning sets the attribute without declaring it."""
        return self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]


@dataclass
class _ValidationRun:
    """The state of one benchmark during validation."""

    benchmark: Benchmark
    metric: RetrievalMetric
    bad: list[BadImage] = field(default_factory=list)
    seconds: float = 0.0

    def finish(self) -> Ranking:
        start = time.perf_counter()
        evaluation = self.metric.compute()
        figures, seconds = self.metric.figures, self.seconds + time.perf_counter() - start
        assert figures is not None
        assert self.metric.ranked is not None
        return Ranking(
            benchmark=self.benchmark,
            evaluation=evaluation,
            kappas=figures.kappas,
            top=self.metric.ranks,
            bad=tuple(image for bad in gather_all(self.bad) for image in bad),
            seconds=seconds,
            answers=figures.answers,
            curves=figures.curves,
            rankings=dict.fromkeys(self.benchmark.difficulties, self.metric.ranked),
        )


def share_buffers(model: nn.Module) -> None:
    """Copy the first process's buffers to all: batch-norm statistics differ until DDP's next forward pass."""
    if distributed():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def logged_figures(stage: str, number: int, ranking: Ranking) -> dict[str, float]:
    """A benchmark's figures by their logged names; those of the first benchmark have only the stage as prefix."""
    prefix = stage if number == 0 else f"{stage}/{ranking.benchmark.name.replace(' ', '_')}"
    return {f"{prefix}/{d}": float(ranking.evaluation[d]["map"]) for d in ranking.benchmark.difficulties}
