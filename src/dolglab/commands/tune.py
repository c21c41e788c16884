"""Search for settings: `dolglab tune name=margins search=margin_gem trials=20 -- experiment=demo`.

Options behind `--` are passed to the `dolglab train` of every trial.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from omegaconf import DictConfig

from dolglab.commands.cli_errors import compose_config
from dolglab.commands.hydra_cli import as_plain, configure_process, hydra_main


@hydra_main("tune")
def main(cfg: DictConfig) -> float:
    """Run trials until there are enough, then print the best one; returns its validation mAP."""
    configure_process()
    from pathlib import Path

    from hydra.utils import instantiate

    from dolglab.data.sources import checked_seed
    from dolglab.sweeps.jobs import override
    from dolglab.sweeps.study import SharedStudy, read_space, run_search

    train = list(map(str, cfg.train))
    space = read_space(as_plain(cfg.search))
    # Invalid options are refused before the first trial.
    compose_config("train", [*train, *(override(part.key, part.example()) for part in space)])
    study = SharedStudy(
        Path(cfg.output_dir), space, train, instantiate(cfg.sampler), instantiate(cfg.pruner), checked_seed(cfg.seed)
    )
    return run_search(study, cfg.trials)


def with_train(arguments: Sequence[str]) -> list[str]:
    """The command line of a search for Hydra, with the options behind `--` as the list `train`.

    >>> with_train(["tune", "trials=3", "--", "experiment=demo"])
    ['tune', 'trials=3', 'train=["experiment=demo"]']
    """
    if "--" not in arguments:
        return list(arguments)
    from dolglab.sweeps.jobs import quoted

    place = list(arguments).index("--")
    return [*arguments[:place], f"train=[{','.join(map(quoted, arguments[place + 1 :]))}]"]


if __name__ == "__main__":
    sys.argv = with_train(sys.argv)
    main()
