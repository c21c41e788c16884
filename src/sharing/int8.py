"""ONNX files whose convolutions count in whole numbers of 8 bits: smaller and faster, and not quite the same."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.contracts import InputError
from src.data.images import BrokenImageError, decode, shrink
from src.data.sources import is_image
from src.extraction.onnx_extractor import INPUT, Session

FILE = "model.int8.onnx"
# Photos that the ranges of activations are taken from, and their longer side.
PHOTOS, SIDE = 64, 512


def write_int8(source: Path, path: Path, folder: str | Path) -> int:
    """Write the ONNX file `source` with quantised convolutions; how many photos their ranges come from.

    Args:
        folder: photos like those to be described.

    Weights have a scale a channel, activations one a map, from the least to the largest value that the photos give.
    The file's fingerprint is another one than its source's: libraries do not mix the two.
    Raises InputError where a package is missing or there are no photos.
    """
    try:
        from onnxruntime import quantization
    except ModuleNotFoundError as error:
        raise InputError(f"ONNX wants {error.name}: pip install -e '.[onnx]'") from None
    photos = find(folder)
    # It warns that it was not told to infer shapes, which leave batch, height and width open here.
    logging.getLogger().setLevel(logging.ERROR)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            ready = Path(scratch) / "ready.onnx"
            quantization.shape_inference.quant_pre_process(source, ready, skip_symbolic_shape=True)
            quantization.quantize_static(
                ready,
                aside,
                _reader(photos),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
            )
        _rename(aside, Session(source).about)
        Session(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return len(photos)


def find(folder: str | Path) -> list[Path]:
    """Photos below a folder, evenly chosen. Raises InputError where there is none."""
    files = sorted(path for path in Path(folder).rglob("*") if is_image(path.name) and path.is_file())
    if not files:
        raise InputError(f"no photos in {folder}: --calibrate wants a folder of photos like those to be described")
    return [files[i] for i in np.linspace(0, len(files) - 1, min(PHOTOS, len(files))).astype(int).tolist()]


def _pixels(photos: Sequence[Path]) -> Iterator[NDArray[np.float32]]:
    for photo in photos:
        try:
            image = shrink(decode(photo.read_bytes()), SIDE)
        except (BrokenImageError, OSError):
            # Its ranges come from the others.
            continue
        yield np.ascontiguousarray(image.transpose(2, 0, 1)[None]).astype(np.float32)


def _reader(photos: Sequence[Path]):
    from onnxruntime.quantization import CalibrationDataReader

    class Photos(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = _pixels(photos)

        def get_next(self) -> dict[str, NDArray[np.float32]]:
            image = next(self.images, None)
            return {} if image is None else {INPUT: image}

    return Photos()


def _rename(path: Path, about: dict[str, str]) -> None:
    """Have a quantised file say of itself what its source did, under a fingerprint of its own."""
    import onnx

    model = onnx.load(path)
    about = {**about, "fingerprint": f"{about['fingerprint']}-int8"}
    onnx.helper.set_model_props(model, about)
    onnx.save(model, path)
