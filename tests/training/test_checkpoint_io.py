"""Checkpoints on full disks, and damaged files."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest
import torch

from dolglab.errors import UserError
from dolglab.models.checkpoint import RUN_KEY, describe_run
from dolglab.training.checkpointing import AtomicCheckpointIO, last_readable

CONFIG = {"model": {"backbone": {"name": "resnet18"}}}


def write(path: Path, epoch: int) -> None:
    run = describe_run(CONFIG, ["a"], {"validation": {"v": "0"}})
    AtomicCheckpointIO().save_checkpoint({"epoch": epoch, "weights": torch.ones(5000) * epoch, RUN_KEY: run}, path)


def epoch_of(path: Path | None) -> int:
    assert path is not None
    return torch.load(path, weights_only=True)["epoch"]


def test_a_full_disk_keeps_the_previous_checkpoint_and_is_reported(tmp_path):
    path = tmp_path / "last.ckpt"
    write(path, 1)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"last\.ckpt .*the one before is kept"):
            write(path, 2)
        with pytest.raises(UserError, match=r"best\.ckpt"):
            write(tmp_path / "best.ckpt", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert epoch_of(path) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_damaged_last_checkpoint_is_replaced_by_the_previous_one(tmp_path, capsys):
    assert last_readable(tmp_path) is None
    write(tmp_path / "last.ckpt", 1)
    assert epoch_of(last_readable(tmp_path)) == 1
    write(tmp_path / "last.ckpt", 2)
    assert epoch_of(last_readable(tmp_path)) == 2
    data = (tmp_path / "last.ckpt").read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    for damaged in (data[:-100], data[:100], b"", flipped):
        (tmp_path / "last.ckpt").write_bytes(damaged)
        capsys.readouterr()
        assert epoch_of(last_readable(tmp_path)) == 1
        assert "previous.ckpt" in capsys.readouterr().out
    (tmp_path / "last.ckpt").unlink()
    assert epoch_of(last_readable(tmp_path)) == 1


def test_only_the_last_checkpoint_has_a_previous_one(tmp_path):
    for epoch in (1, 2):
        write(tmp_path / "best.ckpt", epoch)
    assert [file.name for file in tmp_path.iterdir()] == ["best.ckpt"]
