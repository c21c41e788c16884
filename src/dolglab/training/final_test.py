"""The test after a training, by the one path that `evaluate` takes too."""

from __future__ import annotations

from pathlib import Path

import lightning as L

from dolglab.contracts import Ranking
from dolglab.data.module import LandmarkDataModule
from dolglab.errors import UserError
from dolglab.evaluation.evaluator import Evaluator, FeatureExtractor
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
) -> list[Ranking]:
    """Run the data module's test benchmarks as an evaluation does, which finds the descriptors in `store` afterwards.

    Args:
        trainer: whose processes describe the images, and whose loggers take the figures.
        network: in eval mode.
        stage: before the names of what is logged.
        checkpoint: the checkpoint that is kept whatever happens here.

    Returns one ranking a benchmark, in the main process; none in the others.
    Raises UserError, which says that a given checkpoint is kept, where an image stops the test.
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
    return rankings
