"""The LightningModule that trains a descriptor model with a margin loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.contracts import Batch, InputError
from src.data.augment import Augmentation
from src.losses.margin import MarginHead
from src.models.dolg import DescriptorModel
from src.training.checkpoints import RUN_KEY
from src.training.csv_log import CSVLog
from src.training.evaluation import ExtractionOptions, RetrievalModule
from src.training.optim import optimizer_steps

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")

BuildOptimizer = Callable[[Iterable[Any]], Optimizer]
BuildSchedule = Callable[[Optimizer, int], LRScheduler]


class LandmarkModule(RetrievalModule):
    """Model, margin head and optimizer; batches come as uint8 crops and are augmented and normalised here.

    Args:
        model: the descriptor network.
        head: margin head over the training classes.
        augmentation: what happens to a batch on its device.
        optimizer: builds the optimizer from parameter groups.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        head_lr_scale: learning rate of everything but the pretrained backbone, as a factor.
        run: what a checkpoint says of its run (plain values and tensors only).
        validation, test: how descriptors are made (see RetrievalModule).
    """

    def __init__(
        self,
        model: DescriptorModel,
        head: MarginHead,
        augmentation: Augmentation,
        optimizer: BuildOptimizer,
        schedule: BuildSchedule,
        head_lr_scale: float = 1.0,
        run: Mapping[str, Any] | None = None,
        validation: ExtractionOptions | None = None,
        test: ExtractionOptions | None = None,
    ) -> None:
        super().__init__(model, validation, test)
        self.head = head
        self.augmentation = augmentation
        self.build_optimizer = optimizer
        self.build_schedule = schedule
        self.head_lr_scale = head_lr_scale
        self.run = dict(run or {})

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        """Margin loss of one batch. Raises InputError naming the batch's ids when it is not finite."""
        images = self.model.backbone.normalise(self.augmentation(batch.images, batch.draws))
        cosine = self.head.cosine(self._descriptors(images))
        loss = F.cross_entropy(self.head.logits(cosine, batch.labels), batch.labels)
        if not torch.isfinite(loss):
            raise InputError(self._not_finite(loss, batch))
        self._log_step(loss.detach(), cosine.detach(), batch.labels)
        return loss

    def _descriptors(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        try:
            return self.model(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                "batch normalisation needs more than one value a channel: raise data.batch_size or data.image_size"
            ) from error

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Two parameter groups (pretrained backbone, everything new) and a schedule by steps."""
        backbone = set(self.model.backbone.parameters())
        new = [p for p in self.parameters() if p not in backbone and p.requires_grad]
        optimizer = self.build_optimizer(
            [
                {"params": [p for p in backbone_in_order(self.model) if p.requires_grad], "name": "backbone"},
                {"params": new, "name": "new"},
            ]
        )
        optimizer.param_groups[1]["lr"] *= self.head_lr_scale
        schedule = self.build_schedule(optimizer, self._steps())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _steps(self) -> int:
        trainer = self.trainer
        return optimizer_steps(
            self._data.batches_per_epoch,
            trainer.max_epochs,
            trainer.limit_train_batches,
            trainer.accumulate_grad_batches,
            trainer.max_steps,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The run's configuration and classes travel with the weights; the logs are on disk before them."""
        for logger in self.trainer.loggers:
            if isinstance(logger, CSVLog):
                logger.flush()
        checkpoint[RUN_KEY] = self.run

    def _log_step(self, loss: Float[Tensor, ""], cosine: Float[Tensor, "b n"], labels: Int[Tensor, " b"]) -> None:
        target = cosine.gather(1, labels.view(-1, 1))
        others = (cosine.sum() - target.sum()) / (cosine.numel() - len(labels))
        size = len(labels)
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        self.log("train/accuracy", (cosine.argmax(1) == labels).float().mean(), batch_size=size)
        self.log("train/target_cosine", target.mean(), batch_size=size)
        self.log("train/nontarget_cosine", others, batch_size=size)
        exponent = getattr(self.model.pooling, "p", None)
        if exponent is not None:
            self.log("pooling/p", exponent.detach().mean(), batch_size=size)

    def _not_finite(self, loss: Float[Tensor, ""], batch: Batch) -> str:
        ids = " ".join(f"{int(sample):016x}" for sample in batch.ids)
        training = self._data.training
        files = ", ".join(training.names(batch.ids)) if training else ""
        return (
            f"the loss became {loss.item()} at epoch {self.current_epoch}, step {self.global_step}: lower the "
            f"learning rate or clip the gradient (trainer.gradient_clip_val); ids of the batch: {ids}; files: {files}"
        )


def check_trainer(precision: object, max_epochs: object, max_steps: object) -> None:
    """Raise InputError for what Lightning would take and stumble over later.

    A "true" half precision would take float32 from GeM, fusion and head, where the cosines need it.
    """
    if not isinstance(max_epochs, int | None) or not isinstance(max_steps, int):
        raise InputError(f"trainer.max_epochs and .max_steps are whole numbers, not {max_epochs} and {max_steps}")
    if str(precision) not in PRECISIONS:
        raise InputError(f"trainer.precision must be one of {', '.join(PRECISIONS)}, not {precision}")


def backbone_in_order(model: DescriptorModel) -> list[torch.nn.Parameter]:
    """The backbone's parameters, always in the same order, as the optimizer's saved state needs."""
    return list(model.backbone.parameters())
