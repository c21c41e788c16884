"""Decoding only the cropped part of a JPEG with TurboJPEG 3's cropping region, compared with decoding the whole image.

    PYTHONPATH=. python experiments/benchmarks/crop_region.py --library FILE [--photos DIR]

Random crops of the images of `loader.py`, at the scale at which the loader decodes them, in one process and one
thread. Measures the CPU time of decoding and cutting; versions alternate image by image; medians over several rounds.
A region ends either with the crop, after which TurboJPEG reads nothing, or with the image, so that all data is read.
Every crop is compared with that of the whole image. Then eight bytes after the header of each file are overwritten,
several times, and of the files that decoding the whole image refuses, those that each version refuses are counted.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from experiments.benchmarks.loader import HEIGHT, SIZES, WIDTH, write_images

from dolglab.contracts import TrainingSet
from dolglab.data.crops import Box, CropRange, random_box

# The scales at which the loader decodes: those with SIMD, or full size.
SCALES = ((1, 8), (1, 4), (3, 8), (1, 2), (1, 1))
OPTIONS = {"fastdct": True, "fastupsample": True, "min_factor": 2}
WHOLE, TO_THE_END, TO_THE_CROP = "the whole, simplejpeg", "a region to the image's end", "a region to the crop's end"
# turbojpeg.h: a handle that decompresses, pixels as RGB, and parameters.
DECOMPRESS, RGB = 1, 0
STOP_ON_WARNING, SUBSAMPLING, FAST_UPSAMPLING, FAST_DCT = 0, 4, 9, 10
# Width and height of a coding unit (MCU): 444, 422, 420, grey, 440, 411.
BLOCKS = ((8, 8), (16, 8), (16, 16), (8, 8), (8, 16), (32, 8))

Decode = Callable[[bytes, "Part"], np.ndarray]


class Part(NamedTuple):
    """A crop of an image decoded at a scale, and the height and width of that image."""

    scale: tuple[int, int]
    box: Box
    height: int
    width: int


class Region(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("x", "y", "w", "h")]


class Factor(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("num", "denom")]


class TurboJPEG:
    """The part of TurboJPEG 3's C API that is needed here. Raises OSError and AttributeError for another library."""

    def __init__(self, path: str) -> None:
        self.library = library = ctypes.CDLL(path)
        library.tj3SetCroppingRegion.argtypes = [ctypes.c_void_p, Region]
        library.tj3SetScalingFactor.argtypes = [ctypes.c_void_p, Factor]
        library.tj3Init.restype = ctypes.c_void_p
        library.tj3Destroy.argtypes, library.tj3Destroy.restype = [ctypes.c_void_p], None
        library.tj3Set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
        library.tj3Get.argtypes = [ctypes.c_void_p, ctypes.c_int]
        data = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        library.tj3DecompressHeader.argtypes = data
        library.tj3Decompress8.argtypes = [*data, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
        library.tj3GetErrorStr.argtypes, library.tj3GetErrorStr.restype = [ctypes.c_void_p], ctypes.c_char_p
        self.memory = np.empty(3 * HEIGHT * WIDTH, np.uint8)

    def decode(self, data: bytes, part: Part, to_the_end: bool) -> np.ndarray:
        """The crop's pixels, which the next call overwrites. Raises ValueError for a damaged file."""
        library, handle = self.library, self.library.tj3Init(DECOMPRESS)

        def check(failed: int) -> None:
            if failed:
                raise ValueError(library.tj3GetErrorStr(handle).decode())

        try:
            for parameter in (STOP_ON_WARNING, FAST_UPSAMPLING, FAST_DCT):
                library.tj3Set(handle, parameter, 1)
            check(library.tj3DecompressHeader(handle, data, len(data)))
            across, down = BLOCKS[library.tj3Get(handle, SUBSAMPLING)]
            above = part.box.top % (down * part.scale[0] // part.scale[1])
            before = part.box.left % (across * part.scale[0] // part.scale[1])
            height = above + (part.height - part.box.top if to_the_end else part.box.height)
            width = before + part.box.width
            check(library.tj3SetScalingFactor(handle, Factor(*part.scale)))
            region = Region(part.box.left - before, part.box.top - above, width, height)
            check(library.tj3SetCroppingRegion(handle, region))
            check(library.tj3Decompress8(handle, data, len(data), self.memory.ctypes.data, 0, RGB))
        finally:
            library.tj3Destroy(handle)
        pixels = self.memory[: 3 * height * width].reshape(height, width, 3)
        return pixels[above : above + part.box.height, before:]


def main() -> None:
    """Write the images, measure, and count the damage that is detected."""
    parser = argparse.ArgumentParser(description="Decoding a crop's part of a JPEG.")
    parser.add_argument("--library", default="libturbojpeg.so.0", help="a file with TurboJPEG 3's functions")
    parser.add_argument("--photos", type=Path, help="a folder of real JPEG photographs to use as the images' content")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    try:
        turbo = TurboJPEG(options.library)
    except (OSError, AttributeError) as error:
        print(f"no TurboJPEG 3, nothing is measured: {error}")
        return
    memory = np.empty(3 * HEIGHT * WIDTH, np.uint8)

    def whole(data: bytes, part: Part) -> np.ndarray:
        # The requested size is at least that of the next smaller scale.
        pixels = simplejpeg.decode_jpeg(
            data, "RGB", min_height=part.height, min_width=part.width, buffer=memory, **OPTIONS
        )
        top, left, height, width = part.box
        return pixels[top : top + height, left : left + width]

    ways: dict[str, Decode] = {
        WHOLE: whole,
        TO_THE_END: lambda data, part: turbo.decode(data, part, True),
        TO_THE_CROP: lambda data, part: turbo.decode(data, part, False),
    }
    with tempfile.TemporaryDirectory() as folder:
        training = write_images(Path(folder), options.images, options.photos)
        for size in SIZES:
            measure(ways, training, size, options.rounds)
        damage(ways, training, 20 * options.images)


def random_part(size: int, rng: np.random.Generator) -> Part:
    """A random crop as the loader decodes it for `size`."""
    box = random_box(HEIGHT, WIDTH, CropRange(), rng)
    sides = ((HEIGHT, box.height), (WIDTH, box.width))
    needed = [min(side, math.ceil(side * size / inside)) for side, inside in sides]
    scale = next(
        (part, whole)
        for part, whole in SCALES
        if all(side * part // whole >= least for (side, _), least in zip(sides, needed, strict=True))
    )
    # The sides divide by eight.
    top, left, height, width = (value * scale[0] / scale[1] for value in box)
    scaled = Box(int(top), int(left), max(1, round(height)), max(1, round(width)))
    return Part(scale, scaled, HEIGHT * scale[0] // scale[1], WIDTH * scale[0] // scale[1])


def measure(ways: dict[str, Decode], training: TrainingSet, size: int, rounds: int) -> None:
    """Print milliseconds per image, the ratio to the whole, and whether the pixels are the same."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    different = dict.fromkeys(ways, 0)
    for number in range(rounds):
        rng = np.random.default_rng(number)
        seconds = dict.fromkeys(ways, 0.0)
        for position in range(len(training)):
            data, part = training.source.read(position), random_part(size, rng)
            expected = ways[WHOLE](data, part).copy()
            for name, decode in ways.items():
                start = time.process_time()
                pixels = decode(data, part)
                seconds[name] += time.process_time() - start
                different[name] += not np.array_equal(pixels, expected)
        for name in ways:
            spent[name].append(1e3 * seconds[name] / len(training))
    for name, values in spent.items():
        ratio = statistics.median(whole / other for whole, other in zip(spent[WHOLE], values, strict=True))
        same = "the same pixels" if not different[name] else f"{different[name]} crops differ"
        print(f"{size:>6}  {name:<30}{statistics.median(values):>8.2f} ms{ratio:>8.2f}x  {same}")


def damage(ways: dict[str, Decode], training: TrainingSet, tries: int) -> None:
    """Print how many of the damaged files that decoding the whole image refuses each version refuses."""
    rng = np.random.default_rng(0)
    refused = dict.fromkeys(ways, 0)
    for number in range(tries):
        data = bytearray(training.source.read(number % len(training)))
        # After the header.
        place = int(rng.integers(1000, len(data) - 8))
        data[place : place + 8] = rng.bytes(8)
        part = random_part(SIZES[0], rng)
        outcomes = {name: refuses(decode, bytes(data), part) for name, decode in ways.items()}
        for name, outcome in outcomes.items():
            refused[name] += outcome and outcomes[WHOLE]
    for name, count in refused.items():
        print(f"damage  {name:<30}{count:>6} of {refused[WHOLE]} damaged files refused")


def refuses(decode: Decode, data: bytes, part: Part) -> bool:
    try:
        decode(data, part)
    except ValueError:
        return True
    return False


if __name__ == "__main__":
    main()
