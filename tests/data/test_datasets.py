from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from dolglab.contracts import Batch, Benchmark, GroundTruth, TrainingSet
from dolglab.data.augment import NUM_DRAWS
from dolglab.data.crops import CropRange
from dolglab.data.datasets import MAX_REPLACEMENTS, BenchmarkImages, TrainingImages, sample_rng
from dolglab.data.image_reading import decode, decode_crop
from dolglab.data.sources import FolderSource
from dolglab.errors import UserError
from dolglab.measures import RevisitedMeasure

Encode = Callable[..., bytes]
Photo = Callable[..., NDArray[np.uint8]]

SIZE = 24


def crops(training: TrainingSet, seed: int = 0) -> TrainingImages:
    return TrainingImages(training, SIZE, CropRange(), seed)


def same(first: Batch, second: Batch) -> bool:
    return (
        torch.equal(first.images, second.images)
        and torch.equal(first.labels, second.labels)
        and torch.equal(first.draws, second.draws)
        and first.ids.tolist() == second.ids.tolist()
        and first.bad == second.bad
    )


def spoil(training: TrainingSet, *positions: int) -> None:
    assert isinstance(training.source, FolderSource)
    for position in positions:
        (training.source.root / training.source.name(position)).write_bytes(b"no image")


def test_a_batch_equals_the_samples_generator(training_set: TrainingSet) -> None:
    batch = crops(training_set).__getitems__([(3, 5), (3, 0)])
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (2, SIZE, SIZE, 3)
    assert batch.labels.tolist() == [2, 0]
    assert batch.ids.tolist() == training_set.ids[[5, 0]].tolist()
    assert batch.bad == ()
    for row, position in enumerate((5, 0)):
        rng = sample_rng(0, 3, int(training_set.ids[position]))
        assert batch.draws[row].tolist() == rng.random(NUM_DRAWS, np.float32).tolist()
        expected = decode_crop(training_set.source.read(position), CropRange(), SIZE, rng)
        np.testing.assert_array_equal(batch.images[row].numpy(), expected)


def test_epoch_seed_and_sample_each_change_the_crop(training_set: TrainingSet) -> None:
    base = crops(training_set).__getitems__([(0, 5)])
    assert same(base, crops(training_set).__getitems__([(0, 5)]))
    assert not torch.equal(base.images, crops(training_set).__getitems__([(1, 5)]).images)
    assert not torch.equal(base.images, crops(training_set, seed=1).__getitems__([(0, 5)]).images)


def test_crops_do_not_depend_on_batch_workers_or_order(training_set: TrainingSet) -> None:
    spoil(training_set, 4)
    keys = [(2, position) for position in range(12)]
    images = crops(training_set)
    whole = images.__getitems__(keys)
    for workers in (0, 2):
        loader = DataLoader(images, batch_size=5, sampler=keys[::-1], num_workers=workers, collate_fn=lambda b: b)
        rows = {row: (batch, place) for batch, place, row in _rows(list(loader), keys[::-1])}
        for row in range(12):
            batch, place = rows[row]
            assert torch.equal(batch.images[place], whole.images[row])
            assert torch.equal(batch.draws[place], whole.draws[row])
            assert batch.ids[place] == whole.ids[row]
            assert batch.labels[place] == whole.labels[row]


def _rows(batches: list[Batch], keys: list[tuple[int, int]]) -> list[tuple[Batch, int, int]]:
    places = [(batch, place) for batch in batches for place in range(len(batch))]
    return [(batch, place, position) for (batch, place), (_, position) in zip(places, keys, strict=True)]


def test_a_broken_image_is_named_and_replaced_reproducibly(training_set: TrainingSet) -> None:
    spoil(training_set, 2)
    assert isinstance(training_set.source, FolderSource)
    (training_set.source.root / training_set.source.name(7)).unlink()
    images = crops(training_set)
    batch = images.__getitems__([(0, 1), (0, 2), (0, 7)])
    assert [image.name for image in batch.bad if image.name == "photo 2.jpg"]
    assert dict(batch.bad)["photo 2.jpg"] == "not an image"
    assert dict(batch.bad)["photo 7.jpg"] == "No such file or directory"
    position = training_set.ids.tolist().index(int(batch.ids[1]))
    assert position not in (2, 7)
    assert batch.labels[1] == training_set.labels[position]
    assert same(batch, crops(training_set).__getitems__([(0, 1), (0, 2), (0, 7)]))
    alone = images.__getitems__([(0, 2)])
    assert torch.equal(alone.images[0], batch.images[1])
    replacements = {int(images.__getitems__([(epoch, 2)]).ids[0]) for epoch in range(20)}
    assert len(replacements) > 3


