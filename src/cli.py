"""What the Hydra entry points share: one-line errors, and a process that is quiet and says who it is."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import hydra
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.errors import InputError
from src.locks import release_all
from src.processes import PEER_GONE, main_process, peer_is_gone
from src.run_folder import LAST, drop_empty_run

P = ParamSpec("P")
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


# Marks an environment in which this module asked Hydra for whole errors, to shorten them itself.
ONE_LINE = "DOLG_ONE_LINE_ERRORS"
# What Hydra says of GROUP=null.
NO_OPTION = "Config group override must be a string or a list"
# What a person's machine is in the way with.
REFUSED_BY_SYSTEM = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR)


def hydra_main(config: str) -> Callable[[Callable[[DictConfig], T]], Callable[..., T]]:
    """`hydra.main` over a configuration of `conf`, whose own errors are one line too (see `one_line_errors`)."""

    def decorate(main: Callable[[DictConfig], T]) -> Callable[..., T]:
        task = hydra.main(version_base="1.3", config_path="../conf", config_name=config)(one_line_errors(main))

        @functools.wraps(main)
        def run(*given: DictConfig) -> T:
            if not _whole_errors():
                os.environ |= {ONE_LINE: "1", "HYDRA_FULL_ERROR": "1"}
            try:
                return task(*given)
            except Exception as error:
                raise _exit_of(error) from None

        return run

    return decorate


def one_line_errors(main: Callable[P, T]) -> Callable[P, T]:
    """`main` with a person's mistake, wherever it was raised from, printed as one line; exit code 2.

    A run that is stopped from outside says how it goes on, and ends with the code of its signal. With
    HYDRA_FULL_ERROR=1 exceptions keep their tracebacks.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            _check_given(cast("DictConfig", args[0]))
            return main(*args, **kwargs)
        except (SystemExit, KeyboardInterrupt) as stop:
            _drop_empty(args[0])
            raise SystemExit(_stopped(stop, cast("DictConfig", args[0]))) from None
        except Exception as error:
            stop = _exit_of(error)
            _drop_empty(args[0])
            raise stop from None
        finally:
            release_all()

    return wrapped


def settle_process() -> None:
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


def in_sweep() -> bool:
    """Whether this process is to run a job of a Hydra multirun."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _drop_empty(cfg: Any) -> None:
    with contextlib.suppress(Exception):
        drop_empty_run(Path(cfg.output_dir))


def _check_given(cfg: DictConfig) -> None:
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise InputError(f"{missing[0]}=... is needed")


def _exit_of(error: Exception) -> SystemExit:
    """Print a mistake; the end of the process. Raises `error` itself where it is none, or whole errors are wanted."""
    mistake = _mistake(error)
    if mistake is None or _whole_errors():
        raise error
    print("error:", mistake, file=sys.stderr)
    return SystemExit(2)


def _whole_errors() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1" and ONE_LINE not in os.environ


def _mistake(error: Exception) -> Exception | None:
    """The mistake behind `error`: Hydra wraps what a constructor raised in an exception of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    if isinstance(cause, InputError):
        return cause
    if peer_is_gone(error):
        return InputError(f"{PEER_GONE}: what it said stands above; resume=true goes on")
    if isinstance(error, InstantiationException):
        key = re.search(r"full_key: (\S+)", str(error))
        return InputError(f"{key[1] if key else 'the configuration'}: {_one_line(error.__cause__ or error)}")
    if isinstance(error, ValueError) and str(error).startswith(NO_OPTION):
        return InputError("a config group cannot be null: leave that override out, or take the group out with ~GROUP")
    if isinstance(error, OSError) and error.errno in REFUSED_BY_SYSTEM:
        return InputError(f"{error.filename or 'a file'}: {error.strerror}")
    return InputError(_one_line(error)) if isinstance(error, OmegaConfBaseException | HydraException) else None


def _one_line(error: BaseException) -> str:
    """What it says, without the places where Hydra looked."""
    return " ".join(str(error).partition("Config search path")[0].split()) or type(error).__name__


def _stopped(stop: SystemExit | KeyboardInterrupt, cfg: DictConfig) -> int | str | None:
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
    on = f": python -m src.train resume=true name={cfg.name} goes on" if begun else ""
    if run is None:
        on = ": the same command does what is left"
    elif in_sweep() or "search" in cfg:
        on = f": the same command with name={cfg.name} goes on"
    print(f"stopped{on}", file=sys.stderr)
    return 130 if interrupted else 143
