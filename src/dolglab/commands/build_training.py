"""Build a training from its configuration: network, data and trainer."""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import get_object, instantiate
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from omegaconf import DictConfig, OmegaConf

from dolglab.commands.hydra_cli import FROM_CHECKPOINT, PARTS, as_plain, checkpoints_there
from dolglab.data.module import LandmarkDataModule
from dolglab.errors import UserError
from dolglab.losses.pairs import Head, MultiSimilarity
from dolglab.models.checkpoint import check_loadable, describe_run, read_run, safe_config
from dolglab.models.delg import DELG
from dolglab.models.dolg import DescriptorModel
from dolglab.processes import launched, main_process
from dolglab.training import callbacks, checkpointing
from dolglab.training.module import LandmarkModule, check_trainer
from dolglab.training.optim import lr_factor
from dolglab.training.retrieval_module import ExtractionOptions
from dolglab.training.sync_batchnorm import SyncBatchNorm
from dolglab.training.wandb_logging import Dashboard, WandbLog


def with_network(cfg: DictConfig, last: Path | None) -> DictConfig:
    """The configuration with the network of `weights`, if it has `model=from_checkpoint`.

    Each part is in its group at the root: either one chosen in `cfg`, or the checkpoint's with the options of `cfg`
    on top. A run that resumes from its `last` checkpoint has the network of that one.
    Raises UserError for weights that do not describe a network, and if weights to be tested do not exist.
    """
    taken, tested = _from_checkpoint(cfg.model), cfg.test and _from_checkpoint(cfg.get("baseline") or {})
    if not (taken or tested):
        return cfg
    if cfg.weights is None:
        raise UserError(
            f"model=from_checkpoint takes the network of weights=CHECKPOINT, which is not given{checkpoints_there()}"
        )
    if tested:
        # Needed after the training, but checked now.
        read_run(cfg.weights)
    if not taken:
        return cfg
    network = safe_config(read_run(last or cfg.weights)["config"]["model"])
    whole = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    assert isinstance(whole, DictConfig)
    for part in PARTS:
        if not isinstance(network.get(part, {}), Mapping):
            raise UserError(f"{last or cfg.weights} describes no network: its {part} is {network[part]}")
        if part in network:
            given = whole.get(part) or {}
            whole[part] = given if "_target_" in given else OmegaConf.merge(network[part], given)
            network[part] = f"${{{part}}}"
    whole.model = network
    return whole


def _from_checkpoint(model: Mapping[Any, Any]) -> bool:
    return model.get("_target_") == FROM_CHECKPOINT


def assemble(cfg: DictConfig, resumed: bool = False) -> tuple[LandmarkDataModule, LandmarkModule, dict[str, Any]]:
    """Data module, training module, and the configuration for results.

    If a checkpoint is `resumed` or `weights` are given, no pretrained backbone is downloaded.
    Raises UserError like the parts.
    """
    check_trainer(as_plain(cfg.trainer), cfg.freeze_epochs)
    validation = ExtractionOptions(cfg.validation_scales, cfg.resize, instantiate(cfg.index), cfg.scale_pooling)
    # The augmentation is passed as a configuration: Hydra would convert a dataclass instance to one.
    data: LandmarkDataModule = instantiate(cfg.data, augmentation=cfg.augment)
    if not cfg.test:
        data.test = []
    model = instantiate(_without_pretrained(cfg) if resumed or cfg.weights is not None else cfg.model)
    head = build_head(cfg.margin, model.dim, data.num_classes, data.class_sizes)
    if isinstance(head, MultiSimilarity) and data.images_per_landmark is None:
        raise UserError("margin=multi_similarity compares the images of a batch: set data.images_per_landmark=4")
    auxiliary = None
    if isinstance(model, DELG):
        auxiliary = instantiate(cfg.auxiliary, channels=model.backbone.out_channels[0], num_classes=data.num_classes)
    config = {**as_plain(cfg), "licence": model.backbone.licence}
    about = describe_run(config, data.classes, data.digests())
    batch = data.batch_size * cfg.trainer.accumulate_grad_batches
    check_loadable(model, config["model"])
    if not resumed and cfg.weights is None:
        check_map_size(model, data.image_size)
    factor = lr_factor(cfg.optim.scaling.rule, batch, cfg.optim.scaling.batch)
    if cfg.class_parallel and (cfg.ema is not None or str(cfg.trainer.precision) == "16-mixed"):
        raise UserError("class_parallel=true works with neither ema nor trainer.precision=16-mixed: use bf16-mixed")
    if cfg.weights is not None and not resumed:
        checkpointing.init_from(model, head, cfg.weights, about["classes"], cfg.weights_parts, auxiliary)
    module = LandmarkModule(
        model,
        head,
        data.augmentation,
        instantiate(cfg.optim.optimizer, lr=cfg.optim.optimizer.lr * factor),
        instantiate(cfg.optim.schedule),
        auxiliary=auxiliary,
        class_parallel=cfg.sample_rate if cfg.class_parallel else None,
        group=instantiate(cfg.optim.groups),
        compiler=cfg.compiler,
        run=about,
        max_steps=cfg.trainer.max_steps,
        freeze_epochs=cfg.freeze_epochs,
        validation=validation,
    )
    return data, module, config


