"""What a person is told when a command ends before its end: one line, and an exit code."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path

from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dolglab.commands.run_folder import LAST, in_sweep
from dolglab.errors import UserError, os_error_text
from dolglab.processes import PEER_GONE, main_process, peer_is_gone

# Marks an environment in which this module asked Hydra for whole errors, to shorten them itself.
ONE_LINE = "DOLG_ONE_LINE_ERRORS"
# What Hydra says of GROUP=null.
NO_OPTION = "Config group override must be a string or a list"
# What a person's machine is in the way with.
REFUSED_BY_SYSTEM = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR)


def to_exit(error: Exception) -> SystemExit:
    """Print a mistake; the end of the process. Raises `error` itself where it is none, or whole errors are wanted."""
    mistake = _mistake(error)
    if mistake is None or wants_tracebacks():
        raise error
    print("error:", mistake, file=sys.stderr)
    return SystemExit(2)


def let_us_report() -> None:
    """Have Hydra raise what it would print, in this process and in those it starts, unless whole errors are wanted."""
    if not wants_tracebacks():
        os.environ |= {ONE_LINE: "1", "HYDRA_FULL_ERROR": "1"}


def wants_tracebacks() -> bool:
    """Whether a person asked for tracebacks, by HYDRA_FULL_ERROR=1."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1" and ONE_LINE not in os.environ


def _mistake(error: Exception) -> Exception | None:
    """The mistake behind `error`: Hydra wraps what a constructor raised in an exception of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__
    if isinstance(cause, UserError):
        return cause
    if peer_is_gone(error):
        return UserError(f"{PEER_GONE}: what it said stands above; resume=true goes on")
    if isinstance(error, InstantiationException):
        key = re.search(r"full_key: (\S+)", str(error))
        return UserError(f"{key[1] if key else 'the configuration'}: {_one_line(error.__cause__ or error)}")
    if isinstance(error, ValueError) and str(error).startswith(NO_OPTION):
        return UserError("a config group cannot be null: leave that override out, or take the group out with ~GROUP")
    if isinstance(error, OSError) and error.errno in REFUSED_BY_SYSTEM:
        return UserError(os_error_text(error))
    return UserError(_one_line(error)) if isinstance(error, OmegaConfBaseException | HydraException) else None


def _one_line(error: BaseException) -> str:
    """What it says, without the places where Hydra looked."""
    return " ".join(str(error).partition("Config search path")[0].split()) or type(error).__name__


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
