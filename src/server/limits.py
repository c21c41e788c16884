"""Limits: how many wait, how often one client may ask, how large a photo may be."""

from __future__ import annotations

import io
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple, TypeVar

from fastapi import HTTPException
from PIL import Image, UnidentifiedImageError

T = TypeVar("T")

# Formats that are read, and what their files are called. Pillow knows more, some of which start other programs.
FORMATS = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "HEIF": ".heic",
    "JPEG2000": ".jp2",
    "BMP": ".bmp",
    "GIF": ".gif",
    "TIFF": ".tif",
}
# The same for a person.
KINDS = "JPEG, PNG, WebP, AVIF, JPEG 2000, TIFF, GIF or BMP"
# Clients whose rate is remembered.
CLIENTS = 10_000


class Places:
    """So many may be within: `with places:` raises HTTPException 503 for one more.

    Args:
        what: they are, for the message.
        count: of them.
    """

    def __init__(self, what: str, count: int) -> None:
        self._what = what
        self._free = threading.Semaphore(count)

    def __enter__(self) -> None:
        if not self._free.acquire(blocking=False):
            raise HTTPException(503, f"too many {self._what} at once: try again in a moment", {"Retry-After": "2"})

    def __exit__(self, *error: object) -> None:
        self._free.release()


class Worker:
    """Does what it is given, one after another, in a thread of its own.

    The network always runs in one thread: every thread that it ran in would keep threads and memory of its own.

    Args:
        what: it does, for the message.
        waiting: how much may wait.
    """

    def __init__(self, what: str, waiting: int) -> None:
        self._places = Places(what, waiting + 1)
        self._thread = ThreadPoolExecutor(1, what)

    def __call__(self, work: Callable[[], T]) -> T:
        """What `work` gives. Raises what that raises, and HTTPException 503 where too much waits."""
        with self._places:
            return self._thread.submit(work).result()


class Rate:
    """A token bucket for each client: `per_minute` come at once, and come back evenly within a minute."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, cost: float = 1.0) -> float:
        """Take `cost` from a client's bucket; seconds until there is so much, 0 where it was taken."""
        now = self._clock()
        left, then = self._buckets.get(client, (self._most, now))
        left = min(self._most, left + (now - then) * self._most / 60)
        short = max(0.0, cost - left)
        self._buckets[client] = (left if short else left - cost, now)
        self._buckets.move_to_end(client)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return short * 60 / self._most


class Header(NamedTuple):
    """What a photo's first bytes say: the suffix of such files, width and height in pixels."""

    suffix: str
    width: int
    height: int


def read_header(data: bytes, max_pixels: int) -> Header:
    """What an encoded photo says of itself, before a pixel is decoded. Raises HTTPException 400 or 413."""
    if not data:
        raise HTTPException(400, "the photo is empty: zero bytes")
    try:
        with Image.open(io.BytesIO(data), formats=_readable()) as image:
            kind, (width, height) = image.format or "", image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise HTTPException(413, f"the photo has more than {max_pixels / 1e6:g} megapixels: make it smaller") from None
    except UnidentifiedImageError:
        raise HTTPException(400, f"this is no photo that can be read: send a {KINDS} file") from None
    except Exception:
        # Broken files make Pillow's parsers raise almost anything.
        raise HTTPException(400, "the photo cannot be read: it is damaged") from None
    if width * height > max_pixels:
        raise HTTPException(
            413,
            f"the photo has {width * height / 1e6:.1f} megapixels, more than {max_pixels / 1e6:g}: make it smaller",
        )
    return Header(FORMATS[kind], width, height)


@lru_cache
def _readable() -> tuple[str, ...]:
    # HEIC where its reader is installed.
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)
