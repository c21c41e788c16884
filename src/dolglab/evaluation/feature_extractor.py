"""Descriptors and local features of whole sets of images, made once and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import numpy as np
from numpy.typing import NDArray

from dolglab.contracts import Benchmark, ExtractedFeatures, LocalFeatures, Resize
from dolglab.data.datasets import check_whole_images
from dolglab.data.image_reading import checked_reading
from dolglab.errors import UserError
from dolglab.extraction.descriptor_store import DescriptorTarget, LocalExtractor, LocalTarget
from dolglab.extraction.extract import Images, extract
from dolglab.extraction.extractor import Extractor, check_protocol
from dolglab.extraction.fuse_batch_norm import for_inference
from dolglab.models.dolg import DescriptorModel


@dataclass(frozen=True)
class FeatureExtractor:
    """Describes sets of images in all processes of a trainer, and finds in `store` what was described before.

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
    def main(self) -> bool:
        """Whether this is the process that ranks and writes."""
        return self.trainer.is_global_zero

    def descriptors(self, benchmark: Benchmark) -> ExtractedFeatures:
        """Descriptors of all images. Raises UserError without a network, and for images that cannot be read."""
        target = self.descriptor_target(benchmark)
        bad = extract(self.trainer, benchmark, target, self.images)
        store = target.store
        return ExtractedFeatures(store.available, bad, target.seconds_per_image(), descriptors=store.descriptors)

    def local_features(self, benchmark: Benchmark, wanted: NDArray[np.int64] | None = None) -> ExtractedFeatures:
        """Local features of all images, or of those at some positions. Raises UserError as `descriptors`."""
        target = self._local_target(benchmark)
        if wanted is not None:
            target.wanted = wanted
        bad = extract(self.trainer, benchmark, target, self.images)
        available = np.zeros(len(benchmark.source), np.bool_)
        available[target.wanted] = True
        available[target.missing()] = False
        return ExtractedFeatures(
            available,
            bad,
            target.seconds_per_image(),
            target.bytes_per_image(),
            features=target.features,
            stages={"features": target.extractor.config()},
        )

    def stored_local_features(self, benchmark: Benchmark) -> Callable[[int], LocalFeatures]:
        """The local features that were made before, by position."""
        return self._local_target(benchmark).features

    def descriptor_target(self, benchmark: Benchmark) -> DescriptorTarget:
        """What makes and keeps the descriptors of a set. Raises UserError without a network."""
        if self.extractor is None:
            raise UserError("there is no network to describe the images with: give checkpoint=FILE or model=NAME")
        return DescriptorTarget(self.store, benchmark, self.extractor, self._details())

    def _local_target(self, benchmark: Benchmark) -> LocalTarget:
        if self.local is None:
            raise UserError("this asks for local features: give features=rootsift, or a network")
        return LocalTarget(self.store, benchmark, self.local, self._details())

    def _details(self) -> dict[str, object]:
        """What decides features beside the extractor."""
        return {
            "max_side": self.images.max_side,
            "orientation": self.images.orientation,
            "precision": self.trainer.precision,
        }


def make_feature_extractor(
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
) -> FeatureExtractor:
    """A feature extractor whose network is ready for inference; `features` are the network's own if they want it.

    Raises UserError for values that make no sense.
    """
    check_protocol(scales, resize)
    check_whole_images(max_side, on_error)
    if not isinstance(workers, int) or workers < 0:
        raise UserError(f"workers must be a whole number from 0, not {workers}")
    reading = checked_reading(orientation, 1)
    inference = for_inference(network, str(trainer.precision))
    local = features if isinstance(features, LocalExtractor) else features(inference)
    images = Images(max_side, on_error == "skip", reading.orientation, workers)
    return FeatureExtractor(trainer, images, Path(store), Extractor(inference, scales, resize), local)
