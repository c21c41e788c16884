"""Prepare data: `dolglab prepare task=demo_world`."""

from __future__ import annotations

import signal
import sys

from omegaconf import DictConfig

from dolglab.commands.config_reference import config_folder
from dolglab.commands.hydra_cli import configure_process, hydra_main
from dolglab.errors import UserError


@hydra_main("prepare")
def main(cfg: DictConfig) -> None:
    """Run the task's call. Raises UserError without a task."""
    if "call" not in cfg:
        tasks = ", ".join(sorted(path.stem for path in (config_folder() / "task").glob("*.yaml")))
        raise UserError(f"choose a task with task=NAME: {tasks}; --help describes them")
    configure_process()
    from hydra.utils import instantiate

    # SIGTERM ends a preparation in an orderly way, like an interrupt.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    instantiate(cfg.call)


if __name__ == "__main__":
    main()
