"""What the Hydra entry points share: one-line errors, and a process that is quiet and says who it is."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.errors import InputError
from src.processes import main_process, peer_is_gone
from src.run_folder import LAST

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
            _drop_empty_folder(args[0])
            raise SystemExit(_stopped(stop, cast("DictConfig", args[0]))) from None
        except Exception as error:
            mistake = _mistake(error)
            if mistake is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            _drop_empty_folder(args[0])
            print("error:", mistake, file=sys.stderr)
            raise SystemExit(2) from None

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


def _drop_empty_folder(cfg: Any) -> None:
    """Hydra makes a run's folder before anything is checked; a refused run leaves none behind."""
    with contextlib.suppress(Exception):
        Path(cfg.output_dir).rmdir()


def _check_given(cfg: DictConfig) -> None:
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise InputError(f"{missing[0]}=... is needed")


def _mistake(error: Exception) -> Exception | None:
    """The mistake behind `error`: Hydra wraps what a constructor raised in an exception of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    if isinstance(cause, InputError):
        return cause
    if peer_is_gone(error):
        return InputError("another process of this run ended: what it said stands above; resume=true goes on")
    if isinstance(error, InstantiationException):
        key = re.search(r"full_key: (\S+)", str(error))
        return InputError(f"{key[1] if key else 'the configuration'}: {_one_line(error.__cause__ or error)}")
    return InputError(_one_line(error)) if isinstance(error, OmegaConfBaseException) else None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


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
    elif in_sweep():
        on = f": the same command with name={cfg.name} goes on"
    print(f"stopped{on}", file=sys.stderr)
    return 130 if interrupted else 143
