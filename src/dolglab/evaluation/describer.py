"""Descriptors and local features of any images, by the network of a checkpoint or by one not trained here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import BadImage, Benchmark, LocalFeatures, Resize
from dolglab.data.datasets import check_whole_images
from dolglab.data.image_reading import checked_reading
from dolglab.errors import UserError
from dolglab.extraction.descriptor_store import DescriptorSink, time_spent
from dolglab.extraction.extract import Images, extract
from dolglab.extraction.extractor import Extractor, check_protocol
from dolglab.extraction.fuse_batch_norm import for_inference
from dolglab.extraction.local_store import LocalExtractor, LocalSink
from dolglab.models.dolg import DescriptorModel


def no_features(position: int) -> LocalFeatures:
    """What stands where nobody asked for local features."""
    raise RuntimeError(f"nobody asked for the local features of image {position}")


@dataclass(frozen=True)
class Described:
    """What is there of a set of images: which of them, those that could not be read, and what one took.

    `descriptors` are (images, D) where there are any, `features` gives those of the image at a position; `seconds` and
    `bytes` are means over images, and `stages` is what a result card says.
    """

    known: NDArray[np.bool_]
    bad: tuple[BadImage, ...] = ()
    seconds: float = 0.0
    bytes: float = 0.0
    descriptors: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    features: Callable[[int], LocalFeatures] = field(default=no_features)
    stages: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Describer:
    """Describes sets of images in all processes of a trainer, and finds in `store` what it described before.

    Args:
        trainer: whose processes describe the images.
        images: how images are read.
        store: folder in which descriptors and local features are kept.
        extractor: makes descriptors; None where none are wanted.
        local: makes local features; None where none are wanted.
    """

    trainer: L.Trainer
    images: Images
    store: Path
    extractor: Extractor | None = None
    local: LocalExtractor | None = None

    @property
    def about(self) -> dict[str, object]:
        """What decides descriptors beside network and scales."""
        reading = {"max_side": self.images.max_side, "orientation": self.images.orientation}
        return {**reading, "precision": self.trainer.precision}

    @property
    def main(self) -> bool:
        """Whether this is the process that ranks and writes."""
        return self.trainer.is_global_zero

    def descriptors(self, benchmark: Benchmark) -> Described:
        """Descriptors of all images. Raises UserError without a network, and for images that cannot be read."""
        sink = self.sink(benchmark)
        bad = extract(self.trainer, benchmark, sink, self.images)
        store = sink.store
        return Described(store.known, bad, seconds_each(sink.folder), descriptors=store.descriptors)

    def features(self, benchmark: Benchmark, wanted: NDArray[np.int64] | None = None) -> Described:
        """Local features of all images, or of those at some positions. Raises UserError as `descriptors`."""
        sink = self._local_sink(benchmark)
        if wanted is not None:
            sink.wanted = wanted
        bad = extract(self.trainer, benchmark, sink, self.images)
        known = np.zeros(len(benchmark.source), np.bool_)
        known[sink.wanted] = True
        known[sink.missing()] = False
        about: dict[str, object] = {"features": sink.extractor.describe()}
        return Described(known, bad, seconds_each(sink.folder), sink.bytes_each(), features=sink.features, stages=about)

    def kept_features(self, benchmark: Benchmark) -> Callable[[int], LocalFeatures]:
        """The local features that are there already, by position."""
        return self._local_sink(benchmark).features

    def sink(self, benchmark: Benchmark) -> DescriptorSink:
        """What makes and keeps the descriptors of a set. Raises UserError without a network."""
        if self.extractor is None:
            raise UserError("there is no network to describe the images with: give checkpoint=FILE or model=NAME")
        return DescriptorSink(self.store, benchmark, self.extractor, self.about)

    def _local_sink(self, benchmark: Benchmark) -> LocalSink:
        if self.local is None:
            raise UserError("this asks for local features: give features=rootsift, or a network")
        return LocalSink(self.store, benchmark, self.local, self.about)


def seconds_each(folder: Path) -> float:
    """What an image took, over all the runs that described some; 0 for a folder in which none was."""
    images, seconds = time_spent(folder)
    return seconds / images if images else 0.0


def make_describer(
    trainer: L.Trainer,
    network: DescriptorModel,
    features: LocalExtractor | Callable[[DescriptorModel], LocalExtractor],
    store: str | Path,
    scales: Sequence[float] = (1.0,),
    resize: Resize = "released",
    max_side: int | None = None,
    orientation: str = "exif",
    on_error: str = "error",
    workers: int = 0,
) -> Describer:
    """A describer whose network is ready for inference; `features` are the network's own if they want it.

    Raises UserError for values that make no sense.
    """
    check_protocol(scales, resize)
    check_whole_images(max_side, on_error)
    if not isinstance(workers, int) or workers < 0:
        raise UserError(f"workers must be a whole number from 0, not {workers}")
    reading = checked_reading(orientation, 1)
    lean = for_inference(network, str(trainer.precision))
    local = features if isinstance(features, LocalExtractor) else features(lean)
    images = Images(max_side, on_error == "skip", reading.orientation, workers)
    return Describer(trainer, images, Path(store), Extractor(lean, scales, resize), local)
