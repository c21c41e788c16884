"""Images of several benchmarks are described once, and only where their bytes and crops are the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import lightning as L
import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from torch import Tensor

from dolglab.contracts import Benchmark, LocalFeatures
from dolglab.data.folder import folder_benchmark
from dolglab.extraction.descriptor_store import DescriptorTarget, FeatureTarget, LocalTarget
from dolglab.extraction.extract import Images, extract
from dolglab.extraction.extractor import Extractor
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import GlobalDescriptor

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*")


class Counting(Extractor):
    """Counts the images that pass through the network."""

    def __init__(self, model: GlobalDescriptor, scales: Sequence[float] = (1.0,)) -> None:
        super().__init__(model, scales)
        self.count = 0

    def together(self, images: Sequence[UInt8[Tensor, "h w 3"]]) -> Tensor:
        self.count += len(images)
        return super().together(images)


class Corner:
    """One local feature per image: its first pixels."""

    needs_network = False
    model = None

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, images: Sequence[UInt8[Tensor, "h w 3"]]) -> list[LocalFeatures]:
        self.count += len(images)
        one = np.zeros((1, 2), np.float32)
        return [
            LocalFeatures(one, one[:, 0], one[:, 0], i[:1, :4, 0].numpy().astype(np.float32), (i.shape[0], i.shape[1]))
            for i in images
        ]

    def config(self) -> dict[str, object]:
        return {"features": "corner"}


@pytest.fixture(scope="module")
def model() -> GlobalDescriptor:
    torch.manual_seed(0)
    return GlobalDescriptor(Backbone("resnet18.tv_in1k", pretrained=False), dim=16).eval()


@pytest.fixture(scope="module")
def first(photos: Path) -> Benchmark:
    return folder_benchmark(photos)


@pytest.fixture(scope="module")
def second(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    """Photos of two landmarks in another folder under other names, and three photos that the first set lacks."""
    root = tmp_path_factory.mktemp("second")
    for landmark in (1, 4):
        (root / f"place {landmark}").mkdir()
        for file in (photos / f"landmark {landmark}").iterdir():
            shutil.copy(file, root / f"place {landmark}" / f"renamed {file.name}")
    for number, file in enumerate(sorted((photos / "landmark 0").iterdir())[:3]):
        # The same number of bytes (those after a JPEG's end are ignored), but different pixels.
        pixels = cv2.imread(str(file))
        assert pixels is not None
        data = cv2.imencode(".jpg", 255 - pixels, [cv2.IMWRITE_JPEG_QUALITY, 50])[1].tobytes()
        (root / "place 1" / f"new {number}.jpg").write_bytes(data.ljust(file.stat().st_size, b"\0"))
    return folder_benchmark(root)


def trainer() -> L.Trainer:
    return L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, devices=1)


def described(target: FeatureTarget, benchmark: Benchmark) -> None:
    assert extract(trainer(), benchmark, target, Images()) == ()
    assert not len(target.missing())


def test_a_second_benchmark_describes_only_what_is_new(
    tmp_path: Path, model: GlobalDescriptor, first: Benchmark, second: Benchmark
) -> None:
    extractor = Counting(model)
    described(DescriptorTarget(tmp_path / "shared", first, extractor, {}), first)
    assert extractor.count == 60
    shared = DescriptorTarget(tmp_path / "shared", second, extractor, {})
    described(shared, second)
    assert extractor.count == 63
    alone = DescriptorTarget(tmp_path / "alone", second, Extractor(model, (1.0,)), {})
    described(alone, second)
    np.testing.assert_allclose(shared.store.descriptors, alone.store.descriptors, atol=1e-6)
    # The time of copied images counts, so that a card of the second set has a time per image.
    assert shared.time_spent()[0] == 23
    # A third set finds in the second folder what was copied from the first.
    shutil.rmtree(DescriptorTarget(tmp_path / "shared", first, extractor, {}).folder)
    third = replace(second, name="third", digest="another ground truth")
    described(DescriptorTarget(tmp_path / "shared", third, extractor, {}), third)
    assert extractor.count == 63


def test_other_scales_or_details_share_nothing(tmp_path: Path, model: GlobalDescriptor, first: Benchmark) -> None:
    other = replace(first, name="other", digest="another ground truth")
    described(DescriptorTarget(tmp_path, first, Extractor(model, (1.0,)), {"max_side": 64}), first)
    for extractor, details in ((Counting(model, (0.5,)), {"max_side": 64}), (Counting(model), {"max_side": None})):
        described(DescriptorTarget(tmp_path, other, extractor, details), other)
        assert extractor.count == 60


def test_a_photo_with_another_crop_is_another_image(tmp_path: Path, model: GlobalDescriptor, first: Benchmark) -> None:
    boxes = np.full((60, 4), np.nan)
    boxes[:5] = (4, 4, 50, 60)
    extractor = Counting(model)
    described(DescriptorTarget(tmp_path, first, extractor, {}), first)
    cropped = replace(first, name="cropped", digest="cropped", boxes=boxes, crop="pil")
    described(DescriptorTarget(tmp_path, cropped, extractor, {}), cropped)
    assert extractor.count == 65
    again = replace(cropped, name="again", digest="again", crop="trunc", boxes=boxes + 0.4)
    described(DescriptorTarget(tmp_path, again, extractor, {}), again)
    assert extractor.count == 70


def test_local_features_are_shared_too(tmp_path: Path, first: Benchmark, second: Benchmark) -> None:
    corner = Corner()
    described(LocalTarget(tmp_path, first, corner, {}), first)
    shared = LocalTarget(tmp_path, second, corner, {})
    described(shared, second)
    assert corner.count == 63
    for position in (0, 7, 22):
        pixels = Images().of(second).__getitems__([position]).images[0]
        np.testing.assert_array_equal(shared.features(position).descriptors, pixels[:1, :4, 0].numpy())


def write_array(path: Path, shape: tuple[int, ...]) -> None:
    np.save(path, np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("images.npy", partial(Path.write_bytes, data=b"x")),
        ("images.npy", partial(write_array, shape=(60,))),
        ("known.npy", partial(write_array, shape=(60,))),
        ("descriptors.npy", Path.unlink),
        ("descriptors.npy", partial(write_array, shape=(60, 3))),
    ],
)
def test_a_damaged_neighbouring_folder_is_skipped(
    name: str, damage: Callable[[Path], object], tmp_path: Path, model: GlobalDescriptor, first: Benchmark
) -> None:
    extractor = Counting(model)
    target = DescriptorTarget(tmp_path, first, extractor, {})
    described(target, first)
    damage(target.folder / name)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "about.json").write_text("{")
    other = replace(first, name="other", digest="another ground truth")
    described(DescriptorTarget(tmp_path, other, extractor, {}), other)
    assert extractor.count == 120
