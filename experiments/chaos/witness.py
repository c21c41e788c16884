"""A data module that records the samples of each step."""

from __future__ import annotations

from pathlib import Path

from dolglab.contracts import Batch, ImageBatch
from dolglab.data.module import LandmarkDataModule

FILE = "samples.{rank}.txt"


class WitnessedData(LandmarkDataModule):
    """Adds a line to a file of each process before each training step: epoch, optimizer step, ids of the batch."""

    def __init__(self, *args, witness: str, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.folder = Path(witness)

    def on_after_batch_transfer(self, batch: Batch | ImageBatch, dataloader_idx: int) -> Batch | ImageBatch:
        """Lightning calls this when a step begins, not for batches that are read ahead."""
        trainer = self.trainer
        if trainer is not None and trainer.training and isinstance(batch, Batch):
            self.folder.mkdir(parents=True, exist_ok=True)
            ids = " ".join(f"{int(sample):016x}" for sample in batch.ids)
            with (self.folder / FILE.format(rank=trainer.global_rank)).open("a") as file:
                file.write(f"{trainer.current_epoch} {trainer.global_step} {ids}\n")
        return batch
