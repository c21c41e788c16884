"""A run that gets a signal to stop."""

from __future__ import annotations

import os
import signal

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from dolglab.training.callbacks import StopOnSignal


class Told(L.LightningModule):
    """Gets a signal while it validates after the last epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.layer(batch).mean()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec")
def test_a_signal_during_the_last_validation_ends_before_the_test(tmp_path):
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        callbacks=[StopOnSignal(tmp_path / "last.ckpt")],
    )
    data = DataLoader(torch.zeros(2, 1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(SystemExit):
        trainer.fit(Told(), data, data)
    assert trainer.global_step == 2
