"""Shared code of the Hydra commands: `hydra_main`, process settings, a run's folder, and resuming a run."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dolglab.commands.cli_errors import ONE_LINE, check_flags, compose_config, help_asked, to_exit, wants_tracebacks
from dolglab.commands.config_reference import config_folder, option_text
from dolglab.errors import UserError, truncate_list
from dolglab.io import acquire, is_held, release_all, remove_empty, write_text
from dolglab.processes import CARD, LAST, LOCK, main_process, started_apart
from dolglab.renamed import current_overrides, with_current_keys, with_current_targets

T = TypeVar("T")

CONFIG, OVERRIDES = "config.yaml", "overrides.yaml"
# Groups at the root of the configuration that are the parts of a network.
PARTS = ("backbone", "pooling", "local", "fusion")
# What `model=from_checkpoint` builds.
FROM_CHECKPOINT = "dolglab.models.checkpoint.trained_network"
# Meanings of values at the root that a recipe requires.
WANTED = {"weights": "the checkpoint to start from, such as outputs/NAME/checkpoints/best.ckpt"}
# Seconds to wait for an earlier process of this run to end.
PATIENCE = 30.0

# Harmless warnings: about Lightning's own code, small sets, frozen layers, the folder of a resumed run, and metrics
# that all processes compute alike.
HARMLESS = (
    ".*LeafSpec.*",
    ".*does not have many workers.*",
    ".*in eval mode at the start of training.*",
    ".*is smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*recommended to use .*sync_dist=True.*",
)

# Hydra copies this registry for every group that --help lists, though it only reads it; that took most of the time.
ConfigStore.__deepcopy__ = lambda self, memo: self  # pyright: ignore[reportAttributeAccessIssue]


def hydra_main(config: str) -> Callable[[Callable[[DictConfig], T]], Callable[..., T | None]]:
    """`hydra.main` for a configuration in `conf`; a user's mistake is printed as one line, with exit code 2.

    A run that is stopped prints how to resume it, and exits with the code of its signal. Empty folders of refused runs
    and sweeps are removed. With HYDRA_FULL_ERROR=1 exceptions keep their tracebacks.
    """

    def decorate(main: Callable[[DictConfig], T]) -> Callable[..., T | None]:
        @functools.wraps(main)
        def task(given: DictConfig) -> T:
            try:
                cfg = renamed(given, config)
                check_parts(cfg)
                check_complete(cfg)
                return main(cfg)
            except (SystemExit, KeyboardInterrupt) as stop:
                drop_empty_run(given)
                raise SystemExit(exit_code_of_stop(stop, given)) from None
            except Exception as error:
                stop = to_exit(error, config, given)
                drop_empty_run(given)
                raise stop from None
            finally:
                release_all()

        configured = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config)(task)

        @functools.wraps(main)
        def run(*given: DictConfig) -> T | None:
            # Hydra raises its errors instead of printing them, here and in processes that it starts.
            if not wants_tracebacks():
                os.environ |= {ONE_LINE: "1", "HYDRA_FULL_ERROR": "1"}
                # Hydra also logs errors of targets that it raises.
                logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)
            try:
                sys.argv[1:] = current_overrides(config, sys.argv[1:])
                if not given:
                    check_flags(config)
                if not given and (text := help_asked(config)):
                    print(text)
                    return None
                return configured(*given)
            except (Exception, SystemExit) as error:
                if jobs := sys.modules.get("dolglab.sweeps.jobs"):
                    jobs.drop_refused_sweep()
                raise error if isinstance(error, SystemExit) else to_exit(error, config) from None

        return run

    return decorate


def exit_code_of_stop(stop: SystemExit | KeyboardInterrupt, cfg: DictConfig) -> int | str | None:
    """The exit code of a run that was stopped; prints how to resume it.

    Lightning turns SIGTERM into a SystemExit without a code, and an interrupt into one with code 1.
    """
    interrupted = isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt)
    if isinstance(stop, SystemExit) and stop.code is not None and not interrupted:
        return stop.code
    if not main_process():
        # With another code, the process that started this one would be killed before it prints its message.
        return 0
    run = OmegaConf.select(cfg, "output_dir")
    begun = run is not None and (Path(run) / LAST).exists()
    how = f"; to resume: dolglab train resume=true name={cfg.name}" if begun else ""
    if run is not None and (in_sweep() or "search" in cfg):
        how = f"; the same command with name={cfg.name} resumes it"
    elif "resume" not in cfg:
        # A preparation, or an evaluation, whose descriptors so far are kept.
        how = "; the same command resumes it"
    print(f"stopped{how}", file=sys.stderr)
    return 130 if interrupted else 143


def configure_process() -> None:
    """Settings of a run's process; call it before torch is imported.

    Idle OpenMP threads sleep instead of spinning: beside loader workers, or on a shared machine, spinning makes
    training on CPUs several times slower. Lightning's tips and known harmless warnings are suppressed.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message)


def as_plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain, resolved containers."""
    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))


def renamed(cfg: DictConfig, command: str) -> DictConfig:
    """The configuration with keys and targets of earlier versions, as in a user's own YAML, renamed to current ones."""
    plain = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False))
    found = cast("DictConfig", OmegaConf.create(with_current_targets(with_current_keys(command, plain))))
    OmegaConf.set_struct(found, OmegaConf.is_struct(cfg))
    return found


