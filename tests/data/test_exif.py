"""Date and place of photos, with EXIF blocks written byte by byte."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from dolglab.data.exif import exif_columns
from exif_bytes import (
    LATITUDE,
    LATITUDE_REF,
    LONGITUDE,
    LONGITUDE_REF,
    OFFSET,
    TAKEN,
    Value,
    exif_bytes,
    in_jpeg,
    in_png,
    in_webp,
)

WHEN = {TAKEN: "2019:07:04 12:34:56"}
# 43 degrees, 17 minutes, 30.5 seconds north; 5 degrees, 22.02 minutes west.
WHERE = {
    LATITUDE_REF: "N",
    LATITUDE: [(43, 1), (17, 1), (3050, 100)],
    LONGITUDE_REF: "W",
    LONGITUDE: [(5, 1), (2202, 100), (0, 1)],
}
FOUND = {"latitude": "43.291806", "longitude": "-5.367000"}


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), "teal").save(buffer, kind)
    return buffer.getvalue()


def jpeg_with(photo: dict[int, Value] | None = None, gps: dict[int, Value] | None = None, order: str = ">") -> bytes:
    return in_jpeg(encoded("JPEG"), exif_bytes(photo or {}, gps or {}, order))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["jpeg", "png", "late png", "webp", "tiff"])
def test_date_and_place_are_read_in_any_format(kind: str, order: str) -> None:
    exif = exif_bytes(WHEN, WHERE, order)
    data = {
        "jpeg": lambda: in_jpeg(encoded("JPEG"), exif),
        "png": lambda: in_png(encoded("PNG"), exif),
        "late png": lambda: in_png(encoded("PNG"), exif, last=True),
        "webp": lambda: in_webp(encoded("WEBP"), exif, (32, 24)),
        # A TIFF's first directory refers to the others, as in EXIF.
        "tiff": lambda: exif,
    }[kind]()
    assert exif_columns(data) == {"taken": "2019-07-04T12:34:56", **FOUND}
    if kind != "tiff":
        Image.open(io.BytesIO(data)).load()


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_date_and_place_are_read_in_containers(kind: str) -> None:
    exif = exif_bytes(WHEN, WHERE)
    buffer = io.BytesIO()
    image = Image.new("RGB", (64, 64), "teal")
    if kind == "HEIF":
        heif = pytest.importorskip("pillow_heif")
        heif.from_pillow(image).save(buffer, exif=exif)
    else:
        image.save(buffer, kind, exif=exif)
    assert exif_columns(buffer.getvalue()) == {"taken": "2019-07-04T12:34:56", **FOUND}


@pytest.mark.parametrize(
    ("photo", "taken"),
    [
        ({TAKEN: "2019:07:04 12:34:56", OFFSET: "+02:00"}, "2019-07-04T12:34:56+02:00"),
        ({TAKEN: "2019:07:04 12:34:56", OFFSET: "   :  "}, "2019-07-04T12:34:56"),
        ({TAKEN: "2019:07:04 12:34:56", OFFSET: "+27:00"}, "2019-07-04T12:34:56"),
        ({TAKEN: "2019-07-04 12:34:56"}, "2019-07-04T12:34:56"),
        ({TAKEN: "2020:02:29 00:00:00"}, "2020-02-29T00:00:00"),
        ({TAKEN: "2019:02:29 00:00:00"}, None),
        ({TAKEN: "0000:00:00 00:00:00"}, None),
        ({TAKEN: "0001:01:01 00:00:00"}, None),
        ({TAKEN: "    :  :     :  :  "}, None),
        ({TAKEN: "2019:07:04 24:15:00"}, None),
        ({TAKEN: "2019:07:04"}, None),
        ({TAKEN: 2019}, None),
        ({OFFSET: "+02:00"}, None),
    ],
)
def test_dates_are_parsed_and_validated(photo: dict[int, Value], taken: str | None) -> None:
    assert exif_columns(jpeg_with(photo)).get("taken") == taken


@pytest.mark.parametrize(
    "change",
    [
        {LATITUDE: [(0, 0), (0, 0), (0, 0)]},
        {LATITUDE: [(43, 1), (17, 0), (0, 1)]},
        {LATITUDE: [(91, 1), (0, 1), (0, 1)]},
        {LONGITUDE: [(180, 1), (0, 1), (1, 1)]},
        {LATITUDE: [(43, 1), (75, 1), (0, 1)]},
        {LATITUDE_REF: "E"},
        {LATITUDE_REF: ""},
        {LONGITUDE_REF: "NS"},
        {LATITUDE: "north"},
        {LATITUDE: [(0, 1)] * 3, LONGITUDE: [(0, 1)] * 3},
    ],
)
def test_an_impossible_place_is_left_out(change: dict[int, Value]) -> None:
    assert exif_columns(jpeg_with(WHEN, {**WHERE, **change})) == {"taken": "2019-07-04T12:34:56"}


@pytest.mark.parametrize("missing", [LATITUDE_REF, LATITUDE, LONGITUDE_REF, LONGITUDE])
def test_half_a_place_is_left_out(missing: int) -> None:
    assert exif_columns(jpeg_with({}, {tag: value for tag, value in WHERE.items() if tag != missing})) == {}


def test_signs_and_degrees_without_minutes_are_read() -> None:
    south = {LATITUDE_REF: "S", LATITUDE: [(3385, 100)], LONGITUDE_REF: "E", LONGITUDE: [(151, 1), (13, 1)]}
    assert exif_columns(jpeg_with({}, south)) == {"latitude": "-33.850000", "longitude": "151.216667"}


def test_missing_and_broken_exif_give_no_columns() -> None:
    whole = jpeg_with(WHEN, WHERE)
    start = whole.index(b"MM")
    for data in (b"", b"no picture", encoded("JPEG"), encoded("PNG"), encoded("GIF"), whole[: start + 20]):
        assert exif_columns(data) == {}
    for place in range(start, start + 120, 3):
        # A broken EXIF may give anything, but raises nothing.
        assert isinstance(exif_columns(whole[:place] + b"\xff\xff\xff" + whole[place + 3 :]), dict)


def test_no_pixel_is_decoded() -> None:
    """The pixels of this PNG are damaged."""
    buffer = io.BytesIO()
    Image.effect_noise((100, 100), 64).save(buffer, "PNG", compress_level=0)
    data = bytearray(in_png(buffer.getvalue(), exif_bytes(WHEN, {}), last=True))
    place = data.index(b"IDAT") + 1000
    data[place : place + 1000] = bytes(1000)
    with pytest.raises(OSError, match=r"broken|truncated|decod"):
        Image.open(io.BytesIO(data)).load()
    assert exif_columns(bytes(data)) == {"taken": "2019-07-04T12:34:56"}
