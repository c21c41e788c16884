"""Packed images from an object store, chunk by chunk."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from dolglab.contracts import TrainingSet
from dolglab.data.archive_source import StreamedSource
from dolglab.data.datasets import EpochSampler
from dolglab.data.gldv2 import load_gldv2
from dolglab.data.module import LandmarkDataModule
from dolglab.data.preparation.pack import pack_gldv2
from dolglab.errors import UserError

URL = "memory://bucket/packed/train"


@pytest.fixture
def stored(gldv2: Path) -> Iterator[Path]:
    """The images of the small data set, packed in chunks of four, in memory only."""
    folder = pack_gldv2(gldv2, workers=1, chunk_size=4)
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/bucket/packed/train", recursive=True)
    yield gldv2
    store.rm("/bucket", recursive=True)


def streamed(root: Path, **options: float) -> tuple[TrainingSet, StreamedSource]:
    training = load_gldv2(root, packed_url=URL, **options)
    assert isinstance(training.source, StreamedSource)
    return training, training.source


def test_images_and_ids_equal_those_on_disk(stored: Path) -> None:
    training, source = streamed(stored)
    local = load_gldv2(stored, kind="packed")
    assert training.ids.tolist() == local.ids.tolist()
    copied = pickle.loads(pickle.dumps(source))
    for row in (29, 0, 13):
        assert source.read(row) == copied.read(row) == local.source.read(row)
        assert source.name(row) == local.source.name(row)
    assert source.groups.tolist() == [row // 4 for row in range(30)]
    assert source.take(np.array([9, 2])).groups.tolist() == [2, 0]


def test_chunks_are_downloaded_once_and_old_ones_deleted(stored: Path) -> None:
    _, source = streamed(stored)
    source.read(0)
    (chunk,) = source.folder.glob("*.bin")
    size = chunk.stat().st_size
    fsspec.filesystem("memory").rm(f"/bucket/packed/train/{chunk.name}")
    assert source.read(1)
    _, narrow = streamed(stored, cache_gb=2.5 * size / 1e9)
    for row in (4, 8, 12, 16):
        narrow.read(row)
    assert 1 <= len(list(source.folder.glob("*.bin"))) <= 3
    with pytest.raises(OSError, match=r"chunk-00000"):
        narrow.read(0)


def test_an_epoch_is_drawn_window_by_window() -> None:
    groups = np.arange(40) // 5
    orders = [[row for _, row in EpochSampler(40, 3, epoch=epoch, groups=groups, window=2)] for epoch in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(40))
    for start in range(0, 40, 10):
        assert len({int(groups[row]) for row in orders[0][start : start + 10]}) == 2
    assert orders[0][:10] != sorted(orders[0][:10])
    shares = [[row for _, row in EpochSampler(40, 3, rank, 2, groups=groups, window=2)] for rank in range(2)]
    assert [row for pair in zip(*shares, strict=True) for row in pair] == orders[0]


def test_training_batches_come_from_the_store(stored: Path) -> None:
    options = {"packed_url": URL, "batch_size": 8, "image_size": 16, "workers": 0}
    data = LandmarkDataModule.from_gldv2(stored, holdout=0, **options)
    ids = [int(sample) for batch in data.train_dataloader() for sample in batch.ids]
    assert len(set(ids)) == len(ids) == 24
    for refused in ({"holdout": 0.2}, {"holdout": 0, "sampling": "balanced"}):
        with pytest.raises(UserError, match=r"data\.packed_url.*data\.holdout=0"):
            LandmarkDataModule.from_gldv2(stored, **options, **refused)


@pytest.mark.parametrize("url", ["memory://nothing/here", "nonsense://bucket", "/not/there"])
def test_an_address_without_packed_images_is_reported(gldv2: Path, url: str) -> None:
    with pytest.raises(UserError, match=re.escape(url)):
        load_gldv2(gldv2, packed_url=url)
