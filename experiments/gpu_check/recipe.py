"""The paper's recipe on synthetic images: networks with random weights, batches, trainers, and records of steps."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from dolglab.contracts import Batch, Benchmark, TrainingSet
from dolglab.data.augment import NUM_DRAWS, Augmentation
from dolglab.losses.margin import ArcFace
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import DOLG
from dolglab.models.pooling import GeM
from dolglab.training.module import LandmarkModule
from dolglab.training.optim import warmup_cosine


@dataclass(frozen=True)
class Sizes:
    """The sizes of networks, images and batches.

    Attributes:
        networks: timm's architectures by their names in the tables.
        hidden: channels of f_l and f_g.
        landmarks: classes of the head.
        side, batch: of the crops in compared steps; the recipe's dilations need sides above 288.
        sides, batches: for the table of speeds.
        photo, photos, photos_on_cpu: (height, width) and number of the images to extract from.
        gallery, queries, top: of the ranking.
    """

    networks: dict[str, str] = field(default_factory=lambda: {"R50": "resnet50.tv_in1k", "R101": "resnet101.tv_in1k"})
    hidden: int = 1024
    landmarks: int = 81_313
    side: int = 320
    batch: int = 4
    sides: tuple[int, ...] = (512, 224)
    batches: tuple[int, ...] = (16, 32, 64, 128, 256)
    photo: tuple[int, int] = (768, 1024)
    photos: int = 32
    photos_on_cpu: int = 4
    gallery: int = 100_000
    queries: int = 1000
    top: int = 1000


QUICK = Sizes(
    networks={"tiny": "test_resnet.r160_in1k"},
    hidden=16,
    landmarks=50,
    side=64,
    batch=4,
    sides=(64, 32),
    batches=(2, 4),
    photo=(96, 128),
    photos=4,
    photos_on_cpu=2,
    gallery=2000,
    queries=20,
    top=50,
)
DIM, STEPS = 512, 20
# The initial scale of fp16's scaler.
SCALE = 2.0**16


def landmark_module(name: str, sizes: Sizes, compiler: str | None = None) -> LandmarkModule:
    """DOLG as in conf/train.yaml, with the same random weights every time."""
    torch.manual_seed(0)
    pooling = partial(GeM, p=3.0, learnable=False)
    return LandmarkModule(
        DOLG(Backbone(name, pretrained=False), pooling, hidden=sizes.hidden, dim=DIM),
        ArcFace(DIM, sizes.landmarks, margin=0.15, scale=30.0),
        Augmentation(),
        partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-4),
        warmup_cosine,
        compiler=compiler,
    )


def blocks(count: int, height: int, width: int, seed: int) -> Tensor:
    """Images of 8 x 8 random colours each, with noise, (count, height, width, 3) uint8: unlike one another."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 224, (count, 8, 8, 3), np.uint8)
    whole = coarse.repeat(math.ceil(height / 8), 1).repeat(math.ceil(width / 8), 2)[:, :height, :width]
    return torch.from_numpy(whole + rng.integers(0, 32, whole.shape, np.uint8))


def random_batch(size: int, side: int, landmarks: int, seed: int) -> Batch:
    """A batch of such images, with random labels."""
    rng = np.random.default_rng([seed, 1])
    return Batch(
        images=blocks(size, side, side, seed),
        labels=torch.from_numpy(rng.integers(0, landmarks, size)),
        ids=np.arange(size, dtype=np.uint64),
        draws=torch.zeros(size, NUM_DRAWS),
    )


def noise_batch(size: int, side: int, landmarks: int, device: str) -> Batch:
    """A batch of noise, created on the device, for measuring speed."""
    torch.manual_seed(0)
    return Batch(
        images=torch.randint(256, (size, side, side, 3), dtype=torch.uint8, device=device),
        labels=torch.randint(landmarks, (size,), device=device),
        ids=np.arange(size, dtype=np.uint64),
        draws=torch.zeros(size, NUM_DRAWS, device=device),
    )


class MadeUpData(L.LightningDataModule):
    """The same batches every epoch."""

    training: TrainingSet | None = None

    def __init__(self, batches: Sequence[Batch]) -> None:
        super().__init__()
        self.batches = list(batches)
        self.validation: list[Benchmark] = []

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches."""
        return len(self.batches)

    def train_dataloader(self) -> DataLoader[Batch]:
        """The batches, in their order."""
        return DataLoader(self.batches, batch_size=None)  # pyright: ignore[reportArgumentType]

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """A batch on its device."""
        return batch.to(device)


class StepLog(Callback):
    """Records each step's loss and end, and ends a training at `deadline` (by time.monotonic).

    Attributes:
        start, ends: of the training and of each step, by time.monotonic.
        skipped: steps that fp16's scaler skipped, because a gradient was not finite.
    """

    def __init__(self, deadline: float = math.inf) -> None:
        self.deadline = deadline
        self.start = 0.0
        self.ends: list[float] = []
        self.skipped = 0
        self._losses: list[Tensor] = []

    @property
    def losses(self) -> list[float]:
        """The losses of all steps."""
        return [float(loss) for loss in self._losses]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the start of the first step."""
        self.start = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Record the end of a step."""
        self._losses.append(outputs["loss"].detach().clone())
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.monotonic())
        trainer.should_stop = trainer.should_stop or self.ends[-1] > self.deadline

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count skipped steps by the scale, which halves at each of them."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            self.skipped = round(math.log2(SCALE / scaler.get_scale()))


def fit(
    module: LandmarkModule,
    batches: Sequence[Batch],
    device: str,
    precision: str = "32-true",
    deadline: float = math.inf,
    callbacks: Sequence[Callback] = (),
    epochs: int = 1,
    **options: Any,
) -> StepLog:
    """Train with Lightning's Trainer as in conf/trainer; `checkpoint` is resumed from."""
    log = StepLog(deadline)
    checkpoint = options.pop("checkpoint", None)
    trainer = L.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        precision=precision,  # pyright: ignore[reportArgumentType]
        max_epochs=epochs,
        callbacks=[log, *callbacks],
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **options,
    )
    trainer.fit(module, datamodule=MadeUpData(batches), ckpt_path=checkpoint, weights_only=True)
    return log


def precisions(device: str) -> tuple[str, ...]:
    """Lightning's names of the precisions that a device trains in."""
    return ("32-true", "bf16-mixed", "16-mixed") if device == "cuda" else ("32-true", "bf16-mixed")
