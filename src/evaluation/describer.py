"""Descriptors and local features of any images, by the network of a checkpoint or by one not trained here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from numpy.typing import NDArray

from src.contracts import Benchmark, InputError, LocalFeatures, Resize
from src.data.images import checked_reading
from src.extraction.descriptors import DescriptorSink
from src.extraction.extractor import Extractor
from src.extraction.folding import folded
from src.extraction.local_store import LocalExtractor, LocalSink
from src.extraction.run import Images, extract
from src.models.dolg import DescriptorModel
from src.training.checkpoints import load_model


@dataclass(frozen=True)
class Describer:
    """Describes sets of images in all processes of a trainer, and finds in `store` what it described before."""

    trainer: L.Trainer
    images: Images
    store: Path
    extractor: Extractor
    local: LocalExtractor

    @property
    def about(self) -> dict[str, object]:
        """What decides descriptors beside network and scales, as evaluation has it."""
        reading = {"max_side": self.images.max_side, "orientation": self.images.orientation}
        return {**reading, "precision": self.trainer.precision}

    def descriptors(self, benchmark: Benchmark) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(N, D) descriptors, mapped from a file, and (N,) which there are."""
        sink = DescriptorSink(self.store, benchmark, self.extractor, self.about)
        bad = extract(self.trainer, benchmark, sink, self.images)
        if bad and self.trainer.is_global_zero:
            print(f"{benchmark.name}: {len(bad):,} images cannot be read and are left out, the first is {bad[0].name}")
        return sink.store.descriptors, sink.store.known

    def features(self, benchmark: Benchmark, wanted: NDArray[np.int64]) -> Callable[[int], LocalFeatures]:
        """Local features of the images at the wanted positions, by position."""
        sink = LocalSink(self.store, benchmark, self.local, self.about)
        sink.wanted = wanted
        extract(self.trainer, benchmark, sink, self.images)
        return sink.features


def network(checkpoint: str | Path | None, model: Mapping[str, Any] | None) -> DescriptorModel:
    """The network of a checkpoint or, without one, the one that a configuration describes.

    The configuration is built here and no earlier: pretrained weights are not fetched beside a checkpoint.
    Raises InputError as `load_model` and the model do, and where there is neither.
    """
    from hydra.utils import instantiate

    if checkpoint is not None:
        return load_model(checkpoint)[0]
    if model is None:
        raise InputError("there is no network to describe the images with: give checkpoint=FILE or model=NAME")
    return instantiate(model)


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

    Raises InputError for values that make no sense.
    """
    if max_side is not None and (not isinstance(max_side, int) or max_side < 1):
        raise InputError(f"max_side must be a whole number above 0 or null, not {max_side}")
    if on_error not in ("error", "skip"):
        raise InputError(f"on_error must be error or skip, not {on_error}")
    if not isinstance(workers, int) or workers < 0:
        raise InputError(f"workers must be a whole number from 0, not {workers}")
    reading = checked_reading(orientation, 1)
    lean = folded(network)
    local = features if isinstance(features, LocalExtractor) else features(lean)
    images = Images(max_side, on_error == "skip", reading.orientation, workers)
    return Describer(trainer, images, Path(store), Extractor(lean, scales, resize), local)
