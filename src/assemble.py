"""What a training configuration describes, built: data, network, head, and the module that trains them."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from src.cli import as_plain
from src.contracts import InputError
from src.data.module import LandmarkDataModule
from src.losses.class_parallel import ClassParallel
from src.training.checkpoints import describe_run
from src.training.evaluation import ExtractionOptions
from src.training.module import LandmarkModule, check_trainer
from src.training.warm_start import warm_start


def assemble(cfg: DictConfig) -> tuple[LandmarkDataModule, LandmarkModule, dict[str, Any]]:
    """Data module, training module, and the configuration as results keep it. Raises InputError as their parts do."""
    check_trainer(cfg.trainer.precision, cfg.trainer.max_epochs, cfg.trainer.max_steps)
    index = instantiate(cfg.index)
    validation = ExtractionOptions(cfg.scales, cfg.resize, index)
    test = ExtractionOptions(cfg.test_scales, cfg.resize, index)
    augmentation = instantiate(cfg.augment)
    data: LandmarkDataModule = instantiate(cfg.data, augmentation=augmentation)
    model = instantiate(cfg.model)
    head = instantiate(cfg.margin, dim=model.dim, num_classes=data.num_classes, class_sizes=data.class_sizes)
    config = {**as_plain(cfg), "licence": model.backbone.licence}
    about = describe_run(config, data.classes, data.digests())
    spread = ClassParallel(head, cfg.sample_rate) if cfg.class_parallel else None
    if spread and (cfg.ema is not None or str(cfg.trainer.precision) == "16-mixed"):
        raise InputError("class_parallel=true goes with neither ema nor trainer.precision=16-mixed: take bf16-mixed")
    if cfg.weights is not None:
        warm_start(model, head, cfg.weights, about["classes"])
    module = LandmarkModule(
        model,
        head,
        augmentation,
        instantiate(cfg.optim.optimizer),
        instantiate(cfg.optim.schedule),
        class_parallel=spread,
        group=instantiate(cfg.optim.groups),
        compiler=cfg.compiler,
        run=about,
        validation=validation,
        test=test,
    )
    return data, module, config
