"""One picture in every supported encoding, written by other libraries, and in some unsupported ones."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import imagecodecs
import numpy as np
import pillow_heif
import tifffile
from numpy.typing import NDArray
from PIL import Image

# Grey levels that an encoding may lose, in the mean.
LOSSLESS, ROUNDED, LOSSY = 0.0, 1.0, 4.0


class Encoding(NamedTuple):
    """A file, its pixels (H, W, 3), the mean error it may have, and its name."""

    name: str
    family: str
    data: bytes
    shows: NDArray[np.uint8]
    loss: float


def master(height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    """A picture with soft and hard edges, pure white and pure black."""
    coarse = np.random.default_rng(3).integers(0, 256, (6, 8, 3), np.uint8)
    pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    pixels[: height // 5, : width // 4] = 255
    pixels[-height // 5 :, -width // 4 :] = 0
    return pixels


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).convert("L"))


def shown(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey as it is shown."""
    return np.repeat(levels[..., None], 3, axis=2) if levels.ndim == 2 else levels


def deep(levels: NDArray[np.uint8], bits: int) -> NDArray[Any]:
    """Levels over the whole range of this many bits."""
    top = (1 << bits) - 1
    return ((levels.astype(np.uint64) * top + 127) // 255).astype(np.uint16 if bits <= 16 else np.uint32)


def by_pillow(pixels: NDArray[np.uint8], kind: str, mode: str | None = None, **options: Any) -> bytes:
    image = Image.fromarray(pixels)
    return saved(image.convert(mode) if mode else image, kind, **options)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(samples: NDArray[Any], photometric: str = "minisblack", **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, photometric=photometric, **options)
    return buffer.getvalue()


def pages(*written: dict[str, Any]) -> bytes:
    """A TIFF of several pages."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for options in written:
            writer.write(**options)
    return buffer.getvalue()


def packed_12_bits(levels: NDArray[np.uint8]) -> bytes:
    """A TIFF of packed 12-bit grey samples, two in three bytes, which tifffile cannot write."""
    samples = deep(levels, 12)
    left, right = samples[:, 0::2], samples[:, 1::2]
    packed = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], -1).astype(np.uint8).tobytes()
    height, width = levels.shape
    short = ((258, 12), (259, 1), (262, 1), (277, 1))
    long = ((256, width), (257, height), (273, 8), (278, height), (279, len(packed)))
    entries = [(tag, struct.pack("<HHIHH", tag, 3, 1, value, 0)) for tag, value in short]
    entries += [(tag, struct.pack("<HHII", tag, 4, 1, value)) for tag, value in long]
    directory = struct.pack("<H", len(entries)) + b"".join(entry for _, entry in sorted(entries)) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory


def encodings(rgb: NDArray[np.uint8]) -> Iterator[Encoding]:
    """Every supported encoding of one picture."""
    grays, image = grey(rgb), Image.fromarray(rgb)
    g = shown(grays)
    cmyk = np.asarray(image.convert("CMYK"))

    for name, mode, options in (
        ("4:4:4", None, {"quality": 95, "subsampling": 0}),
        ("4:2:0", None, {"quality": 90}),
        ("progressive", None, {"quality": 90, "progressive": True}),
        ("grey", "L", {"quality": 95}),
        ("CMYK", "CMYK", {"quality": 95}),
    ):
        data = by_pillow(rgb, "JPEG", mode, **options)
        yield Encoding(f"JPEG {name}", "JPEG", data, g if mode == "L" else rgb, LOSSY)
    yield Encoding("MPO", "JPEG", by_pillow(rgb, "MPO", save_all=True, append_images=[image]), rgb, LOSSY)

    for bits, samples in ((8, grays), (16, deep(grays, 16))):
        yield Encoding(f"PNG grey {bits}", "PNG", imagecodecs.png_encode(samples), g, LOSSLESS)
    for bits, samples in ((8, rgb), (16, deep(rgb, 16))):
        yield Encoding(f"PNG RGB {bits}", "PNG", imagecodecs.png_encode(samples), rgb, LOSSLESS)
    indexed = image.quantize(256)
    black = Image.fromarray(grays > 127)
    for name, family, kept in (("PNG palette", "PNG", indexed), ("PNG 1 bit", "PNG", black), ("GIF", "GIF", indexed)):
        yield Encoding(name, family, saved(kept, family), np.asarray(kept.convert("RGB")), LOSSLESS)
    yield Encoding("BMP", "BMP", by_pillow(rgb, "BMP"), rgb, LOSSLESS)
    yield Encoding("BMP grey", "BMP", by_pillow(grays, "BMP"), g, LOSSLESS)
    yield Encoding("WebP", "WebP", by_pillow(rgb, "WEBP", quality=90), rgb, LOSSY)
    yield Encoding("WebP lossless", "WebP", by_pillow(rgb, "WEBP", lossless=True), rgb, LOSSLESS)
    yield Encoding("AVIF", "AVIF", by_pillow(rgb, "AVIF", quality=90), rgb, LOSSY)

    for bits in (8, 10, 12, 16):
        for family, container in (("JP2", "jp2"), ("J2K", "j2k")):
            for colours, levels in (("grey", grays), ("RGB", rgb)):
                samples = levels if bits == 8 else deep(levels, bits)
                options = {"level": 0, "codecformat": container, "bitspersample": bits, "reversible": True}
                data = imagecodecs.jpeg2k_encode(samples, **options)
                yield Encoding(f"{family} {colours} {bits}", "JPEG 2000", data, shown(levels), LOSSLESS)
    yield Encoding("JP2 lossy", "JPEG 2000", imagecodecs.jpeg2k_encode(rgb, level=40, codecformat="jp2"), rgb, LOSSY)

    for name, mode, samples in (("HEIC", "RGB", rgb), ("HEIC of more than 8 bits", "RGB;16", deep(rgb, 16))):
        buffer = io.BytesIO()
        pillow_heif.from_bytes(mode, image.size, samples.tobytes()).save(buffer, quality=95)
        yield Encoding(name, "HEIC", buffer.getvalue(), rgb, LOSSY)

    for bits in (8, 16):
        for colours, levels in (("grey", grays), ("RGB", rgb)):
            samples = levels if bits == 8 else deep(levels, 16)
            data = imagecodecs.jpegxl_encode(samples, lossless=True)
            yield Encoding(f"JPEG XL {colours} {bits}", "JPEG XL", data, shown(levels), LOSSLESS)
    yield Encoding("JPEG XL lossy", "JPEG XL", imagecodecs.jpegxl_encode(rgb, level=90, lossless=False), rgb, LOSSY)

    yield from (Encoding(f"TIFF {name}", "TIFF", *rest) for name, *rest in tiffs(rgb, grays, cmyk))


def tiffs(
    rgb: NDArray[np.uint8], grays: NDArray[np.uint8], cmyk: NDArray[np.uint8]
) -> Iterator[tuple[str, bytes, NDArray[np.uint8], float]]:
    """TIFFs of every sample type, colour, order and compression."""
    g = shown(grays)
    ink = np.asarray(Image.fromarray(cmyk, "CMYK").convert("RGB"))
    opaque = np.full_like(grays, 255)
    planes = np.moveaxis(rgb, 2, 0).copy()
    kinds: list[tuple[str, NDArray[Any], str, NDArray[np.uint8], float, dict[str, Any]]] = [
        ("grey 8", grays, "minisblack", g, LOSSLESS, {}),
        ("grey 8 from white", 255 - grays, "miniswhite", g, LOSSLESS, {}),
        ("grey 16", deep(grays, 16), "minisblack", g, LOSSLESS, {}),
        ("grey 16 from white", 65535 - deep(grays, 16), "miniswhite", g, LOSSLESS, {}),
        ("grey 32", deep(grays, 32), "minisblack", g, LOSSLESS, {}),
        ("grey 16 with alpha", np.dstack([deep(grays, 16), deep(opaque, 16)]), "minisblack", g, LOSSLESS, alpha()),
        ("1 bit", grays > 127, "minisblack", shown((grays > 127) * np.uint8(255)), LOSSLESS, {}),
        ("RGB 8", rgb, "rgb", rgb, LOSSLESS, {}),
        ("RGB 8 planar", planes, "rgb", rgb, LOSSLESS, {"planarconfig": "separate"}),
        ("RGB 16", deep(rgb, 16), "rgb", rgb, LOSSLESS, {}),
        ("RGB 16 planar", deep(planes, 16), "rgb", rgb, LOSSLESS, {"planarconfig": "separate"}),
        ("RGB 32", deep(rgb, 32), "rgb", rgb, LOSSLESS, {}),
        ("RGBA 16", np.dstack([deep(rgb, 16), deep(opaque, 16)]), "rgb", rgb, LOSSLESS, alpha()),
        ("CMYK 8", cmyk, "separated", ink, LOSSLESS, {}),
        ("CMYK 16", deep(cmyk, 16), "separated", ink, LOSSLESS, {}),
    ]
    for size in (2, 4, 8):
        kinds.append((f"float {8 * size}", (grays / 255).astype(f"f{size}"), "minisblack", g, LOSSLESS, {}))
        kinds.append((f"RGB float {8 * size}", (rgb / 255).astype(f"f{size}"), "rgb", rgb, LOSSLESS, {}))
    for name, samples, photometric, shows, loss, options in kinds:
        for order in "<>":
            for big in (False, True):
                form = f"{name} {'little' if order == '<' else 'big'} endian{' BigTIFF' if big else ''}"
                data = tiff(samples, photometric, byteorder=order, bigtiff=big, **options)
                yield form, data, shows, loss
        for compression in ("lzw", "zlib", "packbits", "lzma", "zstd"):
            yield f"{name} {compression}", tiff(samples, photometric, compression=compression, **options), shows, loss
    for compression in ("jpeg2000", "jpegxl", "lerc", "png"):
        for bits, samples in ((8, rgb), (16, deep(rgb, 16))):
            yield f"RGB {bits} {compression}", tiff(samples, "rgb", compression=compression), rgb, LOSSY
    for compression in ("jpeg", "webp"):
        yield f"RGB 8 {compression}", tiff(rgb, "rgb", compression=compression), rgb, LOSSY
    for compression in ("lzw", "zlib"):
        predicted = tiff(deep(rgb, 16), "rgb", compression=compression, predictor=True)
        yield f"RGB 16 predicted {compression}", predicted, rgb, LOSSLESS
    yield "RGB 8 tiled", tiff(rgb, "rgb", tile=(64, 64), compression="lzw"), rgb, LOSSLESS
    yield "RGB 16 tiled", tiff(deep(rgb, 16), "rgb", tile=(64, 64)), rgb, LOSSLESS
    yield "grey 12", packed_12_bits(grays), g, LOSSLESS
    for bits in (10, 12, 14):
        yield f"grey {bits}, packed", tiff(deep(grays, bits), bitspersample=bits, compression=None), g, LOSSLESS
    for compression in (None, "lzw"):
        how = f" {compression}" if compression else ""
        for bits in (10, 12):
            for colours, levels in (("grey", grays), ("RGB", rgb)):
                photometric = "rgb" if colours == "RGB" else "minisblack"
                data = tiff(deep(levels, bits), photometric, compression=compression)
                yield f"{colours} {bits} in 16 bits{how}", data, shown(levels), LOSSLESS
        stated = [(281, 3, 1, (1 << 14) - 1, True)]
        data = tiff(deep(grays, 14), compression=compression, extratags=stated)
        yield f"grey 14 in 16 bits, stated{how}", data, g, LOSSLESS
    yield from labs(rgb)
    small = cv2.resize(rgb, (40, 30), interpolation=cv2.INTER_AREA)
    full = {"data": rgb, "photometric": "rgb"}
    yield "behind its reduced copy", pages({"data": small, "photometric": "rgb", "subfiletype": 1}, full), rgb, 0.0
    yield "behind a thumbnail", pages({"data": small, "photometric": "rgb"}, full), rgb, LOSSLESS
    below = pages({"data": small, "photometric": "rgb", "subfiletype": 1, "subifds": 1}, full)
    yield "below its reduced copy", below, rgb, LOSSLESS
    other = {"data": rgb[::-1], "photometric": "rgb"}
    yield "of two pages", pages(full, other), rgb, LOSSLESS


def labs(rgb: NDArray[np.uint8]) -> Iterator[tuple[str, bytes, NDArray[np.uint8], float]]:
    """L*a*b* of D50, from sRGB by its standard's formulas (IEC 61966-2-1, Bradford's adaptation)."""
    linear = rgb / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.43607, 0.38506, 0.14308], [0.22250, 0.71688, 0.06062], [0.01393, 0.09710, 0.71417]])
    xyz = linear @ to_xyz.T / (0.96422, 1.0, 0.82521)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    lab = np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)
    yield "L*a*b* float", tiff(lab.astype(np.float32), "cielab"), rgb, LOSSY
    for bits in (8, 16):
        top, one = (1 << bits) - 1, 1 << (bits - 8)
        kind = np.dtype(f"u{bits // 8}")
        signed = np.rint(lab[..., 1:] * one).clip(-128 * one, 128 * one - 1).astype(f"i{bits // 8}").view(kind)
        samples = np.dstack([np.rint(lab[..., 0] * (top / 100)).astype(kind), signed])
        yield f"L*a*b* {bits}", tiff(samples, "cielab"), rgb, LOSSY
        scale = 255 if bits == 8 else 65280
        offset = np.rint((lab[..., 1:] + 128) * one).clip(0, top)
        icc = np.dstack([np.rint(lab[..., 0] * (scale / 100)), offset]).astype(kind)
        yield f"ICC L*a*b* {bits}", tiff(icc, "icclab"), rgb, LOSSY


def alpha() -> dict[str, Any]:
    return {"extrasamples": ["unassalpha"]}


def refused(rgb: NDArray[np.uint8]) -> Iterator[tuple[str, bytes, str]]:
    """Complete files whose samples have no defined white, and the text of the reason."""
    grays = grey(rgb)
    yield "signed 16", tiff((deep(grays, 16).astype(np.int32) - 32768).astype(np.int16)), "int16"
    yield "signed 8", tiff((grays.astype(np.int16) - 128).astype(np.int8)), "int8"
    yield "floats of heights", tiff(grays.astype(np.float32)), "float"
    yield "complex", tiff((grays / 255).astype(np.complex64)), "complex"
    pattern = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, bytes(4), True)]
    yield "raw", tiff(deep(grays, 16), "cfa", extratags=pattern), "CFA"
