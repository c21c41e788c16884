"""The line of an epoch has the figures of that epoch."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dolglab.training.callbacks import EpochLine


class Module(LightningModule):
    """Gives a higher validation mAP each time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.validations = 0

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.weight * batch).sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validations += 1
        self.log("val/medium", self.validations / 10)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore")
def test_an_epoch_without_validation_prints_no_map(tmp_path, capsys) -> None:
    trainer = Trainer(
        max_epochs=4, check_val_every_n_epoch=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, callbacks=[EpochLine()],
        default_root_dir=tmp_path,
    )  # fmt: skip
    loader = DataLoader(torch.ones(1, 1))  # pyright: ignore[reportArgumentType]
    trainer.fit(Module(), loader, loader)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [("10.00" in line, "20.00" in line) for line in lines] == [
        (False, False), (True, False), (False, False), (False, True),
    ]  # fmt: skip
