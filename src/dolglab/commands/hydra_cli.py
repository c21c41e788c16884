"""What the Hydra entry points share: one-line errors, and a process that is quiet and says who it is."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import hydra
from omegaconf import DictConfig, OmegaConf

import dolglab
from dolglab.commands.cli_errors import exit_code_of_stop, let_us_report, to_exit
from dolglab.commands.run_folder import drop_empty_run
from dolglab.errors import UserError
from dolglab.io import release_all
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


def config_folder() -> Path:
    """The folder of configurations: inside an installed package, at the root of a checkout."""
    package = Path(dolglab.__file__).resolve().parent
    return next(folder for folder in (package / "conf", package.parents[1] / "conf") if folder.is_dir())


def hydra_main(config: str) -> Callable[[Callable[[DictConfig], T]], Callable[..., T]]:
    """`hydra.main` over a configuration of `conf`, whose own errors are one line too (see `one_line_errors`)."""

    def decorate(main: Callable[[DictConfig], T]) -> Callable[..., T]:
        configured = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config)
        task = configured(report_user_errors(main))

        @functools.wraps(main)
        def run(*given: DictConfig) -> T:
            let_us_report()
            try:
                return task(*given)
            except Exception as error:
                raise to_exit(error) from None

        return run

    return decorate


def report_user_errors(main: Callable[[DictConfig], T]) -> Callable[[DictConfig], T]:
    """`main` with a person's mistake, wherever it was raised from, printed as one line; exit code 2.

    A run that is stopped from outside says how it goes on, and ends with the code of its signal. With
    HYDRA_FULL_ERROR=1 exceptions keep their tracebacks.
    """

    @functools.wraps(main)
    def wrapped(given: DictConfig) -> T:
        try:
            cfg = renamed(given)
            _check_given(cfg)
            return main(cfg)
        except (SystemExit, KeyboardInterrupt) as stop:
            _drop_empty(given)
            raise SystemExit(exit_code_of_stop(stop, given)) from None
        except Exception as error:
            stop = to_exit(error)
            _drop_empty(given)
            raise stop from None
        finally:
            release_all()

    return wrapped


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


def _drop_empty(cfg: Any) -> None:
    with contextlib.suppress(Exception):
        drop_empty_run(Path(cfg.output_dir))


def _check_given(cfg: DictConfig) -> None:
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise UserError(f"{missing[0]}=... is needed")
