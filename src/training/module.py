"""The LightningModule that trains a descriptor model with a margin loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.contracts import Batch, InputError
from src.data.augment import Augmentation
from src.losses.class_parallel import ClassParallel
from src.losses.margin import HeadLoss, MarginHead
from src.models.dolg import DescriptorModel
from src.training.checkpoints import RUN_KEY
from src.training.csv_log import CSVLog
from src.training.evaluation import ExtractionOptions, RetrievalModule
from src.training.optim import optimizer_steps, parameter_groups

# Where a checkpoint holds the class centres, and the entry that says which of the optimizer's parameters they are.
HEAD_WEIGHT, HEAD_PLACE = "head.weight", "dolg_head_place"
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
        class_parallel: spreads `head` over the processes; None keeps all of it on each.
        group: makes parameter groups of the backbone's levels and everything new (see `parameter_groups`).
        compiler: backend of torch.compile for the training pass, such as "inductor"; None runs it as it is.
        run: what a checkpoint says of its run (plain values and tensors only).
        max_steps: optimizer steps after which training ends, by which the schedule ends too; -1 sets no end.
        validation, test: how descriptors are made (see RetrievalModule).
    """

    def __init__(
        self,
        model: DescriptorModel,
        head: MarginHead,
        augmentation: Augmentation,
        optimizer: BuildOptimizer,
        schedule: BuildSchedule,
        class_parallel: ClassParallel | None = None,
        group: Callable[..., list[dict[str, Any]]] = parameter_groups,
        compiler: str | None = None,
        run: Mapping[str, Any] | None = None,
        max_steps: int = -1,
        validation: ExtractionOptions | None = None,
        test: ExtractionOptions | None = None,
    ) -> None:
        super().__init__(model, validation, test)
        self.head = head
        # Of the training pass alone: whole images come in every shape. The bound method is no submodule, so that the
        # state keeps its names.
        self.describe: Callable[[Tensor], Tensor] = model.forward
        if compiler is not None:
            self.describe = torch.compile(model.forward, backend=compiler, dynamic=False)
        self.augmentation = augmentation
        self.build_optimizer = optimizer
        self.build_schedule = schedule
        self.class_parallel = class_parallel
        self.group = group
        self.run = dict(run or {})
        self.max_steps = max_steps

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        """Margin loss of one batch. Raises InputError naming the batch's ids when it is not finite."""
        images = self.model.backbone.normalise(self.augmentation(batch.images, batch.draws))
        descriptors = self.describe(images)
        if self.class_parallel is None:
            result = self.head.loss(descriptors, batch.labels)
        else:
            result = self.class_parallel.loss(descriptors, batch.labels, self.global_step)
        if not torch.isfinite(result.loss):
            raise InputError(self._not_finite(result.loss, batch))
        self._log_step(result, len(batch))
        return result.loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Groups of the pretrained backbone and of everything new, and a schedule by steps."""
        backbone = set(self.model.backbone.parameters())
        new = [p for p in self.parameters() if p not in backbone]
        optimizer = self.build_optimizer(self.group(self.model.backbone.levels(), new))
        for group in optimizer.param_groups:
            group["lr"] *= group["lr_scale"]
        schedule = self.build_schedule(optimizer, self._steps())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _steps(self) -> int:
        trainer = self.trainer
        return optimizer_steps(
            self._data.batches_per_epoch,
            trainer.max_epochs,
            trainer.limit_train_batches,
            trainer.accumulate_grad_batches,
            self.max_steps,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The run's configuration and classes travel with the weights; the logs are on disk before them.

        All processes come here: of a head spread over them, the checkpoint holds the whole.
        """
        for logger in self.trainer.loggers:
            if isinstance(logger, CSVLog):
                logger.settle()
        checkpoint[RUN_KEY] = self.run
        checkpoint[HEAD_PLACE] = self._head_place()
        if self.class_parallel is not None:
            self.class_parallel.gather_checkpoint(checkpoint, HEAD_WEIGHT, checkpoint[HEAD_PLACE])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Of a head that is spread over processes, take this one's part."""
        if self.class_parallel is not None:
            self.class_parallel.scatter_checkpoint(checkpoint, HEAD_WEIGHT, checkpoint[HEAD_PLACE])

    def on_fit_start(self) -> None:
        """Each process drops other paths: all began with one seed, so that their networks are the same."""
        if self.global_rank:
            torch.manual_seed(torch.initial_seed() + self.global_rank)

    def setup(self, stage: str) -> None:
        """Spread the head, now that the processes are there, and keep it out of what DDP shares."""
        if self.class_parallel is not None:
            self.class_parallel.split(self.global_rank, self.trainer.world_size)
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, [HEAD_WEIGHT])

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """The norm is that of the whole network, also where the head is spread over processes."""
        if self.class_parallel is None or not gradient_clip_val or gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            self.class_parallel.clip(list(self.parameters()), gradient_clip_val)

    def _head_place(self) -> int:
        """The position of the head's weight among the optimizer's parameters."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        return next(place for place, p in enumerate(parameters) if p is self.head.weight)

    def _log_step(self, result: HeadLoss, size: int) -> None:
        self.log("train/loss", result.loss.detach(), prog_bar=True, batch_size=size)
        self.log("train/accuracy", result.accuracy, batch_size=size)
        self.log("train/target_cosine", result.target_cosine, batch_size=size)
        self.log("train/nontarget_cosine", result.nontarget_cosine, batch_size=size)
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
    if not isinstance(max_epochs, int) or not isinstance(max_steps, int):
        raise InputError(f"trainer.max_epochs and .max_steps are whole numbers, not {max_epochs} and {max_steps}")
    if str(precision) not in PRECISIONS:
        raise InputError(f"trainer.precision must be one of {', '.join(PRECISIONS)}, not {precision}")
