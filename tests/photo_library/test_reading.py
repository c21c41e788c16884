"""How a library reads photos: their colours, damaged ones, and those with several pages."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dolglab.data.photos import photo_pixels
from dolglab.errors import UserError
from dolglab.library.catalogue import Catalogue
from dolglab.library.ingest import embed_places
from dolglab.library.library import Library
from dolglab.sharing.loading import load_extractor
from icc_profiles import rgb_profile, values_in
from picture_encodings import master, pages, saved

MODEL = "efficientnet_lite0"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A wide one, its copy in sRGB, a damaged one, one of three pages, and files that are none."""
    folder, picture = tmp_path / "photos", master(96, 128)
    folder.mkdir()
    plain, wide = Image.fromarray(picture), Image.fromarray(values_in("ProPhoto", picture))
    (folder / "wide.jpg").write_bytes(saved(wide, "JPEG", quality=95, icc_profile=rgb_profile("ProPhoto")))
    data = saved(plain, "JPEG", quality=95)
    (folder / "plain.jpg").write_bytes(data)
    (folder / "damaged.jpg").write_bytes(data[: len(data) * 2 // 3])
    page = {"data": picture, "photometric": "rgb"}
    (folder / "three.tif").write_bytes(pages(page, page, page))
    for name in ("raw.dng", "list.txt"):
        (folder / name).write_bytes(b"II*\0")
    return folder


def described(library: Path) -> dict[str, NDArray[np.float32]]:
    with closing(Library(library)) as opened:
        entries = [entry for page in opened.catalogue.pages() for entry in page if entry[1] is not None]
        rows = opened.descriptors(np.array([key for _, key in entries], np.int64))
        return {Path(photo.name).name: row for (photo, _), row in zip(entries, rows, strict=True)}


def colour_of(library: Path) -> str:
    with closing(Catalogue(library)) as catalogue:
        return catalogue.identity()["colour"]


def test_a_library_goes_on_with_its_colours_until_it_is_described_anew(photos: Path, tmp_path: Path) -> None:
    library, wide = tmp_path / "library", photos / "wide.jpg"
    embed_places([str(photos / "plain.jpg")], str(library), model=MODEL, max_side=96, colour="ignore")
    with closing(Catalogue(library)) as catalogue, catalogue.change() as change:
        # As it was before there was a choice.
        change.set_about("identity", {key: value for key, value in catalogue.identity().items() if key != "colour"})
    embed_places([str(wide)], str(library), max_side=96)
    before = described(library)
    with pytest.raises(UserError, match="--again"):
        embed_places([str(photos)], str(library), max_side=96, colour="srgb")
    assert colour_of(library) == "ignore"

    embed_places([], str(library), again=True, colour="srgb")
    after = described(library)
    assert colour_of(library) == "srgb"
    assert before.keys() == after.keys()
    np.testing.assert_allclose(after["plain.jpg"], before["plain.jpg"], atol=1e-6)
    for row, pixels in ((before, photo_pixels(str(wide), 96)), (after, photo_pixels(str(wide), 96))):
        expected = load_extractor(MODEL, max_side=96).describe([pixels])[0]
        assert (float(row["wide.jpg"] @ expected) > 0.999) == (row is after)


def test_what_was_not_described_anew_is_by_the_next_command(photos: Path, tmp_path: Path, capsys) -> None:
    library = tmp_path / "library"
    embed_places([str(photos)], str(library), model=MODEL, max_side=96, colour="ignore")
    with closing(Library(library)) as opened:
        # As a run leaves it that is killed before it has described any.
        opened.describe_anew(opened.catalogue.names(), "srgb")
    assert described(library).keys() == {"wide.jpg", "plain.jpg", "three.tif"}
    capsys.readouterr()
    embed_places([str(photos)], str(library), max_side=96)
    assert capsys.readouterr().out.splitlines()[-1].startswith("3 photos described, 0 already there")
    embed_places([str(photos)], str(library), max_side=96)
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 photos described, 4 already there")


def test_damaged_photos_are_described_on_request(photos: Path, tmp_path: Path, capsys) -> None:
    library = tmp_path / "library"
    embed_places([str(photos)], str(library), model=MODEL, max_side=96)
    said = capsys.readouterr().out
    assert str(photos / "damaged.jpg") in said
    assert "2 further pages" in said
    assert "1 .dng" in said
    assert described(library).keys() == {"wide.jpg", "plain.jpg", "three.tif"}
    embed_places([str(photos)], str(library), max_side=96, damaged=True)
    assert described(library).keys() == {"wide.jpg", "plain.jpg", "three.tif", "damaged.jpg"}
