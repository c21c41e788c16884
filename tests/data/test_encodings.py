"""Every encoding of a picture decodes to that picture."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dolglab.data.crops import CropRange
from dolglab.data.image_errors import BrokenImageError, MissingReaderError, UnsupportedImageError
from dolglab.data.image_formats import read_header
from dolglab.data.image_reading import decode, decode_crop, decode_shrunk
from dolglab.sharing.loading import LoadedExtractor, load_extractor
from picture_encodings import LOSSY, Encoding, encodings, master, refused

ENCODINGS = list(encodings(master()))
PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "library.md"


@pytest.fixture(scope="module")
def loaded() -> LoadedExtractor:
    return load_extractor("efficientnet_lite0")


@pytest.fixture(scope="module")
def descriptors(loaded: LoadedExtractor) -> dict[bytes, NDArray[np.float32]]:
    """The picture that the pixels of an encoding show."""
    shown = {encoding.shows.tobytes(): encoding.shows for encoding in ENCODINGS}
    return {key: loaded.describe([pixels.copy()])[0] for key, pixels in shown.items()}


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.name)
def test_pictures_are_decoded_to_their_content(
    encoding: Encoding, loaded: LoadedExtractor, descriptors: dict[bytes, NDArray[np.float32]]
) -> None:
    pixels = decode(encoding.data)
    assert pixels.shape == encoding.shows.shape
    assert np.abs(pixels.astype(int) - encoding.shows).mean() <= encoding.loss
    cosine = loaded.describe([pixels])[0] @ descriptors[encoding.shows.tobytes()]
    assert cosine >= (0.98 if encoding.loss == LOSSY else 0.995)
    assert read_header(encoding.data)[1:] == encoding.shows.shape[1::-1]


@pytest.mark.parametrize("encoding", ENCODINGS[::7], ids=lambda encoding: encoding.name)
def test_every_way_of_reading_gives_the_same_picture(encoding: Encoding) -> None:
    height, width = encoding.shows.shape[:2]
    # As if it had more pixels than the limit for full decoding.
    if encoding.family not in ("HEIC", "JPEG XL"):
        small = decode_shrunk(encoding.data, width // 4, max_pixels=1000)
        assert small.shape == (height // 4, width // 4, 3)
        means = encoding.shows.reshape(height // 4, 4, width // 4, 4, 3).mean((1, 3))
        assert np.abs(small - means).mean() <= encoding.loss + 4
    whole = CropRange(area=(1.0, 1.0), ratio=(width / height, width / height))
    crop = decode_crop(encoding.data, whole, 60, np.random.default_rng(0))
    assert abs(crop.mean() - encoding.shows.mean()) <= encoding.loss + 4


@pytest.mark.parametrize(("name", "data", "named"), list(refused(master())), ids=lambda value: str(value)[:20])
def test_samples_without_a_defined_white_are_refused(name: str, data: bytes, named: str) -> None:
    with pytest.raises(UnsupportedImageError, match=named):
        decode(data)


def test_the_list_of_formats_equals_the_tested_ones() -> None:
    listed = re.search(r"^(JPEG, PNG, .*?)\. Colours", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert listed is not None
    # Names of formats, without brackets and install commands.
    names = re.findall(r"[A-Z][A-Za-z]+(?: [A-Z0-9]+)?", re.sub(r"\(.*?\)|`.*?`", "", listed[1], flags=re.DOTALL))
    assert set(names) == {encoding.family for encoding in ENCODINGS}


def refusal(data: bytes) -> BrokenImageError | None:
    try:
        decode(data)
    except BrokenImageError as error:
        return error
    return None


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    refusals = [refusal(encoding.data) for encoding in ENCODINGS]
    refused = [error for error in refusals if error is not None]
    assert len(refusals) > 3 * len(refused) > 0
    assert all(isinstance(error, MissingReaderError) and "dolglab[formats]" in str(error) for error in refused)
