"""HEIC, where its reader is installed."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from dolglab.data.image_formats import BrokenImageError, read_header
from dolglab.data.image_reading import decode


def test_heic_is_read_where_its_reader_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    pixels = np.full((40, 60, 3), (200, 30, 90), np.uint8)
    pixels[:20] = 10
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(file, quality=90)
    found = decode(file.getvalue())
    assert read_header(file.getvalue()) == (".heic", 60, 40)
    assert found.shape == pixels.shape
    assert np.abs(found.astype(int) - pixels).mean() < 4
    with pytest.raises(BrokenImageError, match=r".+"):
        decode(file.getvalue()[:200])
    with pytest.raises(BrokenImageError, match=r"60 x 40 .*100"):
        decode(file.getvalue(), max_pixels=100)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BrokenImageError, match="pip install"):
        decode(file.getvalue())
