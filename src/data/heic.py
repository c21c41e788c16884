"""HEIC, as telephones write it: read by pillow-heif, where that is installed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
MISSING = "HEIC: pip install -e '.[heic]'"


def is_heic(data: bytes) -> bool:
    """Whether bytes are a HEIC file."""
    # The first of its brands may be one that AVIF has too.
    return data[4:8] == b"ftyp" and data[8:12] in BRANDS and b"avif" not in data[12:64]


def open_heic(data: bytes) -> Any:
    """A HEIC file, not yet decoded: `size` is width and height. Raises ImportError, and ValueError for a broken one."""
    try:
        from pillow_heif import open_heif
    except ImportError:
        raise ImportError(MISSING) from None
    return open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)


def heic_pixels(image: Any) -> NDArray[np.uint8]:
    """Pixels of an open HEIC file, (H, W, 3) RGB, upright: the format itself is turned when it is decoded."""
    return np.array(image.to_pillow().convert("RGB"), dtype=np.uint8)
