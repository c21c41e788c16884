"""The test after a training, by the same code path as `evaluate`."""

from __future__ import annotations

from pathlib import Path

import lightning as L

from dolglab.contracts import Ranking
from dolglab.data.module import LandmarkDataModule
from dolglab.errors import UserError
from dolglab.evaluation.evaluator import Evaluator, FeatureExtractor, Picture, pictures_of
from dolglab.extraction.extract import Images
from dolglab.extraction.extractor import for_inference
from dolglab.models.dolg import DescriptorModel
from dolglab.retrieval.pipeline import RetrievalPipeline
from dolglab.training.retrieval_module import ExtractionOptions, logged_figures


def run_test(
    trainer: L.Trainer,
    data: LandmarkDataModule,
    network: DescriptorModel,
    options: ExtractionOptions,
    store: Path,
    stage: str = "test",
    checkpoint: Path | None = None,
    pictures: int = 0,
) -> tuple[list[Ranking], list[Picture]]:
    """Run the data module's test benchmarks like an evaluation; a later one finds the descriptors in `store`.

    Args:
        trainer: its processes describe the images, and its loggers receive the figures.
        network: the network, in eval mode.
        stage: prefix of the logged names.
        checkpoint: the checkpoint that is kept even if the test fails.
        pictures: number of queries of each benchmark for which a picture shows where the network looks.

    Returns one ranking per benchmark and the pictures in the main process, and none in the others.
    Raises UserError if an image stops the test; the message says that the checkpoint is kept.
    """
    images = Images(data.max_side, data.on_error == "skip", data.reading, data.workers, data.eval_batch)
    inference = for_inference(network, str(trainer.precision))
    extractor = FeatureExtractor(trainer, images, store, options.extractor(inference))
    evaluator = Evaluator(extractor, RetrievalPipeline(options.index))
    try:
        found = [evaluator.run(benchmark) for benchmark in data.test]
    except UserError as error:
        context = f"training is done and {checkpoint} is kept, but the test stopped: " if checkpoint else ""
        raise UserError(f"{context}{error}") from None
    rankings = [ranking for ranking in found if ranking is not None]
    for number, ranking in enumerate(rankings):
        for logger in trainer.loggers:
            figures = {**logged_figures(stage, number, ranking), "epoch": trainer.current_epoch}
            logger.log_metrics(figures, trainer.global_step)
            logger.save()
    return rankings, [picture for ranking in rankings for picture in pictures_of(evaluator, ranking, pictures)]