def test_a_set_without_a_readable_image_is_refused(training_set: TrainingSet) -> None:
    spoil(training_set, *range(12))
    with pytest.raises(UserError, match=rf"^{MAX_REPLACEMENTS} .*photo \d+\.jpg") as error:
        crops(training_set).__getitems__([(0, 0)])
    assert "\n" not in str(error.value)


@pytest.fixture
def benchmark_images(tmp_path: Path, photo: Photo, encode: Encode) -> Benchmark:
    names = ["gallery 0.jpg", "gallery 1.png", "query ☂.jpg"]
    (tmp_path / names[0]).write_bytes(encode(photo(61, 83, 0)))
    (tmp_path / names[1]).write_bytes(encode(photo(40, 20, 1), "PNG", "RGBA"))
    (tmp_path / names[2]).write_bytes(encode(photo(50, 70, 2)))
    empty = (np.empty(0, np.int64),)
    return Benchmark(
        name="three",
        source=FolderSource(tmp_path, names),
        num_gallery=2,
        queries=np.array([2]),
        boxes=np.array([[3.4, 5.6, 40.6, 30.4]]),
        ground_truth=GroundTruth((np.array([0]),), empty, empty),
        crop="pil",
        digest="",
        measure=RevisitedMeasure(),
    )


def test_benchmarks_give_whole_images_and_cropped_queries(benchmark_images: Benchmark) -> None:
    batch = BenchmarkImages(benchmark_images).__getitems__([2, 0, 1])
    assert batch.positions.tolist() == [2, 0, 1]
    assert batch.skipped.tolist() == []
    whole = [decode(benchmark_images.source.read(row)) for row in range(3)]
    for image, expected in zip(batch.images, (whole[2][6:30, 3:41], whole[0], whole[1]), strict=True):
        np.testing.assert_array_equal(image.numpy(), expected)
    truncated = BenchmarkImages(replace(benchmark_images, crop="trunc")).__getitems__([2])
    np.testing.assert_array_equal(truncated.images[0].numpy(), whole[2][5:30, 3:40])


def test_max_side_applies_after_the_crop(benchmark_images: Benchmark) -> None:
    batch = BenchmarkImages(benchmark_images, max_side=30).__getitems__([0, 1, 2])
    assert [tuple(image.shape) for image in batch.images] == [(22, 30, 3), (30, 15, 3), (19, 30, 3)]


@pytest.mark.parametrize("damage", [b"", b"text", None])
def test_an_unreadable_benchmark_image_is_named(benchmark_images: Benchmark, damage: bytes | None) -> None:
    assert isinstance(benchmark_images.source, FolderSource)
    file = benchmark_images.source.root / "gallery 1.png"
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    with pytest.raises(UserError, match=r"gallery 1\.png.*on_error=skip") as error:
        BenchmarkImages(benchmark_images).__getitems__([0, 1])
    assert "\n" not in str(error.value)
    batch = BenchmarkImages(benchmark_images, skip_bad=True).__getitems__([0, 1, 2])
    assert batch.positions.tolist() == [0, 2]
    assert batch.skipped.tolist() == [1]
    assert [image.name for image in batch.bad] == ["gallery 1.png"]


def test_a_batch_of_unreadable_images_is_empty_under_skip(benchmark_images: Benchmark) -> None:
    assert isinstance(benchmark_images.source, FolderSource)
    (benchmark_images.source.root / "gallery 0.jpg").write_bytes(b"")
    batch = BenchmarkImages(benchmark_images, skip_bad=True).__getitems__([0])
    assert len(batch) == 0
    assert batch.positions.dtype == torch.int64
    assert batch.skipped.tolist() == [0]


def test_a_query_box_outside_its_image_is_named(benchmark_images: Benchmark) -> None:
    outside = replace(benchmark_images, boxes=np.array([[500.0, 500, 600, 600]]))
    with pytest.raises(UserError, match=r"query ☂\.jpg.*500"):
        BenchmarkImages(outside).__getitems__([2])


def test_batches_can_be_moved_to_another_device(training_set: TrainingSet, benchmark_images: Benchmark) -> None:
    batch = crops(training_set).__getitems__([(0, 0), (0, 1)])
    moved = batch.to("meta")
    assert {moved.images.device.type, moved.labels.device.type, moved.draws.device.type} == {"meta"}
    assert moved.ids is batch.ids
    assert same(batch.to("cpu"), batch)
    images = BenchmarkImages(benchmark_images).__getitems__([0, 1])
    moved_images = images.to("meta")
    assert {image.device.type for image in moved_images.images} == {"meta"}
    assert moved_images.positions.device.type == "meta"
