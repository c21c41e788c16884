"""Descriptors and local features of a benchmark's images, computed when needed and kept on disk.

`DescriptorStore` manages the files of descriptors; local features are one file per image. `DescriptorTarget` and
`LocalTarget` compute missing ones (see `extract`).
"""

from __future__ import annotations

import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import DTypeLike
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from dolglab.contracts import IMAGE_KEY, Benchmark, BoolArray, IntArray, LocalFeatures
from dolglab.errors import UserError
from dolglab.extraction.extractor import Extractor, Group, ShapeBuckets
from dolglab.io import atomic_path, write_bytes, write_text

FORMAT = 1
# The files of a store: (images, D) float32, which images are available, how they were made, and how long that took.
DESCRIPTORS, AVAILABLE, ABOUT, TIMING = "descriptors.npy", "known.npy", "about.json", "timing.json"
# And the keys of the images, by which other benchmarks find them.
KEYS = "images.npy"
# The keys of about.json that describe only the benchmark.
OF_BENCHMARK = ("benchmark", "digest", "crop")
# The tensors of an image's local features, and the number of images whose features stay in memory.
PARTS, CACHED_IMAGES = ("keypoints", "sizes", "scores", "descriptors"), 256


class DescriptorStore:
    """The descriptors of `images` images, by position; several processes may each write their own rows.

    Attributes:
        descriptors: (images, D), memory-mapped; unavailable rows are zero.

    Rows are written to memory-mapped files before they are marked as available, so a process that is killed loses
    nothing that it has marked.

    Raises UserError for a folder whose files are damaged or have another shape.
    """

    def __init__(self, folder: Path, images: int, dim: int) -> None:
        self.descriptors = _mapped(folder / DESCRIPTORS, (images, dim), np.float32)
        self._available = _mapped(folder / AVAILABLE, (images,), np.bool_)

    @classmethod
    def create(cls, folder: Path, images: int, dim: int, about: Mapping[str, Any]) -> None:
        """Create the folder without any descriptor, if it does not exist yet."""
        if (folder / ABOUT).exists():
            return
        try:
            with atomic_path(folder) as aside:
                aside.mkdir()
                np.lib.format.open_memmap(aside / DESCRIPTORS, "w+", np.float32, (images, dim)).flush()
                np.lib.format.open_memmap(aside / AVAILABLE, "w+", np.bool_, (images,)).flush()
                (aside / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            # Another evaluation may have created the same folder in the meantime.
            if not (folder / ABOUT).exists():
                raise UserError(f"{folder} cannot be written ({error.strerror}): name another store=DIR") from error

    @property
    def available(self) -> BoolArray:
        """(images,): which descriptors are available now."""
        return np.array(self._available)

    def missing(self) -> IntArray:
        """Positions whose descriptors are missing."""
        return np.flatnonzero(~self._available)

    def put(self, positions: IntArray, descriptors: Float[Tensor, "b d"]) -> None:
        """Store descriptors at these positions."""
        self.descriptors[positions] = descriptors.detach().float().cpu().numpy()
        self._available[positions] = True


def read_store(folder: Path, benchmark: Benchmark, model: str | None = None) -> DescriptorStore:
    """The descriptors that an earlier evaluation kept in `folder`.

    Raises UserError if they belong to other images, were not computed by the network with the fingerprint `model` (if
    given), or are incomplete.
    """
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        digest, made_by, name = about["digest"], about["model"], about["benchmark"]
        dim = np.load(folder / DESCRIPTORS, mmap_mode="r", allow_pickle=False).shape[1]
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise UserError(f"{folder} contains no descriptors of an evaluation") from error
    if digest != benchmark.digest:
        raise UserError(f"{folder} holds descriptors of {name} (digest {digest}), not of {benchmark.name}'s images")
    if model is not None and made_by != model:
        raise UserError(f"{folder} was made with another network, described in its about.json")
    store = DescriptorStore(folder, len(benchmark.source), dim)
    if len(missing := store.missing()):
        first = benchmark.source.name(int(missing[0]))
        raise UserError(
            f"{folder} has no descriptor of {len(missing):,} of {len(benchmark.source):,} images ({first}): first let "
            "the evaluation that computes them finish"
        )
    return store


def fingerprint(model: nn.Module) -> str:
    """A digest of a network's architecture and weights."""
    digest = hashlib.blake2b(type(model).__name__.encode(), digest_size=12)
    for key, value in sorted(model.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def _mapped(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> np.memmap:
    try:
        found = np.load(path, mmap_mode="r+", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: delete {path.parent}, and its descriptors are computed again") from error
    if found.shape != shape or found.dtype != dtype:
        raise UserError(f"{path} has shape {found.shape}, not {shape}: delete {path.parent}")
    return found


class FeatureTarget(ABC):
    """Computes features of a benchmark's images and keeps them, in a folder named after everything that affects them.

    Args:
        root: folder of all such folders.
        benchmark: the benchmark with the images.
        name: start of the folder's name.
        network: the network, which must be on its device; None if there is none.
        details: whatever else affects the features: how images are read, the precision (plain values).

    Attributes:
        about: everything that affects the features, as in `about.json` in the folder.
        wanted: positions of the images whose features are needed; by default all.
    """

    def __init__(
        self, root: str | Path, benchmark: Benchmark, name: str, network: nn.Module | None, details: Mapping[str, Any]
    ) -> None:
        self.network = network
        self.images = len(benchmark.source)
        self.wanted = np.arange(self.images)
        self.about = {
            "format": FORMAT,
            "benchmark": benchmark.name,
            "digest": benchmark.digest,
            "crop": benchmark.crop,
            "model": None if network is None else fingerprint(network),
            **details,
        }
        text = json.dumps(self.about, sort_keys=True, ensure_ascii=False)
        digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
        self.folder = Path(root) / f"{name.replace('/', '_')}-{digest}"

    @abstractmethod
    def create(self) -> None:
        """Create the folder if needed; called only in the main process, before the others continue."""

    @abstractmethod
    def missing(self) -> IntArray:
        """Wanted positions whose features are missing; called after `create`, in every process."""

    @abstractmethod
    def bytes_per_image(self) -> float:
        """The mean size on disk of an image's features."""

    @abstractmethod
    def available_in(self, folder: Path) -> BoolArray:
        """Which images have features in another target's folder, (its images,). Raises OSError or ValueError."""

    @abstractmethod
    def adopt(self, folder: Path, rows: IntArray, positions: IntArray) -> None:
        """Copy the features at `rows` of another target's folder, for the images at `positions`."""

    @functools.cached_property
    def keys(self) -> np.memmap:
        """(images,): the `IMAGE_KEY` of each described image, zeros elsewhere; memory-mapped."""
        return _mapped(self.folder / KEYS, (self.images,), IMAGE_KEY)

    def create_keys(self) -> None:
        """Make the file of keys, where there is none yet; called as `create`."""
        if not (self.folder / KEYS).exists():
            with atomic_path(self.folder / KEYS) as aside, aside.open("wb") as file:
                np.save(file, np.zeros(self.images, IMAGE_KEY), allow_pickle=False)

    def like(self, about: Mapping[str, Any]) -> bool:
        """Whether features described by `about.json` are computed like these, perhaps for another benchmark."""
        own = {key: value for key, value in self.about.items() if key not in OF_BENCHMARK}
        return own == {key: value for key, value in about.items() if key not in OF_BENCHMARK}

    @abstractmethod
    def buckets(self) -> ShapeBuckets:
        """A new object that groups images by shape."""

    @abstractmethod
    def process(self, group: Group) -> None:
        """Compute the features of a group of images of one shape, and keep them by position."""

    def record_time(self, images: int, seconds: float) -> None:
        """Add images and their total time, including reading, to the folder's record; only in the main process."""
        images_before, seconds_before = self.time_spent()
        write_text(self.folder / TIMING, json.dumps([images_before + images, seconds_before + seconds]) + "\n")

    def time_spent(self, folder: Path | None = None) -> tuple[int, float]:
        """The number of described images, and the seconds that took, over all runs; of this or another `folder`."""
        file = (folder or self.folder) / TIMING
        try:
            images, seconds = json.loads(file.read_text()) if file.exists() else (0, 0.0)
            return int(images), float(seconds)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(f"{file} is damaged: delete it, and times are recorded from now on") from error

    def seconds_per_image(self) -> float:
        """The mean time per image over all runs; 0 if none was described."""
        images, seconds = self.time_spent()
        return seconds / images if images else 0.0


class DescriptorTarget(FeatureTarget):
    """Computes descriptors with an extractor and keeps them; an interrupted run can be continued."""

    def __init__(
        self, root: str | Path, benchmark: Benchmark, extractor: Extractor, details: Mapping[str, Any]
    ) -> None:
        protocol = {"scales": list(extractor.scales), "resize": extractor.resize, "torch": torch.__version__}
        # Descriptors kept before this option existed use the mean.
        joined = {} if extractor.scale_pooling == "mean" else {"scale_pooling": extractor.scale_pooling}
        super().__init__(root, benchmark, benchmark.name, extractor.model, {**protocol, **joined, **details})
        self.extractor = extractor
        self.source = benchmark.source

    @functools.cached_property
    def store(self) -> DescriptorStore:
        """The store, opened at the first use."""
        return DescriptorStore(self.folder, self.images, self.extractor.model.dim)

    def create(self) -> None:
        DescriptorStore.create(self.folder, self.images, self.extractor.model.dim, self.about)

    def missing(self) -> IntArray:
        return np.intersect1d(self.store.missing(), self.wanted)

    def bytes_per_image(self) -> float:
        return 4.0 * self.extractor.model.dim

    def available_in(self, folder: Path) -> BoolArray:
        available = np.load(folder / AVAILABLE, allow_pickle=False)
        found = np.load(folder / DESCRIPTORS, mmap_mode="r", allow_pickle=False)
        if found.shape != (len(available), self.extractor.model.dim):
            raise ValueError(f"{folder / DESCRIPTORS} has the shape {found.shape}")
        return available

    def adopt(self, folder: Path, rows: IntArray, positions: IntArray) -> None:
        found = np.load(folder / DESCRIPTORS, mmap_mode="r", allow_pickle=False)
        self.store.put(positions, torch.from_numpy(found[rows]))

    def buckets(self) -> ShapeBuckets:
        return self.extractor.buckets()

    def process(self, group: Group) -> None:
        """Compute and keep descriptors. If one is not finite, raises UserError, and none of its group is kept."""
        positions = np.array([position for position, _ in group])
        with torch.inference_mode():
            descriptors = self.extractor.together([image for _, image in group])
        bad = ~torch.isfinite(descriptors).all(1).cpu().numpy()
        if bad.any():
            name = self.source.name(int(positions[bad][0]))
            raise UserError(f"the network returned NaN or infinity for {name}: check its weights and precision")
        self.store.put(positions, descriptors)


@runtime_checkable
class LocalExtractor(Protocol):
    """Computes local features of images of one shape; `needs_network` says whether it uses a network."""

    needs_network: bool

    @property
    def model(self) -> nn.Module | None:
        """The network, if there is one."""
        ...

    def __call__(self, images: Sequence[UInt8[Tensor, "h w 3"]]) -> list[LocalFeatures]: ...

    def config(self) -> dict[str, object]:
        """Everything that affects the features in addition to the network's weights, as plain values."""
        ...


class LocalTarget(FeatureTarget):
    """Computes local features of images and keeps them; images that already have features are skipped."""

    def __init__(
        self, root: str | Path, benchmark: Benchmark, extractor: LocalExtractor, details: Mapping[str, Any]
    ) -> None:
        details = {**extractor.config(), **details}
        super().__init__(root, benchmark, f"{benchmark.name}-local", extractor.model, details)
        self.extractor = extractor
        self.features = functools.lru_cache(CACHED_IMAGES)(self._read)

    def create(self) -> None:
        write_text(self.folder / ABOUT, json.dumps(self.about, indent=1, ensure_ascii=False) + "\n")

    def missing(self) -> IntArray:
        available = {int(file.stem) for file in self.folder.glob("*/*.safetensors")}
        return np.array([position for position in self.wanted.tolist() if position not in available], np.int64)

    def available_in(self, folder: Path) -> BoolArray:
        keys = np.load(folder / KEYS, mmap_mode="r", allow_pickle=False)
        available = np.zeros(len(keys), np.bool_)
        available[[int(file.stem) for file in folder.glob("*/*.safetensors")]] = True
        return available

    def adopt(self, folder: Path, rows: IntArray, positions: IntArray) -> None:
        for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
            write_bytes(self._file(position), (folder / _place(row)).read_bytes())

    def buckets(self) -> ShapeBuckets:
        """One image at a time: each is kept as soon as it is described."""
        return ShapeBuckets(1)

    def process(self, group: Group) -> None:
        """Compute and keep the features of images of one shape."""
        with torch.inference_mode():
            found = self.extractor([image for _, image in group])
        for (position, _), features in zip(group, found, strict=True):
            tensors = {part: np.ascontiguousarray(getattr(features, part)) for part in PARTS}
            write_bytes(self._file(position), save(tensors, {"shape": json.dumps(features.shape)}))

    def bytes_per_image(self) -> float:
        sizes = [file.stat().st_size for file in self.folder.glob("*/*.safetensors")]
        return sum(sizes) / len(sizes) if sizes else 0.0

    def _file(self, position: int) -> Path:
        return self.folder / _place(position)

    def _read(self, position: int) -> LocalFeatures:
        """The features at a position. Raises UserError if the file is damaged."""
        file = self._file(position)
        try:
            with safe_open(file, "numpy") as stored:
                tensors = {part: stored.get_tensor(part) for part in PARTS}
                height, width = json.loads(stored.metadata()["shape"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{file} is damaged: delete it, and it is computed again") from error
        return LocalFeatures(shape=(height, width), **tensors)


def _place(position: int) -> str:
    """The path of an image's local features in the folder."""
    return f"{position // 1000:04}/{position:07}.safetensors"
