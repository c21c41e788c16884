"""Training images that could not be read: counted, and named in a file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from src.contracts import BadImage, Batch


class BadImageFile(Callback):
    """Counts training images that could not be read, and names each once in `bad_images.csv`."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.path = run / "bad_images.csv"
        self.seen: set[str] = set()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Each process has a file of its own; what a resumed run named before is not named again."""
        if trainer.global_rank:
            self.path = self.run / f"bad_images.rank{trainer.global_rank}.csv"
        self.seen = bad_image_names(self.path)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Append what this batch met for the first time."""
        fresh = [image for image in dict.fromkeys(batch.bad) if image.name not in self.seen]
        if fresh:
            self.seen.update(image.name for image in fresh)
            append_bad_images(self.path, fresh)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say how many there were."""
        if self.seen:
            print(f"{len(self.seen)} unreadable training images were replaced: {self.path}")


def append_bad_images(path: Path, images: list[BadImage]) -> None:
    """Add rows name,reason to a csv, with its header when it is new."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerows([("name", "reason")] if new else [])
        writer.writerows(images)


def bad_image_names(path: Path) -> set[str]:
    """The names in such a csv; none where there is no file."""
    if not path.exists():
        return set()
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {row["name"] for row in csv.DictReader(file)}
