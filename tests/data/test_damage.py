"""Every reader detects truncated and damaged JPEGs, and refuses images that would cost too much."""

from __future__ import annotations

import io
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dolglab.data.crops import CropRange, random_box
from dolglab.data.image_errors import (
    BrokenImageError,
    OutOfMemoryError,
    TooLargeError,
    UnsupportedImageError,
    broken_image_errors,
    check_pixels,
)
from dolglab.data.image_formats import MAX_SCANS
from dolglab.data.image_reading import MemoryBudget, Reading, decode, decode_crop, decode_shrunk
from dolglab.data.preparation.scan import inspect
from dolglab.data.tiff import open_tiff
from picture_encodings import master, pages, saved, tiff
from warm_python import run_python

ANYWAY, SCALED = Reading(damaged=True), Reading(decoding="scaled")
# A disk block that was never written, or was overwritten.
BLOCK = 4096
GARBAGE = np.random.default_rng(0).integers(0, 256, BLOCK, np.uint8).tobytes()
KINDS = {
    "baseline": ("RGB", {"quality": 92}),
    "progressive": ("RGB", {"quality": 92, "progressive": True}),
    "with restarts": ("RGB", {"quality": 92, "restart_marker_rows": 1}),
    "grey": ("L", {"quality": 95}),
    "CMYK": ("CMYK", {"quality": 92}),
}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut at 30 %": lambda data: data[: len(data) * 3 // 10],
    "cut at 90 %": lambda data: data[: len(data) * 9 // 10],
    "without its end": lambda data: data[:-2],
    "zeros from 30 %": lambda data: data[: len(data) * 3 // 10].ljust(len(data), b"\0"),
    "zeros from 60 %": lambda data: data[: len(data) * 6 // 10].ljust(len(data), b"\0"),
    "a block of zeros": lambda data: _over(data, bytes(BLOCK)),
    "a block of garbage": lambda data: _over(data, GARBAGE),
    "a block that is gone": lambda data: data[: len(data) // 2] + data[len(data) // 2 + BLOCK :],
}


def _over(data: bytes, block: bytes) -> bytes:
    start = len(data) // 2
    return data[:start] + block + data[start + BLOCK :]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """JPEGs with several blocks each."""
    noise = np.random.default_rng(1).integers(-30, 30, (480, 640, 3))
    image = Image.fromarray((master(480, 640) + noise).clip(0, 255).astype(np.uint8))
    return {kind: saved(image.convert(mode), "JPEG", **options) for kind, (mode, options) in KINDS.items()}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_jpeg_is_unreadable(files: dict[str, bytes], kind: str, damage: str) -> None:
    data = DAMAGES[damage](files[kind])
    for read in (
        decode,
        lambda data: decode_shrunk(data, 64),
        lambda data: decode_shrunk(data, 64, max_pixels=1000),
        lambda data: decode_shrunk(data, 64, SCALED),
    ):
        with pytest.raises(BrokenImageError):
            read(data)
    with pytest.raises(BrokenImageError):
        decode_crop(data, CropRange(), 32, np.random.default_rng(0))
    finding = inspect(data, Reading())
    assert finding is not None
    assert not finding.used


@pytest.mark.parametrize("damage", ["cut at 90 %", "without its end"])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_outside_a_crop_is_detected(files: dict[str, bytes], kind: str, damage: str) -> None:
    """A training image is replaced if its file is damaged, wherever its crop is."""
    small = CropRange((0.05, 0.1))
    boxes = {seed: random_box(480, 640, small, np.random.default_rng(seed)) for seed in range(20)}
    above = [seed for seed, box in boxes.items() if box.top + box.height < 300]
    assert above
    for seed in above:
        with pytest.raises(BrokenImageError):
            decode_crop(DAMAGES[damage](files[kind]), small, 32, np.random.default_rng(seed))


@pytest.mark.parametrize("damage", ["cut at 30 %", "zeros from 60 %", "a block of zeros", "a block that is gone"])
@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey"])
def test_damaged_images_are_read_as_far_as_possible_on_request(files: dict[str, bytes], kind: str, damage: str) -> None:
    whole, data = decode(files[kind]), DAMAGES[damage](files[kind])
    pixels = decode(data, ANYWAY)
    assert pixels.shape == whole.shape
    # A progressive JPEG is coarse everywhere; in others the first rows are complete.
    assert np.abs(pixels[:64].astype(int) - whole[:64]).mean() < 40
    assert decode_shrunk(data, 64, ANYWAY).shape == (48, 64, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_after_the_picture_are_not_damage(files: dict[str, bytes], kind: str) -> None:
    for data in (files[kind] + b"trailing text", files[kind] + bytes(5000), files[kind] + files[kind]):
        np.testing.assert_array_equal(decode(data), decode(files[kind]))


def test_padding_between_segments_is_not_damage(files: dict[str, bytes]) -> None:
    data = files["baseline"]
    start = data.index(b"\xff\xdb")
    padded = data[:start] + bytes(7) + data[start:]
    np.testing.assert_array_equal(decode(padded), decode(data))


def test_images_with_more_pixels_than_their_bytes_can_represent_are_refused() -> None:
    check_pixels((20_000, 8_000), 200_000_000, encoded=10_000)
    check_pixels((2000, 2000), 200_000_000, encoded=50)
    with pytest.raises(TooLargeError):
        check_pixels((20_000, 8_000), 200_000_000, encoded=7_000)
    with pytest.raises(TooLargeError):
        check_pixels((20_000, 8_000), 100_000_000)


def test_a_jpeg_with_too_many_scans_is_refused() -> None:
    # An ordinary progressive JPEG has ten scans.
    data = saved(Image.fromarray(master()), "JPEG", progressive=True)
    assert data.count(b"\xff\xda") > 5
    decode(data)
    start = data.rindex(b"\xff\xda")
    more = data[:start] + data[start:-2] * MAX_SCANS + data[-2:]
    for read in (decode, lambda data: decode_shrunk(data, 64)):
        with pytest.raises(BrokenImageError, match=str(MAX_SCANS)):
            read(more)


def test_pages_of_a_tiff_are_counted_up_to_a_limit() -> None:
    buffer = io.BytesIO()
    page = Image.fromarray(master(6, 8))
    page.save(buffer, "TIFF", save_all=True, append_images=[page] * 1200)
    np.testing.assert_array_equal(decode(buffer.getvalue()), master(6, 8))


def test_smaller_copies_of_a_page_are_not_counted() -> None:
    levels = master(64, 96)
    copies = [{"data": np.ascontiguousarray(levels[::step, ::step]), "photometric": "rgb"} for step in (1, 2, 4)]
    other = {"data": master(48, 96), "photometric": "rgb"}
    for order in (copies, copies[::-1]):
        assert open_tiff(pages(*order)).further == 0
        assert open_tiff(pages(*order, other)).further == 1
        np.testing.assert_array_equal(decode(pages(*order)), levels)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tiff(np.zeros((20, 30, 9), np.uint8), "rgb", planarconfig="contig"), "9 samples per pixel"),
        (tiff(np.zeros((5, 16, 32), np.uint16), volumetric=True, tile=(5, 16, 32)), "5 planes"),
    ],
)
def test_a_tiff_without_a_picture_is_refused_before_decoding(data: bytes, said: str) -> None:
    with pytest.raises(UnsupportedImageError, match=said):
        decode(data)


def test_readers_share_one_budget() -> None:
    budget = MemoryBudget(100)
    together, most = 0, 0
    lock, done = threading.Lock(), []

    def read(size: int) -> None:
        nonlocal together, most
        for _ in range(20):
            with budget.taken(size):
                with lock:
                    together += min(size, 100)
                    most = max(most, together)
                with lock:
                    together -= min(size, 100)
        done.append(size)

    threads = [threading.Thread(target=read, args=(size,)) for size in (10, 40, 60, 100, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [10, 40, 60, 100, 1000]
    assert most <= 100


def test_a_png_whose_bytes_changed_is_unreadable() -> None:
    data = bytearray(saved(Image.fromarray(master()), "PNG", compress_level=0))
    assert zlib.crc32(data)
    data[len(data) // 2] ^= 0x10
    with pytest.raises(BrokenImageError):
        decode(bytes(data))


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_lack_of_memory_is_not_treated_as_damage(tmp_path: Path) -> None:
    Image.new("RGB", (9000, 9000)).save(tmp_path / "large.jpg", progressive=True)
    limited = (
        "import resource, sys; from dolglab.data.image_errors import OutOfMemoryError\n"
        "from dolglab.data.image_reading import decode\n"
        "data = open(sys.argv[1], 'rb').read(); decode(data)\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2**27, 2**27))\n"
        "try: decode(data)\n"
        "except OutOfMemoryError as error: print(error)\n"
    )
    done = run_python(["-c", limited, str(tmp_path / "large.jpg")], PYTHONPATH="src")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    with pytest.raises(OutOfMemoryError), broken_image_errors():
        raise MemoryError
