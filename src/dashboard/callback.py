"""What W&B shows of a run beside its curves: ranked answers, attention, precision and recall."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from PIL import Image

from src.contracts import Ranking
from src.dashboard.histograms import EDGES, cosine_histograms
from src.dashboard.wandb_log import STEP, WandbLog
from src.data.datasets import BenchmarkImages
from src.extraction.attention import attention_scores
from src.models.dolg import DescriptorModel
from src.results.attention import attention_overlay
from src.results.figures import chosen_queries, ranked_grid, shown_difficulty
from src.training.evaluation import RetrievalModule
from src.training.gradients import is_logged
from src.training.module import LandmarkModule

# Queries in a validation's table, from the best AP to the worst, and what stands in a row.
QUERIES = 4
COLUMNS: list[str | int] = ["query", "AP, %", "answers", "attention"]


class Dashboard(Callback):
    """At each logged step, how the cosines of targets and others lie; after each validation, of each benchmark, a table
    of queries, and the mean precision at every recall.

    The first process draws, and the others wait for it at their next step. Where weights are averaged, attention is
    that of the current ones, which Lightning has put back by then.
    """

    def __init__(self, board: WandbLog) -> None:
        self.board = board
        self.step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A run that is resumed has made steps."""
        self.step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the cosines of the first process, which are of its part of the batch or of the classes."""
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        step = self.step - 1
        if not stepped or not trainer.is_global_zero or not is_logged(trainer, step):
            return
        if isinstance(pl_module, LandmarkModule) and pl_module.cosines is not None:
            counts = zip(("target", "nontarget"), cosine_histograms(*pl_module.cosines), strict=True)
            self.board.experiment.log({f"cosines/{name}": _histogram(count) for name, count in counts} | {STEP: step})

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the rankings that the module holds."""
        if not trainer.is_global_zero or not isinstance(pl_module, RetrievalModule):
            return
        # Lightning logs a validation at the step that was made last.
        step = max(trainer.global_step - 1, 0)
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        for ranking in pl_module.rankings:
            name = f"val/{ranking.benchmark.name.replace(' ', '_')}"
            rows = query_rows(pl_module.model, ranking, data.images_of(ranking.benchmark))
            self.board.experiment.log({f"{name}/queries": _table(rows), **_curves(name, ranking), STEP: step})


def query_rows(
    model: DescriptorModel, ranking: Ranking, images: BenchmarkImages, count: int = QUERIES
) -> Iterator[tuple[str, float | None, bytes, bytes | None]]:
    """Name, AP in percent, ranked answers and attention (JPEGs) of queries from the best AP to the worst.

    Attention is None of a query that cannot be read, where such are skipped.
    """
    ap = np.asarray(ranking.evaluation[shown_difficulty(ranking)]["ap"], np.float64)
    for query in chosen_queries(ap, count).tolist():
        position = int(ranking.benchmark.queries[query])
        score = round(100 * float(ap[query]), 2) if np.isfinite(ap[query]) else None
        found = images.__getitems__([position]).images
        pixels = found[0].numpy() if found else None
        attention = None if pixels is None else attention_overlay(pixels, attention_scores(model, pixels))
        yield images.source.name(position), score, ranked_grid(ranking, queries=[query]), attention


def _histogram(counts: NDArray[np.int64]) -> Any:
    import wandb

    return wandb.Histogram(np_histogram=(counts, EDGES))


def _table(rows: Iterator[tuple[str, float | None, bytes, bytes | None]]) -> Any:
    import wandb

    table = wandb.Table(COLUMNS)
    for name, score, *pictures in rows:
        table.add_data(name, score, *(None if p is None else wandb.Image(Image.open(io.BytesIO(p))) for p in pictures))
    return table


def _curves(name: str, ranking: Ranking) -> dict[str, Any]:
    """A chart for each benchmark: mean interpolated precision at recall 0, 0.01, ..., 1, in percent."""
    import wandb

    if not ranking.curves:
        return {}
    recall = list(range(101))
    values = [(100 * curve).round(3).tolist() for curve in ranking.curves.values()]
    chart = wandb.plot.line_series(recall, values, list(ranking.curves), f"{name}: precision and recall", "recall, %")
    return {f"{name}/precision_recall": chart}
