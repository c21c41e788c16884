"""Weights & Biases: a log that copes with resumed runs and unreachable servers, and a dashboard."""

from __future__ import annotations

import io
import json
import os
import secrets
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dolglab.contracts import Ranking
from dolglab.data.datasets import BenchmarkImages
from dolglab.errors import UserError
from dolglab.extraction.extractor import attention_scores
from dolglab.io import write_text
from dolglab.models.dolg import DescriptorModel
from dolglab.results.pictures import attention_overlay, chosen_queries, ranked_grid, shown_ap
from dolglab.results.report import STEP
from dolglab.training.callbacks import is_logged
from dolglab.training.module import LandmarkModule
from dolglab.training.retrieval_module import RetrievalModule

# Metrics for which W&B shows the best value instead of the last.
SUMMARIES = {"val/easy": "max", "val/medium": "max", "val/hard": "max", "train/loss": "min"}
ID_FILE = "wandb_id"
# Number of equal bins from -1 to 1 in a histogram of cosines.
BINS = 64
EDGES = np.linspace(-1, 1, BINS + 1)
# The number of rows in the table of queries, and its columns.
QUERIES = 4
COLUMNS: list[str | int] = ["query", "AP, %", "answers", "attention"]


class WandbLog(WandbLogger):
    """Lightning's W&B logger, extended for resumed runs and unreachable servers.

    The W&B id is stored in the run's folder, so that a resumed run keeps it. If the server cannot be reached, the run
    becomes an offline run, which `wandb sync` uploads later; training continues.

    Args:
        folder: the run's folder.
        offline: keep everything on this machine.
        checkpoints: upload the best and the last checkpoint as versions of an artifact.
        connect_seconds: how long to wait for the server before the run is kept on this machine instead.
        finish_seconds: how long to upload the remaining data at the end; `wandb sync` uploads the rest.
        settings: arguments of `wandb.init`: project, name, group, entity, tags and so on.

    Raises UserError at the first metric if the API key is missing or refused.
    """

    def __init__(
        self,
        folder: str | Path,
        offline: bool = False,
        checkpoints: bool = True,
        connect_seconds: int = 30,
        finish_seconds: int = 600,
        **settings: Any,
    ) -> None:
        import wandb

        self.folder = Path(folder)
        self.checkpoints = checkpoints
        # Keep pictures of tables here for `wandb sync` instead of in the home folder.
        os.environ.setdefault("WANDB_DATA_DIR", str((self.folder / "wandb").resolve()))
        defaults = wandb.Settings(
            init_timeout=connect_seconds, finish_timeout=finish_seconds, silent=True, console="off"
        )
        super().__init__(save_dir=self.folder, offline=offline, id=None, settings=defaults, **settings)
        # W&B removed this feature, and prints so for each run.
        self._wandb_init.pop("anonymous")
        self._begun = False

    @property
    def experiment(self) -> Any:
        """The run on W&B, started at the first call."""
        if getattr(rank_zero_only, "rank", 0) == 0 and not self._begun:
            self._begin()
        return super().experiment

    def log_hyperparams(self, params: Any = None) -> None:
        """Do nothing: the command already logs the resolved configuration."""

    @rank_zero_only
    def log_results(self, card: Path, checkpoints: Mapping[str, Path]) -> None:
        """Log the result card, its figures in the summary, and checkpoints by alias, such as "best" and "last"."""
        import wandb

        for part in json.loads(card.read_text(encoding="utf-8"))["benchmarks"]:
            for difficulty, value in part["map"].items():
                self.experiment.summary[f"result/{part['name']}/{difficulty}"] = value
        result = wandb.Artifact(f"card-{self.experiment.id}", "result")
        result.add_file(str(card))
        self.experiment.log_artifact(result)
        for alias, path in checkpoints.items() if self.checkpoints else ():
            model = wandb.Artifact(f"model-{self.experiment.id}", "model")
            # Not copied: the files of a finished run do not change.
            model.add_file(str(path), "model.ckpt", policy="immutable")
            self.experiment.log_artifact(model, aliases=[alias])

    def say_where(self) -> None:
        """Print the folder of an offline run, and the command that uploads it; nothing for a run that W&B has."""
        run = self.experiment
        if run.offline:
            folder = Path(run.dir).parent
            shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
            print(f"the W&B run is offline: `wandb sync {shlex.quote(str(shown))}` uploads it")

    def _begin(self) -> None:
        import wandb
        from wandb.errors import AuthenticationError, CommError, UsageError

        self._begun = True
        self._wandb_init["id"] = run_id(self.folder)
        try:
            run = super().experiment
        except (AuthenticationError, UsageError, CommError) as error:
            reason = str(error).strip().splitlines()[0]
            if isinstance(error, AuthenticationError | UsageError):
                raise UserError(
                    f"W&B refuses the API key ({reason}): run `wandb login`, or set logger.wandb.offline=true"
                ) from error
            print(
                f"W&B cannot be reached ({reason}): the run is offline, `wandb sync` uploads it later", file=sys.stderr
            )
            # wandb's background service still holds the run that could not start.
            wandb.teardown()
            self._wandb_init["mode"] = "offline"
            run = super().experiment
        for metric, summary in SUMMARIES.items():
            run.define_metric(metric, step_metric=STEP, summary=summary)


