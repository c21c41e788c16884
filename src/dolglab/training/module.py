"""The LightningModule that trains a descriptor model with a margin loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dolglab.contracts import Batch, Features
from dolglab.data.augment import Augmentation
from dolglab.errors import UserError
from dolglab.losses.class_parallel import ClassParallel
from dolglab.losses.local import LocalLoss, LocalTerms
from dolglab.losses.margin import HeadLoss, MarginHead
from dolglab.losses.pairs import Head
from dolglab.models.checkpoint import RUN_KEY
from dolglab.models.delg import DELG
from dolglab.models.dolg import DescriptorModel
from dolglab.training.csv_logger import CSVLog
from dolglab.training.optim import optimizer_steps, parameter_groups
from dolglab.training.retrieval_module import ExtractionOptions, RetrievalModule

# The checkpoint keys of the class centres, and of their index among the optimizer's parameters.
HEAD_WEIGHT, HEAD_POSITION = "head.weight", "dolg_head_place"
# The row of the log that is written after the checkpoint of the same step.
LOG_ROW = "dolg_log_row"
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")

BuildOptimizer = Callable[[Iterable[Any]], Optimizer]
BuildSchedule = Callable[..., LRScheduler]


class NotFiniteError(UserError):
    """The loss is not finite: the run stops at this batch."""


class LandmarkModule(RetrievalModule):
    """Model, margin head and optimizer; batches come as uint8 crops and are augmented and normalised here.

    Args:
        head: margin head over the training classes, or a loss over the pairs of a batch.
        augmentation: augmentation of a batch, on its device.
        optimizer: constructor of the optimizer, called with parameter groups.
        schedule: constructor of the learning-rate schedule, called with the optimizer, the number of steps, and
            `restart`, the step at which the schedule starts again after frozen epochs.
        auxiliary: losses of a DELG's local head; None trains no local head.
        class_parallel: divides the classes of `head` among the processes, and compares with this share of them in each
            step (see ClassParallel); None keeps all classes on every process.
        group: makes parameter groups from the backbone's levels and the new layers (see `parameter_groups`).
        compiler: backend of torch.compile for the training pass, such as "inductor"; None does not compile.
        run: the run's description for checkpoints (plain values and tensors only).
        max_steps: optimizer steps after which training and schedule end; -1 for no limit.
        freeze_epochs: number of epochs at the start (-1: all) in which the backbone and its batch-norm statistics are
            frozen. They have a schedule of their own, so that new layers fit the pretrained features before both change
            (Kumar et al., ICLR 2022: linear probing, then fine-tuning).
        validation: how descriptors are computed for validation (see RetrievalModule).
    """

    def __init__(
        self,
        model: DescriptorModel,
        head: Head,
        augmentation: Augmentation,
        optimizer: BuildOptimizer,
        schedule: BuildSchedule,
        auxiliary: LocalLoss | None = None,
        class_parallel: float | None = None,
        group: Callable[..., list[dict[str, Any]]] = parameter_groups,
        compiler: str | None = None,
        run: Mapping[str, Any] | None = None,
        max_steps: int = -1,
        freeze_epochs: int = 0,
        validation: ExtractionOptions | None = None,
    ) -> None:
        super().__init__(model, validation)
        self.freeze_epochs = freeze_epochs
        self.head = head
        self.auxiliary = auxiliary
        # Stored as bound methods and functions rather than submodules, so that names in the state do not change.
        self._describe: Callable[[Features], Any] = model.describe
        if auxiliary is not None:
            assert isinstance(model, DELG), "only a DELG has a local head to train"
            self._describe = model.training_features
        self.training_forward: Callable[[Tensor], Any] = lambda images: self._describe(self.model.backbone(images))
        if compiler is not None:
            # Only the training pass is compiled: whole images come in every shape.
            self.training_forward = torch.compile(self.training_forward, backend=compiler, dynamic=False)
        self.augmentation = augmentation
        self.build_optimizer = optimizer
        self.build_schedule = schedule
        self.class_parallel = None if class_parallel is None else ClassParallel(_with_centres(head), class_parallel)
        self.group = group
        self.run = dict(run or {})
        self.max_steps = max_steps
        # Cosines of the last step (see HeadLoss), for callbacks.
        self.cosines: tuple[Tensor, Tensor] | None = None

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        """The loss of a batch: the margin's, plus a local head's. Raises UserError with the ids if it is not finite."""
        images = self.model.backbone.normalise(self.augmentation(batch.images, batch.draws))
        if self.frozen:
            with torch.no_grad():
                features = self.model.backbone(images)
            outputs = self._describe(features)
        else:
            outputs = self.training_forward(images)
        if self.auxiliary is None:
            result, terms = self._margin_loss(outputs, batch), None
            loss = result.loss
        else:
            descriptors, local = outputs
            result = self._margin_loss(descriptors, batch)
            terms = self.auxiliary(*local, batch.labels)
            loss = result.loss + terms.loss
        if not torch.isfinite(loss):
            ids = " ".join(f"{int(sample):016x}" for sample in batch.ids)
            training = self._data.training
            files = ", ".join(training.names(batch.ids)) if training else ""
            raise NotFiniteError(
                f"the loss became {loss.item()} at epoch {self.current_epoch}, step {self.global_step}: lower the "
                "learning rate or clip the gradient (trainer.gradient_clip_val); "
                f"ids of the batch: {ids}; files: {files}"
            )
        self._log_step(loss, result, terms, len(batch))
        self.cosines = result.cosine, result.at
        # DDP waits for a gradient of every parameter that it knows.
        return loss + 0 * sum(p.sum() for p in self._resting()) if self.trainer.world_size > 1 else loss

    @property
    def frozen(self) -> bool:
        """Whether the backbone is frozen in this epoch."""
        return self.freeze_epochs < 0 or self.current_epoch < self.freeze_epochs

    def _resting(self) -> list[nn.Parameter]:
        """Parameters that are still frozen and trained later."""
        return [p for p in self.model.backbone.parameters() if p.requires_grad] if self.frozen else []

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Remove the gradients of frozen parameters: without one, an optimizer does not even decay a weight."""
        for parameter in self._resting():
            parameter.grad = None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Parameter groups of the pretrained backbone and of the new layers, and a schedule by optimizer steps."""
        backbone = set(self.model.backbone.parameters())
        new = [p for p in self.parameters() if p not in backbone]
        optimizer = self.build_optimizer(self.group(self.model.backbone.levels(), new))
        for group in optimizer.param_groups:
            group["lr"] *= group["lr_scale"]
        trainer = self.trainer
        counted = partial(
            optimizer_steps,
            self._data.batches_per_epoch,
            limit=trainer.limit_train_batches,
            accumulate=trainer.accumulate_grad_batches,
            max_steps=self.max_steps,
        )
        steps = counted(epochs=trainer.max_epochs)
        frozen = counted(epochs=self.freeze_epochs) if self.freeze_epochs > 0 else 0
        # If all epochs are frozen, there is one schedule.
        restart = {"restart": frozen} if 0 < frozen < steps else {}
        schedule = self.build_schedule(optimizer, steps, **restart)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the run's configuration and classes to the weights, after the logs are on disk.

        All processes must call it: the checkpoint holds the complete head, even if it is divided among them.
        """
        for logger in self._csv_logs():
            logger.flush_for_checkpoint()
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # Not every head has class centres.
        position = next((i for i, p in enumerate(parameters) if p is self.head.weight), None)
        checkpoint |= {RUN_KEY: self.run, HEAD_POSITION: position, LOG_ROW: self._row_to_come()}
        if self.class_parallel is not None and position is not None:
            self.class_parallel.gather_checkpoint(checkpoint, HEAD_WEIGHT, position)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take this process's part of a divided head, and restore the last step's row in the log."""
        row = checkpoint.get(LOG_ROW)
        if row and self.trainer.state.fn == TrainerFn.FITTING:
            for logger in self._csv_logs():
                logger.restore(row)
        if self.class_parallel is not None:
            self.class_parallel.scatter_checkpoint(checkpoint, HEAD_WEIGHT, checkpoint[HEAD_POSITION])

    def _csv_logs(self) -> Iterator[CSVLog]:
        return (logger for logger in self.trainer.loggers if isinstance(logger, CSVLog))

    def _row_to_come(self) -> dict[str, Any] | None:
        """What Lightning will log for this step or epoch after all hooks, including checkpoints; None for nothing."""
        connector = self.trainer._logger_connector
        if not self.trainer.training or not (self.trainer.is_last_batch or connector.should_update_logs):
            return None
        values = {key: float(value) for key, value in connector.metrics["log"].items()}
        return {**values, "epoch": self.current_epoch, "step": self.global_step - 1}

    def on_fit_start(self) -> None:
        """Keep the run's seed; all processes start with it, so that their networks are the same."""
        self._seed = torch.initial_seed()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed random dropping by step and process, so that a resumed run drops the same; put a frozen backbone into
        eval mode.
        """
        backbone = self.model.backbone
        if backbone.training == self.frozen:
            backbone.train(not self.frozen)
        sequence = np.random.SeedSequence([self._seed, self.current_epoch, batch_idx, self.global_rank])
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))

    def setup(self, stage: str) -> None:
        """Divide the head among the processes, and exclude it from DDP."""
        if self.class_parallel is not None:
            self.class_parallel.split(self.global_rank, self.trainer.world_size)
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, [HEAD_WEIGHT])

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip by the norm of the whole network, also if the head is divided among processes.

        A local head is clipped by its own norm, so that its losses do not influence the backbone's step.
        """
        plain = self.auxiliary is None and self.class_parallel is None
        if plain or not gradient_clip_val or gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        local = set()
        if self.auxiliary is not None and isinstance(self.model, DELG):
            local = {*self.model.local.parameters(), *self.auxiliary.parameters()}
        others = [p for p in self.parameters() if p not in local]
        clip_grad_norm_(local, gradient_clip_val)
        if self.class_parallel is None:
            clip_grad_norm_(others, gradient_clip_val)
        else:
            self.class_parallel.clip(others, gradient_clip_val)

    def gradient_norm(self) -> Float[Tensor, ""]:
        """The gradient norm over all parameters and all processes' parts of the head; every process must call it."""
        parameters = [p for p in self.parameters() if p.grad is not None]
        if self.class_parallel is not None:
            return self.class_parallel.norm(parameters)
        return get_total_norm([p.grad for p in parameters if p.grad is not None])

    def _margin_loss(self, descriptors: Float[Tensor, "b d"], batch: Batch) -> HeadLoss:
        if self.class_parallel is None:
            return self.head.loss(descriptors, batch.labels)
        return self.class_parallel.loss(descriptors, batch.labels, self.global_step)

    def _log_step(self, loss: Float[Tensor, ""], result: HeadLoss, terms: LocalTerms | None, size: int) -> None:
        """Log a step's figures, averaged over the processes in a single exchange."""
        figures = {
            "loss": loss,
            "accuracy": result.accuracy,
            "target_cosine": result.target_cosine,
            "nontarget_cosine": result.nontarget_cosine,
        }
        if terms is not None:
            figures["margin_loss"] = result.loss
            figures |= {"reconstruction_loss": terms.reconstruction, "attention_loss": terms.attention}
        values = self.trainer.strategy.reduce(torch.stack([value.detach().float() for value in figures.values()]))
        for name, value in zip(figures, values, strict=True):
            self.log(f"train/{name}", value, prog_bar=name == "loss", batch_size=size)
        exponent = getattr(self.model.pooling, "p", None)
        if exponent is not None:
            self.log("pooling/p", exponent.detach().mean(), batch_size=size)


