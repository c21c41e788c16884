"""How a library reads photos: their colours, damaged ones, and those with several pages."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dolglab.data.image_reading import Reading
from dolglab.data.photos import photo_pixels
from dolglab.errors import UserError
from dolglab.library import ingest
from dolglab.library.catalogue import Catalogue
from dolglab.library.ingest import embed_places
from dolglab.library.library import Library
from dolglab.library.search_engine import SearchEngine
from dolglab.sharing.loading import load_extractor
from icc_profiles import rgb_profile, values_in
from picture_encodings import master, pages, saved

MODEL = "efficientnet_lite0"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A photo with a wide gamut, its copy in sRGB, a damaged one, one with three pages, and other files."""
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


def test_a_library_keeps_its_colour_setting_until_described_again(photos: Path, tmp_path: Path) -> None:
    library, wide = tmp_path / "library", photos / "wide.jpg"
    embed_places([str(photos / "plain.jpg")], str(library), model=MODEL, max_side=96, colour="ignore")
    with closing(Catalogue(library)) as catalogue, catalogue.change() as change:
        # As in versions without the option.
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


def test_the_next_command_describes_the_remaining_photos_again(photos: Path, tmp_path: Path, capsys) -> None:
    library = tmp_path / "library"
    embed_places([str(photos)], str(library), model=MODEL, max_side=96, colour="ignore")
    with closing(Library(library)) as opened:
        # As after a run that is killed before it has described any.
        opened.describe_anew(opened.catalogue.names(), opened.identity | {"colour": "srgb"})
    assert described(library).keys() == {"wide.jpg", "plain.jpg", "three.tif"}
    capsys.readouterr()
    embed_places([str(photos)], str(library), max_side=96)
    assert capsys.readouterr().out.splitlines()[-1].startswith("3 photos described, 0 already there")
    embed_places([str(photos)], str(library), max_side=96)
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 photos described, 4 already there")


def test_a_library_keeps_its_side_until_it_is_described_again(photos: Path, tmp_path: Path) -> None:
    """A new library uses the model's own side by default."""
    plain, library = str(photos / "plain.jpg"), tmp_path / "library"
    embed_places([plain], str(library), model=MODEL)
    assert how_of(library) == (1024, "scaled")
    embed_places([], str(library), again=True, max_side=60, decoding="full")
    embed_places([plain], str(library))
    assert how_of(library) == (60, "full")
    for other in ({"max_side": 61}, {"scales": (0.5,)}, {"decoding": "scaled"}):
        with pytest.raises(UserError, match="--again"):
            embed_places([plain], str(library), **other)
    embed_places([], str(library), again=True, decoding="scaled")
    assert how_of(library) == (60, "scaled")
    engine = SearchEngine(library)
    pixels = photo_pixels(plain, 60, reading=Reading(decoding="scaled"))
    np.testing.assert_array_equal(photo_pixels(plain, engine.max_side, reading=engine.reading), pixels)
    expected = load_extractor(MODEL).describe([pixels])[0]
    assert float(described(library)["plain.jpg"] @ expected) == pytest.approx(1, abs=1e-5)
    whole = load_extractor(MODEL).describe([photo_pixels(plain, 60)])[0]
    assert float(whole @ expected) < 1 - 1e-5
    engine.library.close()


def how_of(library: Path) -> tuple[int, str]:
    with closing(Catalogue(library)) as catalogue:
        identity = catalogue.identity()
        return identity["max_side"], identity["decoding"]


def test_a_plan_measures_the_time_and_writes_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    library, names = tmp_path / "library", [str(photos / "plain.jpg"), str(photos / "wide.jpg")]
    for number in range(6):
        (photos / f"{number}.jpg").write_bytes((photos / "plain.jpg").read_bytes() + bytes(number))
    tried = {}
    # Time for all photos, and only for the first.
    for seconds in (1e9, 0.0):
        monkeypatch.setattr(ingest, "PLAN_SECONDS", seconds)
        embed_places([str(photos)], str(library), model=MODEL, max_side=96, plan=True, threads=1)
        said = capsys.readouterr().out
        assert "10 of them to be described" in said
        found = re.search(r"([\d.]+) s per photo, measured on (\d+) ", said)
        assert found is not None
        tried[seconds] = int(found[2])
    assert tried[1e9] > tried[0.0] > 0
    assert not library.exists()
    embed_places(names, str(library), model=MODEL)
    capsys.readouterr()
    before = how_of(library)
    embed_places([], str(library), again=True, max_side=60, plan=True)
    assert "2 of them to be described" in capsys.readouterr().out
    assert how_of(library) == before
    embed_places(names, str(library), plan=True)
    assert "0 of them to be described" in capsys.readouterr().out


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
