"""Averaged weights, also in a resumed run, which averages like an uninterrupted one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dolglab.errors import UserError
from dolglab.training.callbacks import EMA
from dolglab.training.checkpointing import LastCheckpoint

# Lightning's own warnings in each fit.
pytestmark = pytest.mark.filterwarnings("ignore")


class Counter(LightningModule):
    """One weight, which equals the number of steps after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return -self.weight.sum()

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        self.seen.append(self.weight.item())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def fit(module: Counter, folder: Path, decay: float, epochs: int, resume: Path | None = None) -> None:
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[EMA(decay), LastCheckpoint(folder)],
    )
    trainer.fit(module, DataLoader(range(5)), ckpt_path=resume, weights_only=True)


def averaged(decay: float, steps: int) -> float:
    """The rule in a loop: the average starts with the weight after the first step."""
    value = 1.0
    for updates in range(1, steps):
        kept = min(decay, (1 + updates) / (10 + updates))
        value = kept * value + (1 - kept) * (updates + 1)
    return value


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_the_decay_grows_with_the_updates(tmp_path: Path, decay: float) -> None:
    module = Counter()
    fit(module, tmp_path, decay, epochs=4)
    assert module.seen == list(range(20))
    assert module.weight.item() == pytest.approx(averaged(decay, 20), rel=1e-5)


def test_a_short_run_with_a_long_average_forgets_its_initial_weights(tmp_path: Path) -> None:
    module = Counter()
    fit(module, tmp_path, 0.9999, epochs=4)
    assert module.weight.item() > 12


def test_a_resumed_run_continues_the_average(tmp_path: Path) -> None:
    whole, parts = Counter(), Counter()
    fit(whole, tmp_path / "whole", 0.999, epochs=4)
    fit(parts, tmp_path / "parts", 0.999, epochs=2)
    resumed = Counter()
    fit(resumed, tmp_path / "parts", 0.999, epochs=4, resume=tmp_path / "parts" / "last.ckpt")
    assert resumed.weight.item() == pytest.approx(whole.weight.item(), rel=1e-6)


@pytest.mark.parametrize("decay", [0.0, 1.0, 2.0])
def test_an_invalid_decay_is_refused(decay: float) -> None:
    with pytest.raises(UserError):
        EMA(decay)
