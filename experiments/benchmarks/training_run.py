"""The overhead of a training run: steps of a complete run compared with a bare loop, and its checkpoints.

    PYTHONPATH=. python experiments/benchmarks/training_run.py

Both train DOLG R18 at 224 px on the demo world with the same network, loader (2 workers), augmentation, head and
optimizer; ours with Lightning, its callbacks, a CSV log of every step and a progress bar. They alternate by `STEPS`
steps; medians are of the seconds between the ends of consecutive steps. The checkpoint is of DOLG R50 with a head of
GLDv2's 81,313 landmarks and SGD's momenta, written under a temporary name and renamed; it is compared with torch.save
alone.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from dolglab.commands.build_training import assemble, build_trainer
from dolglab.commands.hydra_cli import configure_process
from dolglab.losses.margin import ArcFace
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import DOLG
from dolglab.results.metrics_log import read_series
from dolglab.training.checkpointing import AtomicCheckpointIO

ROUNDS, STEPS, WARM_UP = 4, 16, 4
RECIPE = [
    "backbone=r18",
    "backbone.pretrained=false",
    "data=demo",
    "data.image_size=224",
    "local=aspp_14x14",
    "data.batch_size=16",
    "data.workers=2",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    "checkpoint_minutes=null",
    f"trainer.max_steps={STEPS}",
]
LANDMARKS = 81313


class Terminal(io.StringIO):
    """A stream that gets a progress bar, like a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


class Clock(Callback):
    """Records when steps end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Record the end of a step."""
        self.ends.append(time.perf_counter())


def main() -> None:
    """Print the comparison and the checkpoint's cost."""
    configure_process()
    warnings.simplefilter("ignore")
    root = Path(__file__).resolve().parents[2]
    with initialize_config_dir(str(root / "conf"), version_base="1.3"), tempfile.TemporaryDirectory() as folder:
        cfg = compose("train", overrides=[*RECIPE, f"output_dir={folder}/run", "name=benchmark"])
        bare, ours = [], []
        for turn in range(ROUNDS):
            bare += bare_steps(cfg)
            ours += run_steps(cfg, Path(folder) / str(turn))
        plain, whole = statistics.median(bare), statistics.median(ours)
        series = read_series(Path(folder) / f"{ROUNDS - 1}" / "metrics.csv")
        print(f"bare loop {plain:.3f} s per step, our run {whole:.3f} s: {100 * (whole / plain - 1):+.1f} %")
        print(f"share of a step spent waiting for data, 2 workers: {series['train/data_wait_share'].values[-1]:.4f}")
        print(checkpoint_cost(Path(folder)))


def bare_steps(cfg: DictConfig) -> list[float]:
    """Seconds of steps in a plain loop."""
    L.seed_everything(0, verbose=False)
    data, module, _ = assemble(cfg)
    backbone = set(module.model.backbone.parameters())
    new = [p for p in module.parameters() if p not in backbone]
    optimizer = module.build_optimizer(module.group(module.model.backbone.levels(), new))
    schedule = module.build_schedule(optimizer, STEPS)
    module.train()
    ends = []
    for _, batch in zip(range(STEPS), data.train_dataloader(), strict=False):
        images = module.model.backbone.normalise(module.augmentation(batch.images, batch.draws))
        loss = module.head.loss(module.model(images), batch.labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        ends.append(time.perf_counter())
    return between(ends)


def run_steps(cfg: DictConfig, run: Path) -> list[float]:
    """Seconds of steps in a run as `python -m src.train` makes it."""
    L.seed_everything(0, verbose=False)
    data, module, _ = assemble(cfg)
    cfg = cfg.copy()
    cfg.output_dir = str(run)
    with contextlib.redirect_stdout(Terminal()):
        trainer = build_trainer(cfg, run, validates=False)
        clock = Clock()
        trainer.callbacks.append(clock)  # pyright: ignore[reportAttributeAccessIssue]
        data.validation = []
        trainer.fit(module, datamodule=data)
    return between(clock.ends)


def between(ends: list[float]) -> list[float]:
    """Seconds between the ends of steps, without the first ones."""
    return [after - before for before, after in zip(ends[WARM_UP:], ends[WARM_UP + 1 :], strict=False)]


def checkpoint_cost(folder: Path) -> str:
    """Seconds and bytes of a checkpoint."""
    model, head = DOLG(Backbone("resnet50.tv_in1k", pretrained=False)), ArcFace(512, LANDMARKS)
    weights = {**model.state_dict(prefix="model."), **head.state_dict(prefix="head.")}
    momenta = {
        place: {"momentum_buffer": torch.randn_like(p)} for place, p in enumerate([*model.parameters(), head.weight])
    }
    checkpoint = {"state_dict": weights, "optimizer_states": [{"state": momenta}]}
    seconds: dict[str, list[float]] = {"ours": [], "torch.save": []}
    path, plain = folder / "last.ckpt", folder / "plain.ckpt"
    for _ in range(ROUNDS):
        start = time.perf_counter()
        AtomicCheckpointIO().save_checkpoint(checkpoint, path)
        middle = time.perf_counter()
        torch.save(checkpoint, plain)
        seconds["ours"].append(middle - start)
        seconds["torch.save"].append(time.perf_counter() - middle)
    times = ", ".join(f"{name} {statistics.median(found):.2f} s" for name, found in seconds.items())
    return f"checkpoint of {path.stat().st_size / 2**20:.0f} MiB: {times}"


if __name__ == "__main__":
    main()