def run_id(folder: Path) -> str:
    """The W&B id stored in a run's folder; if there is none, the id given by a W&B agent, or a new one."""
    path = folder / ID_FILE
    if not path.exists():
        write_text(path, os.environ.get("WANDB_RUN_ID", secrets.token_hex(8)) + "\n")
    return path.read_text().strip()


class Dashboard(Callback):
    """Sends distributions, pictures and curves to W&B.

    At each logged step: histograms of the cosines of targets and of other classes. After each validation, for each
    benchmark: a table of `QUERIES`, from the best AP to the worst, and the mean precision at every recall.

    The first process draws, and the others wait for it at their next step. If weights are averaged, attention is that
    of the current weights, which Lightning has restored by then.
    """

    def __init__(self, log: WandbLog) -> None:
        self.wandb_log = log
        self.step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the cosines of the first process, which has a part of the batch or of the classes."""
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        step = self.step - 1
        if not stepped or not trainer.is_global_zero or not is_logged(trainer, step):
            return
        if isinstance(pl_module, LandmarkModule) and pl_module.cosines is not None:
            import wandb

            target, nontarget = (
                wandb.Histogram(np_histogram=(counts, EDGES)) for counts in cosine_histograms(*pl_module.cosines)
            )
            self.wandb_log.experiment.log({"cosines/target": target, "cosines/nontarget": nontarget, STEP: step})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or not isinstance(pl_module, RetrievalModule):
            return
        # Lightning logs a validation at the last step.
        step = max(trainer.global_step - 1, 0)
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        for ranking in pl_module.rankings:
            name = f"val/{ranking.benchmark.name.replace(' ', '_')}"
            rows = query_rows(pl_module.model, ranking, data.images_of(ranking.benchmark), QUERIES)
            self.wandb_log.experiment.log({f"{name}/queries": _table(rows), **_curves(name, ranking), STEP: step})


def cosine_histograms(cosine: Tensor, at: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Histograms of the cosines of targets, and of all others, with `BINS` equal bins from -1 to 1.

    Args:
        cosine: (b, c) cosines of descriptors and class centres.
        at: (b,) the column of each target, or -1 for none.
    """

    def counts(values: Tensor) -> NDArray[np.int64]:
        # On GPUs torch.histc is refused if only deterministic operations are allowed.
        bins = ((values.float() + 1) * (BINS / 2)).long().clamp(0, BINS - 1)
        return torch.bincount(bins.flatten(), minlength=BINS).cpu().numpy()

    here = at >= 0
    target = counts(cosine[here].gather(1, at[here].view(-1, 1)))
    return target, counts(cosine) - target


def query_rows(
    model: DescriptorModel, ranking: Ranking, images: BenchmarkImages, count: int
) -> Iterator[tuple[str, float | None, bytes, bytes | None]]:
    """Name, AP in percent, ranked answers and attention (JPEGs) of queries from the best AP to the worst.

    Attention is None for a query that cannot be read, if such images are skipped.
    """
    ap = shown_ap(ranking)
    for query in chosen_queries(ap, count):
        position = int(ranking.benchmark.queries[query])
        score = round(100 * float(ap[query]), 2) if np.isfinite(ap[query]) else None
        readable = images.__getitems__([position]).images
        pixels = readable[0].numpy() if readable else None
        attention = None if pixels is None else attention_overlay(pixels, attention_scores(model, pixels))
        yield images.source.name(position), score, ranked_grid(ranking, queries=[query]), attention


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
