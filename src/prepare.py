"""Prepare data: `python -m src.prepare task=demo_world`."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from src.cli import one_line_errors


@hydra.main(version_base="1.3", config_path="../conf", config_name="prepare")
@one_line_errors
def main(cfg: DictConfig) -> None:
    """Run the task's call."""
    from hydra.utils import instantiate

    instantiate(cfg.call)


if __name__ == "__main__":
    main()
