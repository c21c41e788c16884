"""The W&B log of a run: one id for its whole life, whatever becomes of the server."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import WandbLogger

from src.contracts import InputError
from src.files import write_text

# The axis of everything that is logged: optimizer steps, which go on where a resumed run does.
STEP = "trainer/global_step"
# What the page of a run, and a table of runs, show of a metric: its best value instead of its last.
SUMMARIES = {"val/easy": "max", "val/medium": "max", "val/hard": "max", "train/loss": "min"}
ID_FILE = "wandb_id"
# Seconds in which the server has to answer before the run is kept on this machine instead.
PATIENCE = 30
# Seconds in which it has to take, at the end, what is left to send; `wandb sync` sends the rest.
END_PATIENCE = 600


class WandbLog(WandbLogger):
    """Lightning's log, for runs that are resumed and servers that are not there.

    The id stands in the run's folder, so that a resumed run is the same one. A server that cannot be reached makes
    the run an offline one, to be sent by `wandb sync`; training goes on.

    Args:
        folder: the run's.
        offline: keep everything on this machine.
        checkpoints: keep the best and the last one as versions of an artifact.
        settings: of `wandb.init`: project, name, group, entity, tags and so on.

    Raises InputError, with the first metric, for a key that is missing or refused.
    """

    def __init__(self, folder: str | Path, offline: bool = False, checkpoints: bool = True, **settings: Any) -> None:
        import wandb

        self.folder = Path(folder)
        self.checkpoints = checkpoints
        # Pictures in tables wait here for `wandb sync`, and not in the home folder.
        os.environ.setdefault("WANDB_DATA_DIR", str((self.folder / "wandb").resolve()))
        own = wandb.Settings(init_timeout=PATIENCE, finish_timeout=END_PATIENCE, silent=True, console="off")
        super().__init__(save_dir=self.folder, offline=offline, id=None, settings=own, **settings)
        # W&B took it away, and says so of each run.
        self._wandb_init.pop("anonymous")
        self._defined = False

    @property
    def experiment(self) -> Any:
        """The run on W&B, begun at the first call."""
        if getattr(rank_zero_only, "rank", 0) == 0 and not self._defined:
            self._begin()
        return super().experiment

    def log_hyperparams(self, params: Any = None) -> None:
        """The configuration, which `log_config` keeps whole."""

    @rank_zero_only
    def log_config(self, config: dict[str, Any]) -> None:
        """Keep the resolved configuration of the run."""
        self.experiment.config.update(config, allow_val_change=True)

    @rank_zero_only
    def log_results(self, card: Path, checkpoints: Mapping[str, Path]) -> None:
        """Keep the result card, its figures among the run's, and checkpoints by alias, such as "best" and "last"."""
        import wandb

        for part in json.loads(card.read_text(encoding="utf-8"))["benchmarks"]:
            for difficulty, value in part["map"].items():
                self.experiment.summary[f"result/{part['name']}/{difficulty}"] = value
        kept = wandb.Artifact(f"card-{self.experiment.id}", "result")
        kept.add_file(str(card))
        self.experiment.log_artifact(kept)
        for alias, path in checkpoints.items() if self.checkpoints else ():
            model = wandb.Artifact(f"model-{self.experiment.id}", "model")
            # Not copied: nothing changes a run that has ended.
            model.add_file(str(path), "model.ckpt", policy="immutable")
            self.experiment.log_artifact(model, aliases=[alias])

    def _begin(self) -> None:
        self._defined = True
        self._wandb_init["id"] = run_id(self.folder)
        run = self._start()
        for metric, summary in SUMMARIES.items():
            run.define_metric(metric, step_metric=STEP, summary=summary)

    def _start(self) -> Any:
        import wandb
        from wandb.errors import AuthenticationError, CommError, UsageError

        try:
            return super().experiment
        except (AuthenticationError, UsageError) as error:
            raise InputError(
                f"W&B refuses the key ({_one_line(error)}): `wandb login`, or logger.wandb.offline=true"
            ) from error
        except CommError as error:
            print(
                f"W&B cannot be reached ({_one_line(error)}): the run is kept in {self.folder / 'wandb'}, "
                "`wandb sync` sends it later",
                file=sys.stderr,
            )
            # The service behind wandb still holds the run that could not begin.
            wandb.teardown()
            self._wandb_init["mode"] = "offline"
            return super().experiment


def run_id(folder: Path) -> str:
    """The W&B id that a run's folder holds; where it holds none, one that an agent of W&B gives, or a new one."""
    path = folder / ID_FILE
    if not path.exists():
        write_text(path, os.environ.get("WANDB_RUN_ID", secrets.token_hex(8)) + "\n")
    return path.read_text().strip()


def _one_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