def _with_centres(head: Head) -> MarginHead:
    """The head, if it has class centres to divide. Raises UserError otherwise."""
    if head.weight is None:
        raise UserError(f"class_parallel=true divides class centres, but {type(head).__name__} has none")
    return head


def check_trainer(options: Mapping[str, Any], freeze_epochs: object = 0) -> None:
    """Raise UserError for options of `conf/trainer` on which Lightning would fail later, and for `freeze_epochs`.

    Refused are numbers that leave nothing to train, and "true" half precision: the cosines need float32 in GeM, fusion
    and head.
    """
    for name in ("max_epochs", "max_steps"):
        limit = options[name]
        if not isinstance(limit, int) or limit < -1 or limit == 0:
            raise UserError(f"trainer.{name} must be a whole number from 1, or -1 for no limit, not {limit}")
    if (share := options.get("limit_train_batches")) is not None and not share > 0:
        raise UserError(f"trainer.limit_train_batches must be above 0, or null for all, not {share}")
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
        if options.get(name) == 0:
            raise UserError(f"trainer.{name} must be at least 1, not 0")
    if not isinstance(freeze_epochs, int) or freeze_epochs < -1:
        raise UserError(f"freeze_epochs must be a whole number from 0, or -1 for all epochs, not {freeze_epochs}")
    if (precision := str(options["precision"])) not in PRECISIONS:
        raise UserError(f"trainer.precision must be one of {', '.join(PRECISIONS)}, not {precision}")
