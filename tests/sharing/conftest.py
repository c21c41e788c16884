"""A small trained network, as a checkpoint in its run's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dolglab.sharing.export import export
from training.test_checkpoints import write


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "checkpoints" / "best.ckpt"
    path.parent.mkdir()
    write(path)
    return path


@pytest.fixture(scope="session")
def folder(checkpoint: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported DOLG (ResNet-18, ASPP, concatenated) with both ONNX files."""
    out = tmp_path_factory.mktemp("shared") / "model"
    return export(str(out), checkpoint=str(checkpoint), onnx=True, int8=True, calibrate=str(photos))