def check_map_size(model: DescriptorModel, image_size: int) -> None:
    """Raise UserError if the crops' feature maps are too small to learn the local branch's weights."""
    reach = getattr(getattr(model, "local", None), "min_map", 1) - 1
    cells = math.ceil(image_size / model.backbone.reductions[0])
    if cells <= reach:
        raise UserError(
            f"data.image_size={image_size} gives local maps of {cells} x {cells}, but local.dilations span "
            f"{reach} cells: use local=attention, aspp_9x9 or aspp_14x14, or larger crops"
        )


def build_head(config: DictConfig, dim: int, num_classes: int, class_sizes: torch.Tensor) -> Head:
    """The head of `conf/margin`; it gets `class_sizes`, the training images per class, if its signature has them."""
    more = {}
    # Hydra's own error names the group of a target that does not exist.
    with contextlib.suppress(ImportError):
        if "class_sizes" in inspect.signature(get_object(config["_target_"])).parameters:
            more = {"class_sizes": class_sizes}
    return instantiate(config, dim=dim, num_classes=num_classes, **more)


def build_trainer(cfg: DictConfig, run: Path, validates: bool) -> L.Trainer:
    """The trainer of a run in the folder `run`, with loggers and callbacks."""
    loggers = list(instantiate(cfg.logger).values())
    folder, max_steps = run / "checkpoints", cfg.trainer.max_steps
    watching: list[Callback] = [
        *(Dashboard(log) for log in loggers if isinstance(log, WandbLog)),
        callbacks.Throughput(),
        callbacks.EpochLine(),
        callbacks.BadImageLog(run),
        callbacks.DumpNonFiniteBatch(run),
        callbacks.StopOnSignal(folder / checkpointing.LAST),
        *([checkpointing.StopAtStep(max_steps)] if max_steps >= 0 else []),
        *([callbacks.EMA(cfg.ema)] if cfg.ema is not None else []),
        *([LearningRateMonitor(logging_interval="step"), callbacks.GradientNorm()] if loggers else []),
        *([checkpointing.BestCheckpoint(folder)] if validates else []),
        # After BestCheckpoint, whose score it stores for resuming.
        checkpointing.LastCheckpoint(folder),
        checkpointing.IntraEpochCheckpoint(folder, cfg.checkpoint_minutes, cfg.checkpoint_steps),
    ]
    return make_trainer(
        cfg.trainer,
        max_steps=-1,
        logger=loggers,
        callbacks=watching,
        plugins=[checkpointing.AtomicCheckpointIO(), *([SyncBatchNorm()] if cfg.trainer.get("sync_batchnorm") else [])],
        enable_progress_bar=sys.stdout.isatty(),
    )


def make_trainer(options: DictConfig, **more: Any) -> L.Trainer:
    """The trainer of `conf/trainer`, with torchrun's processes if there are any. Raises UserError for missing GPUs."""
    at = launched()
    check_devices(options.accelerator, at.get("devices", options.devices))
    return instantiate(options, **at, **more)


def _without_pretrained(cfg: DictConfig) -> DictConfig:
    """The model's configuration without pretrained weights of the backbone, because other weights are loaded."""
    plain = copy.deepcopy(cfg)
    # The licence is stored under a key that the configuration may lack.
    OmegaConf.set_struct(plain, False)
    plain.backbone = safe_config(as_plain(cfg.backbone))
    return plain.model


def check_devices(accelerator: object, devices: object) -> None:
    """Raise UserError for missing GPUs; print a note if a run uses CPUs instead.

    Both arguments are options of `trainer`; Lightning checks `devices` of -1, "auto" and lists.
    """
    there = torch.accelerator.device_count()
    if accelerator in ("gpu", "cuda") and not there:
        raise UserError("there is no GPU that torch can use (does `nvidia-smi` show one?): use trainer=cpu")
    if not isinstance(devices, int) or accelerator not in ("gpu", "cuda", "auto"):
        return
    if there and devices > there:
        raise UserError(f"trainer.devices={devices}, but this machine has {there} GPU{'s' * (there > 1)}")
    if not there and devices > 1 and main_process():
        print(f"there is no GPU that torch can use: running {devices} processes on the CPU")
