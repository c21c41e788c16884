"""A small trained network, as a checkpoint in its run's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.test_checkpoints import write


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "checkpoints" / "best.ckpt"
    path.parent.mkdir()
    write(path)
    return path
