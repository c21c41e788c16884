"""What the Hydra entry points share: one-line errors, run folders, and continuing a run."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.errors import InputError
from src.training.together import peer_is_gone

P = ParamSpec("P")
T = TypeVar("T")

CONFIG, OVERRIDES, LAST, CARD = "config.yaml", "overrides.yaml", "checkpoints/last.ckpt", "card.json"


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


def claim_run(cfg: DictConfig) -> Path:
    """The run's folder. Raises InputError when it holds another run, or nothing to resume, or for a bad name.

    A folder in which nothing was trained or evaluated, since its run was refused, holds no run.
    """
    run = Path(cfg.output_dir)
    if not main_process():
        return run
    if not str(cfg.name).strip() or ".." in Path(str(cfg.name)).parts:
        raise InputError(f"name={cfg.name} is no name for a run: it must not be empty, nor hold '..'")
    if cfg.get("resume"):
        if not (run / CONFIG).exists():
            raise InputError(f"there is no run to resume in {run}: check name=..., or leave resume=true out")
    elif any((run / file).exists() for file in (LAST, CARD)):
        raise InputError(f"{run} already holds a run: choose another name=..., or resume=true where it was training")
    return run


def record_run(run: Path, cfg: DictConfig) -> None:
    """Keep the resolved configuration, and the overrides that made it, in the run's folder."""
    if not main_process():
        return
    run.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(_all_overrides(run)), run / OVERRIDES)
    OmegaConf.save(cfg, run / CONFIG, resolve=True)


def resumed_config(cfg: DictConfig) -> DictConfig:
    """When resuming, the run's own overrides with those given now on top; otherwise `cfg`."""
    from hydra import compose
    from hydra.core.hydra_config import HydraConfig

    if not cfg.resume or not HydraConfig.initialized():
        return cfg
    if not (Path(cfg.output_dir) / OVERRIDES).exists():
        return cfg
    resumed = compose("train", overrides=_all_overrides(Path(cfg.output_dir)))
    for key in ("name", "output_dir", "resume"):
        OmegaConf.update(resumed, key, cfg[key])
    return resumed


def resume_point(cfg: DictConfig) -> Path | None:
    """The checkpoint to continue from; None starts at the beginning."""
    if not cfg.resume:
        return None
    from src.training.checkpoint_io import last_sound

    last = last_sound((Path(cfg.output_dir) / LAST).parent)
    if last is None:
        print(f"no checkpoint in {cfg.output_dir} yet: training starts at the beginning")
    return last


def tell(changed: Sequence[str]) -> None:
    """Say what a resumed run does otherwise than before."""
    if changed and main_process():
        print("resumed with other settings:", "; ".join(changed))


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


def _own_overrides() -> list[str]:
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    return [override for override in HydraConfig.get().overrides.task if _key(override) not in ("resume", "name")]


def _all_overrides(run: Path) -> list[str]:
    """What the run was started with, what it was resumed with, and what is given now; the last of each name."""
    given = _own_overrides()
    kept = run / OVERRIDES
    before = map(str, OmegaConf.load(kept)) if kept.exists() else ()
    names = {_key(override) for override in given}
    return [*(override for override in before if _key(override) not in names), *given]


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~").split("@")[0]


def in_sweep() -> bool:
    """Whether this process is to run a job of a Hydra multirun."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def main_process() -> bool:
    """Whether this is the process that writes: Lightning, torchrun and Slurm number them all from 0."""
    # Loading Lightning to ask it takes seconds, which a command that does without it would spend on stopping.
    lightning = sys.modules.get("lightning.fabric.utilities.rank_zero")
    given = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    rank = lightning.rank_zero_only.rank if lightning else int(next(filter(None, given), 0))
    return rank == 0 and os.environ.get("NODE_RANK", "0") == "0"


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
