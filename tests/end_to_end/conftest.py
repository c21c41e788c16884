"""A small world and a network trained on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dolglab.commands.train import main as train
from dolglab.demo_world.write import write_world
from end_to_end.runs import NARROW, SMALL, config


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(
        tmp_path_factory.mktemp("world") / "demo",
        train_families=2,
        validation_families=1,
        test_families=1,
        siblings=2,
        train_views=6,
        gallery_views=9,
        validation_distractors=2,
        test_distractors=3,
        width=128,
        height=96,
        workers=1,
    )


@pytest.fixture(scope="session")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    run = tmp_path_factory.mktemp("runs") / "dolg"
    overrides = [f"output_dir={run}", "name=dolg", "data=demo", f"data.root={world}", *SMALL, *NARROW]
    score = train(config("train", *overrides, "model@baseline=imagenet_gem"))
    assert score is not None
    return run, score
