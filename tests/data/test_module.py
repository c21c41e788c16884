from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dolglab.contracts import TrainingSet
from dolglab.data.folder import folder_benchmark
from dolglab.data.module import LandmarkDataModule
from dolglab.data.sources import FolderSource
from dolglab.errors import UserError

Encode = Callable[..., bytes]
Photo = Callable[..., NDArray[np.uint8]]

LOADING: dict[str, Any] = {"image_size": 32, "batch_size": 8, "workers": 0, "eval_batch": 4}


def process(data: LandmarkDataModule, world: int, rank: int, epoch: int = 0) -> LandmarkDataModule:
    """The module in one of several processes, which Lightning would start."""
    device = SimpleNamespace(root_device=torch.device("cpu"))
    progress = SimpleNamespace(current=SimpleNamespace(processed=epoch))
    loop = SimpleNamespace(epoch_progress=progress)
    trainer = SimpleNamespace(world_size=world, global_rank=rank, strategy=device, fit_loop=loop)
    data.trainer = trainer  # pyright: ignore[reportAttributeAccessIssue]
    return data


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_loads_through_workers(photos: Path, workers: int) -> None:
    data = LandmarkDataModule.from_folder(photos, **{**LOADING, "workers": workers})
    assert data.num_classes == 6
    assert len(data.validation) == len(data.test) == 1
    loader = data.train_dataloader()
    assert not loader.pin_memory
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]
        batches = list(loader)
        assert len(batches) == len(loader) == 36 // 8
        assert all(batch.images.shape == (8, 32, 32, 3) for batch in batches)
        assert not any(batch.bad for batch in batches)
    for loaders in (data.val_dataloader(), data.test_dataloader()):
        (loader,) = loaders
        positions = torch.cat([batch.positions for batch in loader])
        assert positions.tolist() == list(range(12))