def check_parts(cfg: DictConfig) -> None:
    """Raise UserError for a part of a network given within `model`: its choices are groups at the root."""
    for part in PARTS:
        given = (cfg.get("model") or {}).get(part)
        if isinstance(given, str):
            raise UserError(f"model.{part}={given}: {part} is a group at the root, so write {part}={given}")


def check_complete(cfg: DictConfig) -> None:
    """Raise UserError for missing required values, with their meanings."""
    missing = sorted(OmegaConf.missing_keys(cfg))
    if wants_weights(cfg):
        missing.append("weights")
    if not missing:
        return
    choices = {key: chosen(key.partition(".")[0]) for key in missing}
    # The same option can mean different things in different choices.
    meant = {key: option_text(key, choice) if choice else WANTED.get(key, "") for key, choice in choices.items()}
    keys = " and ".join(f"{key}=..." + (f" ({text})" if text else "") for key, text in meant.items())
    there = checkpoints_there() if "weights" in missing else ""
    raise UserError(f"{keys} {'is' if len(missing) == 1 else 'are'} needed{there}")


def wants_weights(cfg: DictConfig) -> bool:
    """Whether a training needs the network of a checkpoint that is not given."""
    return cfg.get("weights", "") is None and (cfg.get("model") or {}).get("_target_") == FROM_CHECKPOINT


def checkpoints_there() -> str:
    """For a message about a missing checkpoint: the newest checkpoints of the runs in outputs/."""
    found = sorted(
        Path("outputs").glob("**/checkpoints/best.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    return f"; there is {truncate_list([shlex.quote(str(path)) for path in found])}" if found else ""


def claim_run(run: Path, name: str, resume: bool | str = False) -> Path:
    """The run's folder. Raises UserError if it holds another run or nothing to resume, and for an invalid name.

    A folder without a checkpoint or a card, whose run was refused, holds no run.
    """
    if started_apart() and not named():
        raise UserError("the processes of torchrun or srun must use the same folder: set name=...")
    if not name.strip() or ".." in Path(name).parts:
        raise UserError(f"name={name} is not a valid run name: it must not be empty or contain '..'")
    if resume not in (True, False, "auto"):
        raise UserError(f"resume must be true, false or auto, not {resume}")
    # When resuming, the run's earlier process may still be ending.
    if main_process() and not acquire(run / LOCK, PATIENCE if resume else 0):
        raise UserError(f"another process is training in {run}: choose another name=..., or stop it first")
    if resume:
        if resume is True and not (run / CONFIG).exists():
            raise UserError(f"there is no run to resume in {run}: check name=..., or leave out resume=true")
    elif any((run / file).exists() for file in (LAST, CARD)):
        raise UserError(f"{run} already holds a run: choose another name=..., or continue a training with resume=true")
    return run


def in_sweep() -> bool:
    """Whether this process runs a job of a Hydra multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def chosen(group: str) -> str | None:
    """The choice of a group, if the command was started by Hydra and not called as a function."""
    return HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None


def drop_empty_run(cfg: DictConfig) -> None:
    """Remove the empty folder of a refused run; Hydra makes it before anything is checked."""
    with contextlib.suppress(Exception):
        run = Path(cfg.output_dir)
        if is_held(run / LOCK) and [path.name for path in run.iterdir()] == [LOCK]:
            (run / LOCK).unlink()
        remove_empty(run)


def record_run(run: Path, cfg: DictConfig) -> None:
    """Write the resolved configuration and its overrides to the run's folder."""
    if not main_process():
        return
    write_text(run / OVERRIDES, OmegaConf.to_yaml(OmegaConf.create(_all_overrides(run))))
    write_text(run / CONFIG, OmegaConf.to_yaml(cfg, resolve=True))


def resumed_config(cfg: DictConfig) -> DictConfig:
    """When resuming, the configuration of the run's own overrides with the current ones on top; otherwise `cfg`."""
    if not cfg.resume or not HydraConfig.initialized():
        return cfg
    if not (Path(cfg.output_dir) / OVERRIDES).exists():
        return cfg
    resumed = compose_config("train", _all_overrides(Path(cfg.output_dir)))
    for key in ("name", "output_dir", "resume"):
        OmegaConf.update(resumed, key, cfg[key])
    return resumed


def resume_point(run: Path) -> Path | None:
    """The checkpoint to resume from; None if there is none."""
    from dolglab.training.checkpointing import last_readable

    last = last_readable((run / LAST).parent)
    if last is None and (run / CONFIG).exists() and main_process():
        print(f"no checkpoint in {run} yet: training starts from the beginning")
    return last


def named() -> bool:
    """Whether the run's folder is named by the user, not by date and time."""
    if not HydraConfig.initialized():
        return True
    given = HydraConfig.get().overrides
    return any(_key(override) in ("name", "hydra.run.dir", "output_dir") for override in (*given.task, *given.hydra))


def _all_overrides(run: Path) -> list[str]:
    """The overrides of the run's start, of earlier resumptions and of now; the last of each key."""
    task = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    given = [override for override in task if _key(override) not in ("resume", "name")]
    kept = run / OVERRIDES
    before = map(str, OmegaConf.load(kept)) if kept.exists() else ()
    names = {_key(override) for override in given}
    return [*(override for override in before if _key(override) not in names), *given]


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~").split("@")[0]
