"""What the Hydra entry points share: `hydra_main`, and a process that is quiet and says how a stopped run goes on."""

from __future__ import annotations

import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from dolglab.commands.cli_errors import ONE_LINE, config_folder, to_exit, wants_tracebacks
from dolglab.commands.run_folder import LAST, drop_empty_run, in_sweep
from dolglab.errors import UserError
from dolglab.io import release_all
from dolglab.processes import main_process
from dolglab.renamed import with_current_targets

T = TypeVar("T")

# Warnings that say nothing to a person: about Lightning's own code, small sets, frozen layers, a folder that a resumed
# run goes on with, and metrics that every process computes alike.
HARMLESS = (
    ".*LeafSpec.*",
    ".*does not have many workers.*",
    ".*in eval mode at the start of training.*",
    ".*is smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*recommended to use .*sync_dist=True.*",
)

# Hydra copies this registry, which it only reads, for every group that --help lists: most of the seconds that took.
ConfigStore.__deepcopy__ = lambda self, memo: self  # pyright: ignore[reportAttributeAccessIssue]


def hydra_main(config: str) -> Callable[[Callable[[DictConfig], T]], Callable[..., T]]:
    """`hydra.main` over a configuration of `conf`, with a person's mistakes in one line each; exit code 2.

    A run that is stopped from outside says how it goes on, and ends with the code of its signal. What a refused run or
    sweep has left is removed. With HYDRA_FULL_ERROR=1 exceptions keep their tracebacks.
    """

    def decorate(main: Callable[[DictConfig], T]) -> Callable[..., T]:
        @functools.wraps(main)
        def task(given: DictConfig) -> T:
            try:
                cfg = renamed(given)
                if missing := sorted(OmegaConf.missing_keys(cfg)):
                    raise UserError(f"{missing[0]}=... is needed")
                return main(cfg)
            except (SystemExit, KeyboardInterrupt) as stop:
                drop_empty_run(given)
                raise SystemExit(exit_code_of_stop(stop, given)) from None
            except Exception as error:
                stop = to_exit(error, config)
                drop_empty_run(given)
                raise stop from None
            finally:
                release_all()

        configured = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config)(task)

        @functools.wraps(main)
        def run(*given: DictConfig) -> T:
            # Hydra raises what it would print, here and in processes that it starts.
            if not wants_tracebacks():
                os.environ |= {ONE_LINE: "1", "HYDRA_FULL_ERROR": "1"}
            try:
                return configured(*given)
            except Exception as error:
                if jobs := sys.modules.get("dolglab.sweeps.jobs"):
                    jobs.drop_refused_sweep()
                raise to_exit(error, config) from None

        return run

    return decorate


def exit_code_of_stop(stop: SystemExit | KeyboardInterrupt, cfg: DictConfig) -> int | str | None:
    """The exit code of a run that ended before its end, after a line that says how it goes on.

    Lightning turns SIGTERM into a SystemExit without a code, and an interrupt into one with code 1.
    """
    interrupted = isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt)
    if isinstance(stop, SystemExit) and stop.code is not None and not interrupted:
        return stop.code
    if not main_process():
        # Another code would have the process that started this one killed before it has said what follows.
        return 0
    run = OmegaConf.select(cfg, "output_dir")
    begun = run is not None and (Path(run) / LAST).exists()
    on = f": dolglab train resume=true name={cfg.name} goes on" if begun else ""
    if run is None:
        on = ": the same command does what is left"
    elif in_sweep() or "search" in cfg:
        on = f": the same command with name={cfg.name} goes on"
    print(f"stopped{on}", file=sys.stderr)
    return 130 if interrupted else 143


def configure_process() -> None:
    """What a run wants of its process; called before torch is imported.

    Idle OpenMP threads sleep instead of spinning: beside loader workers, or on a shared machine, spinning makes
    training on CPUs several times slower. Lightning's advertising and known harmless warnings are kept out.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message)


def as_plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain, resolved containers."""
    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))


def renamed(cfg: DictConfig) -> DictConfig:
    """The configuration with targets of earlier versions, such as those in somebody's own YAML, named as today."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    found = cast("DictConfig", OmegaConf.create(with_current_targets(plain)))
    OmegaConf.set_struct(found, OmegaConf.is_struct(cfg))
    return found