def test_workers_do_not_change_the_batches(photos: Path) -> None:
    epochs = [
        list(LandmarkDataModule.from_folder(photos, **{**LOADING, "workers": workers}).train_dataloader())
        for workers in (0, 2)
    ]
    for ours, theirs in zip(*epochs, strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert ours.ids.tolist() == theirs.ids.tolist()


def test_processes_share_each_global_batch_and_every_benchmark_image(photos: Path) -> None:
    alone = LandmarkDataModule.from_folder(photos, **LOADING)
    parts = [process(LandmarkDataModule.from_folder(photos, **LOADING), 4, rank) for rank in range(4)]
    for whole, *shares in zip(alone.train_dataloader(), *(part.train_dataloader() for part in parts), strict=True):
        assert [len(share) for share in shares] == [2] * 4
        assert {int(i) for share in shares for i in share.ids} == {int(i) for i in whole.ids}
    positions = [int(position) for part in parts for batch in part.val_dataloader()[0] for position in batch.positions]
    assert sorted(positions) == list(range(12))


def test_a_batch_that_processes_cannot_share_is_refused(photos: Path) -> None:
    data = LandmarkDataModule.from_folder(photos, **LOADING)
    data.check(4)
    with pytest.raises(UserError, match=r"data\.batch_size=8 .*\b3\b"):
        data.check(3)


def test_an_unreadable_validation_image_is_found_in_advance(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    data = LandmarkDataModule.from_folder(tmp_path / "photos", **LOADING)
    source = data.validation[0].source
    (tmp_path / "photos" / source.name(3)).write_bytes(b"")
    with pytest.raises(UserError, match=re.escape(source.name(3))):
        data.check(1)


def test_skipped_unreadable_images_are_named_and_counted_in_advance(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    data = LandmarkDataModule.from_folder(tmp_path / "photos", **LOADING, on_error="skip")
    data.check(1)
    assert "cannot be read" not in capsys.readouterr().out
    for benchmark, count in ((data.validation[0], 2), (data.test[0], 1)):
        for row in range(count):
            (tmp_path / "photos" / benchmark.source.name(row)).write_bytes(b"text")
    data.check(1)
    lines = capsys.readouterr().out.splitlines()
    assert [re.findall(r"\b(\d+) of (\d+)\b", line) for line in lines] == [[("2", "12")], [("1", "12")]]
    for line, benchmark, count in zip(lines, (data.validation[0], data.test[0]), (2, 1), strict=True):
        assert benchmark.name in line
        assert [benchmark.source.name(row) in line for row in range(3)] == [row < count for row in range(3)]


def test_an_entirely_unreadable_set_is_refused_in_advance(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    data = LandmarkDataModule.from_folder(tmp_path / "photos", **LOADING, on_error="skip")
    test = data.test[0]
    for row in range(len(test.source)):
        (tmp_path / "photos" / test.source.name(row)).write_bytes(b"text")
    with pytest.raises(UserError, match=f"{test.name}.*12 of 12"):
        data.check(1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_starts_with_the_order_of_its_epoch(photos: Path, workers: int) -> None:
    """Lightning starts the loader's workers before it tells the sampler the epoch."""
    loading = {**LOADING, "workers": workers}
    unbroken = LandmarkDataModule.from_folder(photos, **loading).train_dataloader()
    unbroken.sampler.set_epoch(2)  # pyright: ignore[reportAttributeAccessIssue]
    resumed = process(LandmarkDataModule.from_folder(photos, **loading), 1, 0, epoch=2).train_dataloader()
    for ours, theirs in zip(resumed, unbroken, strict=True):
        assert torch.equal(ours.images, theirs.images)


def test_a_batch_larger_than_the_set_is_refused(photos: Path) -> None:
    with pytest.raises(UserError, match=r"36 .*37"):
        LandmarkDataModule.from_folder(photos, **{**LOADING, "batch_size": 37})


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 0},
        {"batch_size": 0},
        {"workers": -1},
        {"seed": -1},
        {"eval_batch": 0},
        {"max_side": 0},
        {"on_error": "ignore"},
    ],
)
def test_invalid_sizes_are_refused(photos: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        LandmarkDataModule.from_folder(photos, **{**LOADING, **options})


def test_a_batch_of_one_and_a_1_pixel_image_are_loaded(tmp_path: Path, photo: Photo, encode: Encode) -> None:
    sizes = ((1, 1), (10, 3000), (40, 50))
    for row, (height, width) in enumerate(sizes):
        (tmp_path / f"{row}.jpg").write_bytes(encode(photo(height, width)))
    names = [f"{row}.jpg" for row in range(3)]
    ids = np.arange(3, dtype=np.uint64)
    training = TrainingSet(FolderSource(tmp_path, names), ids, np.zeros(3, np.int64), np.array(["a"]))
    data = LandmarkDataModule(training, [], [], image_size=16, batch_size=1, workers=0)
    assert [batch.images.shape for batch in data.train_dataloader()] == [(1, 16, 16, 3)] * 3


def test_names_with_blanks_unicode_and_emoji_are_loaded(tmp_path: Path, photo: Photo, encode: Encode) -> None:
    for landmark in ("tour eiffel 🗼", "寺 [1]", "a=b, ü"):
        (tmp_path / landmark).mkdir()
        for number in range(6):
            (tmp_path / landmark / f"photo {number} é.jpg").write_bytes(encode(photo(30, 40, number)))
    data = LandmarkDataModule.from_folder(tmp_path, **{**LOADING, "batch_size": 6, "workers": 2})
    assert sorted(label for batch in data.train_dataloader() for label in batch.labels.tolist()) == [0, 0, 1, 1, 2, 2]
    assert sum(len(batch) for batch in data.test_dataloader()[0]) == 6


def test_gldv2_holds_out_images_and_accepts_further_benchmarks(gldv2: Path, photos: Path) -> None:
    further = {"folder": partial(folder_benchmark, photos), "none": None}
    data = LandmarkDataModule.from_gldv2(gldv2, holdout=0.4, validation=further, test=further, **LOADING)
    assert [benchmark.name for benchmark in data.validation] == ["gldv2 held-out 0.4", photos.name]
    assert [benchmark.name for benchmark in data.test] == [photos.name]
    assert data.training is not None
    assert len(data.training) < 30
    assert data.num_classes == 3
    everything = LandmarkDataModule.from_gldv2(gldv2, holdout=0, **LOADING)
    assert everything.training is not None
    assert len(everything.training) == 30
    assert everything.val_dataloader() == []


def test_unreadable_benchmark_images_follow_on_error(tmp_path: Path, photo: Photo, encode: Encode) -> None:
    (tmp_path / "a").mkdir()
    for number in range(3):
        (tmp_path / "a" / f"{number}.jpg").write_bytes(encode(photo(30, 40, number)))
    (tmp_path / "a" / "1.jpg").write_bytes(b"")
    benchmark = folder_benchmark(tmp_path)
    strict = LandmarkDataModule(None, [], [benchmark], workers=0)
    with pytest.raises(UserError, match=r"a/1\.jpg.*zero bytes"):
        list(strict.test_dataloader()[0])
    skipping = LandmarkDataModule(None, [], [benchmark], workers=0, on_error="skip")
    (batch,) = skipping.test_dataloader()[0]
    assert batch.skipped.tolist() == [1]
    assert [tuple(bad) for bad in batch.bad] == [("a/1.jpg", "zero bytes")]


def test_a_worker_names_the_unreadable_image_on_one_line(tmp_path: Path, photo: Photo, encode: Encode) -> None:
    (tmp_path / "a").mkdir()
    for number in range(2):
        (tmp_path / "a" / f"{number}.jpg").write_bytes(b"text")
    data = LandmarkDataModule(None, [], [folder_benchmark(tmp_path)], workers=1)
    with pytest.raises(UserError) as error:
        list(data.test_dataloader()[0])
    assert str(error.value) == "image a/0.jpg cannot be read: not an image (on_error=skip leaves it out)"


def test_without_training_data_there_is_no_training_loader(photos: Path) -> None:
    data = LandmarkDataModule(None, [], [folder_benchmark(photos)], workers=0)
    with pytest.raises(UserError):
        data.train_dataloader()
