"""Hydra's side of a sweep: what differs between its jobs, each of which is a training in a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from src.files import write_text
from src.processes import note_starter, started_apart
from src.sweeps.names import job_folder

# Written before the first job, which may start on another machine: the keys that differ, and what was asked for.
SWEEP = "sweep.json"
# What a run's place follows from, which its job gets anew.
OWN = ("name", "group", "resume")


def sweep_job(cfg: DictConfig) -> float | None:
    """Run this process's job (see `run_job`); returns its best validation mAP, which a sweeper may go by."""
    from src.sweeps.job import run_job

    hydra = HydraConfig.get()
    sweep = Path(hydra.sweep.dir)
    given = dict(_parts(override) for override in hydra.overrides.task)
    swept = {key: given[key] for key in json.loads((sweep / SWEEP).read_text())["swept"] if key in given}
    folder = job_folder(int(hydra.job.num), swept)
    overrides = [override for override in hydra.overrides.task if _parts(override)[0] not in OWN]
    return run_job(sweep / folder, f"{cfg.name}/{folder}", str(cfg.name), overrides, swept).score


class SweepReport(Callback):
    """Notes what a sweep varies before its first job, and draws the comparison after its last."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write `sweep.json`; end with a line on a sweep that several processes would run, or that is another one."""
        if started_apart():
            refuse("start a sweep once, without torchrun or srun: its jobs start their own processes")
        note_starter()
        given = [override for override in map(str, config.hydra.overrides.task) if _parts(override)[0] not in OWN]
        parsed = OverridesParser.create().parse_overrides(given)
        about = {
            "swept": [override.get_key_element() for override in parsed if override.is_sweep_override()],
            "overrides": given,
        }
        path = Path(config.hydra.sweep.dir) / SWEEP
        if path.exists() and (before := json.loads(path.read_text())) != about:
            refuse(f"{path.parent} holds another sweep ({' '.join(before['overrides'])}): choose another name=...")
        write_text(path, json.dumps(about, indent=1) + "\n")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Draw `comparison.svg` where there is anything to compare, and say where the table is."""
        # A run that is no sweep does without what draws.
        from src.sweeps.chart import write_comparison
        from src.sweeps.table import read_jobs, write_table

        sweep = Path(config.hydra.sweep.dir)
        jobs = read_jobs(sweep)
        failed = sum(job.status != "done" for job in jobs)
        write_comparison(jobs, sweep)
        # Of two jobs that ended together, either may have written the table without the other.
        print(f"{len(jobs)} jobs, {failed} failed: {write_table(sweep)}")


def refuse(mistake: str) -> NoReturn:
    """End before the first job: of an exception, Hydra makes a warning."""
    print("error:", mistake, file=sys.stderr)
    raise SystemExit(2)


def _parts(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key, value
