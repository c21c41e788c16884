"""Times of checkpoints, and the end of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from dolglab.contracts import Batch
from dolglab.errors import UserError
from dolglab.training.checkpointing import IntraEpochCheckpoint, StopAtStep

BATCHES = 5


class Line(L.LightningModule):
    """One weight and a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return (self.weight * batch.draws).square().mean()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Spy(Callback):
    """Records epoch and number of batches at each checkpoint."""

    def __init__(self) -> None:
        self.saved: list[tuple[int, int]] = []

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.saved.append((trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_progress.current.ready))


def one_image(positions: list[int]) -> Batch:
    images = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    return Batch(images, torch.zeros(1, dtype=torch.int64), np.array(positions, np.uint64), torch.ones(1, 7))


def fit(folder: Path, *callbacks: Callback, resume: Path | None = None, **options: Any) -> tuple[L.Trainer, Spy]:
    spy = Spy()
    trainer = L.Trainer(
        accelerator="cpu",
        callbacks=[*callbacks, spy],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        max_epochs=3,
        **options,
    )
    trainer.fit(Line(), DataLoader(range(BATCHES), collate_fn=one_image), ckpt_path=resume, weights_only=True)
    return trainer, spy


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("accumulate", "steps", "batches"), [(1, 1, [1, 2, 3, 4]), (2, 1, [2, 4]), (1, 2, None)])
def test_checkpoints_are_written_between_steps(
    tmp_path: Path, accumulate: int, steps: int, batches: list[int] | None
) -> None:
    _, spy = fit(tmp_path, IntraEpochCheckpoint(tmp_path, None, steps), accumulate_grad_batches=accumulate)
    if batches is None:
        assert spy.saved == [(0, 2), (0, 4), (1, 1), (1, 3), (2, 2), (2, 4)]
    else:
        assert spy.saved == [(epoch, batch) for epoch in range(3) for batch in batches]
    assert (tmp_path / "last.ckpt").exists()


@pytest.mark.filterwarnings("ignore")
def test_training_ends_after_max_steps_and_does_not_restart(tmp_path: Path) -> None:
    trainer, _ = fit(tmp_path, StopAtStep(7))
    assert trainer.global_step == 7
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    resumed, _ = fit(tmp_path, StopAtStep(7), resume=tmp_path / "end.ckpt")
    assert resumed.global_step == 7


@pytest.mark.parametrize(("minutes", "steps"), [(0, None), (-1.5, None), (None, 0), (None, -3)])
def test_invalid_intervals_are_refused(tmp_path: Path, minutes: Any, steps: Any) -> None:
    with pytest.raises(UserError, match="checkpoint_minutes="):
        IntraEpochCheckpoint(tmp_path, minutes, steps)
