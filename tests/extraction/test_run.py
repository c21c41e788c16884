"""Descriptors and local features of a whole benchmark, stored on disk and continued."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from dolglab.contracts import Benchmark, LocalFeatures
from dolglab.data.folder import folder_benchmark
from dolglab.errors import UserError
from dolglab.extraction.descriptor_store import DescriptorStore, DescriptorTarget, LocalTarget, fingerprint
from dolglab.extraction.extract import Images, extract
from dolglab.extraction.extractor import Extractor
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import GlobalDescriptor

# Warnings of Lightning itself, and about reading in the main process.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> GlobalDescriptor:
    torch.manual_seed(0)
    return GlobalDescriptor(Backbone("resnet18.tv_in1k", pretrained=False), dim=16).eval()


@pytest.fixture(scope="module")
def benchmark(photos: Path) -> Benchmark:
    return folder_benchmark(photos)


def trainer() -> L.Trainer:
    return L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, devices=1)


def target_of(root: Path, benchmark: Benchmark, model: GlobalDescriptor, **about: object) -> DescriptorTarget:
    return DescriptorTarget(root, benchmark, Extractor(model, (0.5, 1.0)), about)


class Counting(Extractor):
    """Counts the images it describes."""

    def __init__(self, model: GlobalDescriptor) -> None:
        super().__init__(model)
        self.count = 0

    def together(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        self.count += len(images)
        return super().together(images)


def test_descriptors_equal_those_of_single_images(
    tmp_path: Path, benchmark: Benchmark, model: GlobalDescriptor
) -> None:
    made = target_of(tmp_path, benchmark, model)
    assert extract(trainer(), benchmark, made, Images()) == ()
    assert made.store.available.all()
    images = Images().of(benchmark)
    with torch.no_grad():
        for position in (0, 17, 59):
            expected = Extractor(model, (0.5, 1.0))(images.__getitems__([position]).images)
            np.testing.assert_allclose(made.store.descriptors[position], expected[0].numpy(), rtol=1e-3, atol=1e-5)
    count, seconds = made.time_spent()
    assert count == 60
    assert seconds > 0
    about = json.loads((made.folder / "about.json").read_text())
    assert about["scales"] == [0.5, 1.0]
    assert about["digest"] == benchmark.digest


def test_existing_features_are_not_computed_again(
    tmp_path: Path, benchmark: Benchmark, model: GlobalDescriptor
) -> None:
    first = Counting(model)
    part = DescriptorTarget(tmp_path, benchmark, first, {})
    part.create()
    part.store.put(np.arange(50), torch.ones(50, 16))
    extract(trainer(), benchmark, part, Images())
    assert first.count == 10
    assert (part.store.descriptors[:50] == 1).all()
    again = Counting(model)
    extract(trainer(), benchmark, DescriptorTarget(tmp_path, benchmark, again, {}), Images())
    assert again.count == 0


def test_anything_that_changes_the_descriptors_is_another_store(
    tmp_path: Path, benchmark: Benchmark, model: GlobalDescriptor
) -> None:
    torch.manual_seed(1)
    other = GlobalDescriptor(Backbone("resnet18.tv_in1k", pretrained=False), dim=16)
    folders = {
        target_of(tmp_path, benchmark, model).folder,
        target_of(tmp_path, benchmark, other).folder,
        target_of(tmp_path, benchmark, model, max_side=64).folder,
        DescriptorTarget(tmp_path, benchmark, Extractor(model, (0.5, 1.0), "antialias"), {}).folder,
    }
    assert len(folders) == 4
    assert target_of(tmp_path, benchmark, model).folder in folders


def test_the_fingerprint_depends_on_weights_not_on_objects(model: GlobalDescriptor) -> None:
    torch.manual_seed(1)
    copy = GlobalDescriptor(Backbone("resnet18.tv_in1k", pretrained=False), dim=16)
    assert fingerprint(copy) != fingerprint(model)
    copy.load_state_dict(model.state_dict())
    assert fingerprint(copy) == fingerprint(model)


def test_an_unreadable_image_stops_and_earlier_features_are_kept(
    tmp_path: Path, photos: Path, model: GlobalDescriptor
) -> None:
    root = tmp_path / "photos"
    for file in sorted(photos.glob("landmark 0/*.jpg")):
        (root / "a").mkdir(parents=True, exist_ok=True)
        (root / "a" / file.name).write_bytes(file.read_bytes())
    (root / "a" / "05.jpg").write_bytes(b"no image")
    benchmark = folder_benchmark(root)
    made = DescriptorTarget(tmp_path / "store", benchmark, Extractor(model, pixels=1), {})
    with pytest.raises(UserError, match=r"a/05\.jpg"):
        extract(trainer(), benchmark, made, Images(batch=2))
    assert np.flatnonzero(made.store.available).tolist() == [0, 1, 2, 3]
    bad = extract(trainer(), benchmark, made, Images(batch=2, skip_bad=True))
    assert [image.name for image in bad] == ["a/05.jpg"]
    assert made.store.missing().tolist() == [5]


@pytest.fixture
def default_sigterm() -> Iterator[None]:
    """No handler of another test, such as that of `prepare`, which Lightning would call too."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("default_sigterm")
