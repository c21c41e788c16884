"""How a training measures: the Lightning module that validates, and the test after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
import torch.distributed as dist
from torch import nn

from dolglab.contracts import BadImage, Benchmark, ImageBatch, Ranking, Resize
from dolglab.data.module import LandmarkDataModule
from dolglab.errors import UserError
from dolglab.evaluation.evaluator import Evaluator
from dolglab.evaluation.feature_extractor import FeatureExtractor
from dolglab.extraction.extract import Images
from dolglab.extraction.extractor import Extractor, check_protocol
from dolglab.extraction.fuse_batch_norm import for_inference
from dolglab.models.dolg import DescriptorModel
from dolglab.retrieval.index import FlatIndex, Index
from dolglab.retrieval.map_metric import RetrievalMetric, distributed
from dolglab.retrieval.pipeline import RetrievalPipeline


@dataclass(frozen=True)
class ExtractionOptions:
    """How descriptors are made and ranked: scales, resize rule, and what builds the gallery's index."""

    scales: Sequence[float] = (1.0,)
    resize: Resize = "released"
    index: Callable[[], Index] = FlatIndex

    def __post_init__(self) -> None:
        check_protocol(self.scales, self.resize)


class RetrievalModule(L.LightningModule):
    """Validates: runs the data module's validation benchmarks through one extractor and measures the rankings.

    Args:
        model: the descriptor network.
        validation: how descriptors are made.

    Afterwards `rankings` holds one result a benchmark; the figures are logged as `val/medium` (first benchmark) or
    `val/NAME/medium` (further ones).
    """

    def __init__(self, model: DescriptorModel, validation: ExtractionOptions | None = None) -> None:
        super().__init__()
        # Convolutions on CPUs, dilated ones above all, and on tensor cores are faster with channels last.
        self.model = model.to(memory_format=torch.channels_last)
        self.validation = validation or ExtractionOptions()
        self.rankings: list[Ranking] = []
        self._runs: list[_Run] = []

    def on_validation_epoch_start(self) -> None:
        """One metric for each benchmark, and one network in all processes."""
        share_buffers(self.model)
        extractor = Extractor(self.model, self.validation.scales, self.validation.resize)
        self._runs = [
            _Run(benchmark, extractor, self.validation.index, self.device) for benchmark in self._data.validation
        ]
        self._clock = time.perf_counter()

    def validation_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Descriptors of one batch of whole images; the time since the last one is this benchmark's."""
        run = self._runs[dataloader_idx]
        run.process(batch)
        now = time.perf_counter()
        run.seconds += now - self._clock
        self._clock = now

    def on_validation_epoch_end(self) -> None:
        """Rank, measure and log."""
        self.rankings = [run.finish() for run in self._runs]
        for place, ranking in enumerate(self.rankings):
            for name, value in logged_figures("val", place, ranking).items():
                figure = torch.tensor(value, dtype=torch.float32, device=self.device)
                self.log(name, figure, rank_zero_only=False, sync_dist=False)
        self._runs = []

    @property
    def _data(self) -> LandmarkDataModule:
        """The trainer's data module, which Lightning attaches without declaring it."""
        return self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]


def run_test(
    trainer: L.Trainer,
    data: LandmarkDataModule,
    network: DescriptorModel,
    options: ExtractionOptions,
    store: Path,
    stage: str = "test",
    kept: Path | None = None,
) -> list[Ranking]:
    """Run the data module's test benchmarks as an evaluation does, which finds the descriptors in `store` afterwards.

    Args:
        trainer: whose processes describe the images, and whose loggers take the figures.
        network: in eval mode.
        stage: before the names of what is logged.
        kept: the checkpoint that is kept whatever happens here.

    Returns one ranking a benchmark, in the main process; none in the others.
    Raises UserError, which says that a given checkpoint is kept, where an image stops the test.
    """
    images = Images(data.max_side, data.on_error == "skip", data.reading.orientation, data.workers, data.eval_batch)
    lean = for_inference(network, str(trainer.precision))
    extractor = FeatureExtractor(trainer, images, store, Extractor(lean, options.scales, options.resize))
    evaluator = Evaluator(extractor, RetrievalPipeline(options.index))
    try:
        found = [evaluator.run(benchmark) for benchmark in data.test]
    except UserError as error:
        said = f"training is done and {kept} is kept, but the test stopped: " if kept else ""
        raise UserError(f"{said}{error}") from None
    rankings = [ranking for ranking in found if ranking is not None]
    for place, ranking in enumerate(rankings):
        for logger in trainer.loggers:
            figures = {**logged_figures(stage, place, ranking), "epoch": trainer.current_epoch}
            logger.log_metrics(figures, trainer.global_step)
            logger.save()
    return rankings


def logged_figures(stage: str, place: int, ranking: Ranking) -> dict[str, float]:
    """A benchmark's figures by the names they are logged under; the first benchmark's have the stage's name alone."""
    prefix = stage if place == 0 else f"{stage}/{ranking.benchmark.name.replace(' ', '_')}"
    return {f"{prefix}/{d}": float(ranking.evaluation[d]["map"]) for d in ranking.benchmark.difficulties}


def share_buffers(model: nn.Module) -> None:
    """Give every process the buffers of the first: batch norm's statistics differ until DDP's next forward pass."""
    if distributed():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


class _Run:
    """One benchmark while its images come in."""

    def __init__(
        self, benchmark: Benchmark, extractor: Extractor, index: Callable[[], Index], device: torch.device
    ) -> None:
        self.benchmark = benchmark
        self.extractor = extractor
        self.metric = RetrievalMetric.of(benchmark, extractor.model.dim, index).to(device)
        self.bad: list[BadImage] = []
        self.seconds = 0.0

    def process(self, batch: ImageBatch) -> None:
        if batch.images:
            self.metric.update(self.extractor(batch.images), batch.positions)
        if batch.bad:
            self.metric.skip(batch.skipped)
            self.bad += batch.bad

    def finish(self) -> Ranking:
        start = time.perf_counter()
        evaluation = self.metric.compute()
        figures, seconds = self.metric.figures, self.seconds + time.perf_counter() - start
        assert figures is not None
        return Ranking(
            benchmark=self.benchmark,
            evaluation=evaluation,
            kappas=figures.kappas,
            top=self.metric.ranks,
            bad=tuple(_of_all_processes(self.bad)),
            seconds=seconds,
            answers=figures.answers,
            curves=figures.curves,
        )


def _of_all_processes(bad: list[BadImage]) -> list[BadImage]:
    if not distributed():
        return bad
    parts: list[list[BadImage]] = [[]] * dist.get_world_size()
    dist.all_gather_object(parts, bad)
    return [image for part in parts for image in part]
