"""The table of training images that could not be read, also after a kill."""

from __future__ import annotations

import csv
from pathlib import Path
from unittest.mock import Mock

import pytest
from lightning import LightningModule, Trainer

from dolglab.contracts import BadImage, Batch
from dolglab.training.callbacks import BadImageLog

IMAGES = [BadImage("a.jpg", "zero bytes"), BadImage("caf\udce9, b.jpg", "truncated"), BadImage("c.jpg", "not an image")]


def train(run: Path, *images: BadImage) -> list[list[str]]:
    """The rows of the table after a training that reads these images."""
    log, trainer, module = BadImageLog(run), Mock(spec=Trainer, global_rank=0), Mock(spec=LightningModule)
    log.on_train_start(trainer, module)
    for image in images:
        log.on_train_batch_end(trainer, module, None, Mock(spec=Batch, bad=[image, image]), 0)
    with (run / "bad_images.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


def test_an_image_is_listed_once_even_by_a_resumed_run(tmp_path: Path) -> None:
    assert train(tmp_path, *IMAGES[:2]) == [["name", "reason"], *map(list, IMAGES[:2])]
    assert train(tmp_path, *IMAGES) == [["name", "reason"], *map(list, IMAGES)]


@pytest.mark.parametrize("length", range(0, 60, 3))
def test_a_truncated_row_is_written_again(tmp_path: Path, length: int) -> None:
    train(tmp_path, *IMAGES)
    table = tmp_path / "bad_images.csv"
    whole = table.read_bytes()
    table.write_bytes(whole[:length])
    assert train(tmp_path, *IMAGES) == [["name", "reason"], *map(list, IMAGES)]
    assert table.read_bytes() == whole
