"""A run's folder: whose it is, what it was started with, and where it goes on."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dolglab.commands.cli_errors import compose_config
from dolglab.errors import UserError
from dolglab.io import acquire, is_held, write_text
from dolglab.processes import main_process, started_apart

CONFIG, OVERRIDES, CARD = "config.yaml", "overrides.yaml", "card.json"
LAST = "checkpoints/last.ckpt"
# Held by the process that writes to the folder, and how many seconds its predecessor has to end.
LOCK, PATIENCE = ".lock", 30.0


def claim_run(run: Path, name: str, resume: bool | str = False) -> Path:
    """The run's folder. Raises UserError when it holds another run, or nothing to resume, or for a bad name.

    A folder in which nothing was trained or evaluated, since its run was refused, holds no run.
    """
    if started_apart() and not _named():
        raise UserError("torchrun and srun start processes that must agree on a folder: give the run a name=...")
    if not name.strip() or ".." in Path(name).parts:
        raise UserError(f"name={name} is no name for a run: it must not be empty, nor hold '..'")
    if resume not in (True, False, "auto"):
        raise UserError(f"resume must be true, false or auto, not {resume}")
    # Who resumes may have killed what still ends.
    if main_process() and not acquire(run / LOCK, PATIENCE if resume else 0):
        raise UserError(f"another process trains in {run}: choose another name=..., or stop it first")
    if resume:
        if resume is True and not (run / CONFIG).exists():
            raise UserError(f"there is no run to resume in {run}: check name=..., or leave resume=true out")
    elif any((run / file).exists() for file in (LAST, CARD)):
        raise UserError(f"{run} already holds a run: choose another name=..., or resume=true where it was training")
    return run


def in_sweep() -> bool:
    """Whether this process is to run a job of a Hydra multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def drop_empty_run(cfg: DictConfig) -> None:
    """Remove the folder of a run that was refused, which Hydra makes before anything is checked; no other."""
    with contextlib.suppress(Exception):
        run = Path(cfg.output_dir)
        if is_held(run / LOCK) and [path.name for path in run.iterdir()] == [LOCK]:
            (run / LOCK).unlink()
        run.rmdir()


def record_run(run: Path, cfg: DictConfig) -> None:
    """Keep the resolved configuration, and the overrides that made it, in the run's folder."""
    if not main_process():
        return
    write_text(run / OVERRIDES, OmegaConf.to_yaml(OmegaConf.create(_all_overrides(run))))
    write_text(run / CONFIG, OmegaConf.to_yaml(cfg, resolve=True))


def resumed_config(cfg: DictConfig) -> DictConfig:
    """When resuming, the run's own overrides with those given now on top; otherwise `cfg`."""
    if not cfg.resume or not HydraConfig.initialized():
        return cfg
    if not (Path(cfg.output_dir) / OVERRIDES).exists():
        return cfg
    resumed = compose_config("train", _all_overrides(Path(cfg.output_dir)))
    for key in ("name", "output_dir", "resume"):
        OmegaConf.update(resumed, key, cfg[key])
    return resumed


def resume_point(run: Path) -> Path | None:
    """The checkpoint to continue from; None starts at the beginning."""
    from dolglab.training.checkpointing import last_readable

    last = last_readable((run / LAST).parent)
    if last is None and (run / CONFIG).exists():
        print(f"no checkpoint in {run} yet: training starts at the beginning")
    return last


def _named() -> bool:
    """Whether the run's folder does not hang on the clock."""
    if not HydraConfig.initialized():
        return True
    given = HydraConfig.get().overrides
    return any(_key(override) in ("name", "hydra.run.dir", "output_dir") for override in (*given.task, *given.hydra))


def _all_overrides(run: Path) -> list[str]:
    """What the run was started with, what it was resumed with, and what is given now; the last of each name."""
    task = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    given = [override for override in task if _key(override) not in ("resume", "name")]
    kept = run / OVERRIDES
    before = map(str, OmegaConf.load(kept)) if kept.exists() else ()
    names = {_key(override) for override in given}
    return [*(override for override in before if _key(override) not in names), *given]


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~").split("@")[0]