@pytest.mark.parametrize("at", [4, 60])
def test_sigterm_stops_and_earlier_features_are_kept(
    tmp_path: Path, benchmark: Benchmark, model: GlobalDescriptor, at: int
) -> None:
    class Signalled(Counting):
        def together(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
            described = super().together(images)
            if self.count == at:
                signal.raise_signal(signal.SIGTERM)
            return described

    made = DescriptorTarget(tmp_path, benchmark, Signalled(model), {})
    # One image at a time is described, in batches of two that are read.
    made.extractor.pixels = 1
    with pytest.raises(SystemExit):
        extract(trainer(), benchmark, made, Images(batch=2))
    assert np.flatnonzero(made.store.available).tolist() == list(range(at))
    again = Counting(model)
    extract(trainer(), benchmark, DescriptorTarget(tmp_path, benchmark, again, {}), Images())
    assert again.count == 60 - at


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    DescriptorStore.create(tmp_path / "s", 4, 2, {"a": 1})
    with pytest.raises(UserError, match=r"\(4, 2\), not \(5, 2\)"):
        DescriptorStore(tmp_path / "s", 5, 2)
    (tmp_path / "s" / "known.npy").write_bytes(b"half")
    with pytest.raises(UserError, match=r"known\.npy"):
        DescriptorStore(tmp_path / "s", 4, 2)


class Corners:
    """Four features per image, which contain its first pixel."""

    model = None
    needs_network = False

    def __call__(self, images: Sequence[torch.Tensor]) -> list[LocalFeatures]:
        return [self.of(image) for image in images]

    def of(self, image: torch.Tensor) -> LocalFeatures:
        height, width = image.shape[:2]
        points = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float32)
        values = np.full((4, 8), float(image[0, 0, 0]), np.float16)
        return LocalFeatures(points, np.ones(4, np.float32), np.arange(4, dtype=np.float32), values, (height, width))

    def config(self) -> dict[str, object]:
        return {"features": "corners"}


def test_only_wanted_local_features_are_computed(tmp_path: Path, benchmark: Benchmark) -> None:
    made = LocalTarget(tmp_path, benchmark, Corners(), {})
    made.wanted = np.array([3, 40])
    extract(trainer(), benchmark, made, Images())
    made.wanted = np.array([3, 40, 41])
    assert made.missing().tolist() == [41]
    image = Images().of(benchmark).__getitems__([40]).images[0]
    features = made.features(40)
    assert features.shape == (96, 112)
    np.testing.assert_array_equal(features.keypoints[3], [112, 96])
    np.testing.assert_array_equal(features.descriptors, np.full((4, 8), float(image[0, 0, 0])))
    next(made.folder.glob("*/0000003.safetensors")).write_bytes(b"half")
    with pytest.raises(UserError, match=r"0000003\.safetensors"):
        made.features(3)


PROCESS = """
import sys, warnings
warnings.simplefilter("ignore")
import lightning as L, numpy as np, torch
from pathlib import Path
from dolglab.data.folder import folder_benchmark
from dolglab.extraction.descriptor_store import DescriptorTarget
from dolglab.extraction.extractor import Extractor
from dolglab.extraction.extract import Images, extract
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import GlobalDescriptor
from lightning.pytorch.strategies import DDPStrategy

photos, root = sys.argv[1:3]
torch.manual_seed(0)
model = GlobalDescriptor(Backbone("resnet18.tv_in1k", pretrained=False), dim=16).eval()
benchmark = folder_benchmark(photos)
trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                    use_distributed_sampler=False, devices=2, strategy=DDPStrategy(process_group_backend="gloo"))
target = DescriptorTarget(root, benchmark, Extractor(model, (0.5, 1.0)), {})
extract(trainer, benchmark, target, Images(batch=4))
print(trainer.global_rank, int(target.store.available.sum()))
"""


@pytest.mark.process
def test_two_processes_share_the_images(tmp_path: Path, photos: Path, benchmark: Benchmark) -> None:
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    done = subprocess.run(
        [sys.executable, str(script), str(photos), str(tmp_path / "two")],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    assert "0 60" in done.stdout
    torch.manual_seed(0)
    model = GlobalDescriptor(Backbone("resnet18.tv_in1k", pretrained=False), dim=16).eval()
    one = target_of(tmp_path / "one", benchmark, model)
    extract(trainer(), benchmark, one, Images())
    two = target_of(tmp_path / "two", benchmark, model)
    assert two.store.available.all()
    np.testing.assert_allclose(two.store.descriptors, one.store.descriptors, atol=1e-5)
    assert two.time_spent()[0] == 60


def test_an_image_that_gives_nan_is_named(tmp_path: Path, benchmark: Benchmark, model: GlobalDescriptor) -> None:
    class Broken(Extractor):
        def together(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
            return super().together(images) * float("nan")

    target = DescriptorTarget(tmp_path, benchmark, Broken(model), {})
    with pytest.raises(UserError, match=r"NaN or infinity for landmark 0/00\.jpg"):
        extract(trainer(), benchmark, target, Images())
    assert len(target.missing()) == 60
