"""Date and place from EXIF as columns, together with those of tables, and filters on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dolglab.errors import UserError
from dolglab.library.contents import Photo
from dolglab.library.exif import read_exif, remove_exif
from dolglab.library.ingest import embed_places
from dolglab.library.library import Library
from dolglab.library.maintenance import merge
from exif_bytes import LATITUDE, LATITUDE_REF, LONGITUDE, LONGITUDE_REF, TAKEN, exif_bytes, in_jpeg
from photo_library.conftest import save
from photo_library.made import library_of, unit

PLACE = {
    LATITUDE_REF: "N",
    LATITUDE: [(43, 1), (30, 1), (0, 1)],
    LONGITUDE_REF: "E",
    LONGITUDE: [(5, 1), (15, 1), (0, 1)],
}
COLUMNS = {"taken": "2019-07-04T12:34:56", "latitude": "43.500000", "longitude": "5.250000"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two photos, the first with date and place."""
    root = tmp_path / "photos"
    for seed, name in enumerate(("a.jpg", "b.jpg")):
        save(root / name, seed)
    write_exif(root / "a.jpg", "2019:07:04 12:34:56")
    return root


def write_exif(path: Path, taken: str) -> None:
    save(path, 0)
    path.write_bytes(in_jpeg(path.read_bytes(), exif_bytes({TAKEN: taken}, PLACE)))


def embed(root: Path, **options: object) -> Path:
    folder = root.parent / "library"
    embed_places([str(root)], str(folder), **({"model": "efficientnet_lite0", "max_side": 64} | options))
    return folder


def photo(folder: Path, name: str) -> Photo:
    library = Library(folder)
    found = library.catalogue.named(str(folder.parent / "photos" / name))
    library.close()
    assert found is not None
    return found[0]


def table(root: Path, rows: str) -> str:
    path = root.parent / "table.csv"
    path.write_text(f"file,{rows}")
    return str(path)


def test_date_place_and_size_are_stored_with_the_photo(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = embed(root, max_side=24)
    assert "1 photo with a place" in capsys.readouterr().out
    found = photo(folder, "a.jpg")
    assert dict(found.metadata) == COLUMNS == found.exif
    assert (found.stored, found.shape) == ((48, 72), (16, 24))
    assert dict(photo(folder, "b.jpg").metadata) == {} == photo(folder, "b.jpg").exif


def test_values_of_a_table_take_precedence_and_stay(root: Path) -> None:
    folder = embed(root, metadata=table(root, "taken,year\na.jpg,1950,1950\n"))
    assert dict(photo(folder, "a.jpg").metadata) == {**COLUMNS, "taken": "1950", "year": "1950"}
    # A new file with the same name: the date of the table stays, the rest comes from the new file.
    write_exif(root / "a.jpg", "2020:01:01 00:00:00")
    embed(root)
    assert dict(photo(folder, "a.jpg").metadata) == {**COLUMNS, "taken": "1950", "year": "1950"}
    embed(root, metadata=table(root, "year\na.jpg,1951\n"))
    assert dict(photo(folder, "a.jpg").metadata) == {**COLUMNS, "taken": "1950", "year": "1951"}
    # An empty cell removes the table's value, so that the date of the file appears again.
    embed(root, metadata=table(root, "taken\na.jpg,\n"))
    assert dict(photo(folder, "a.jpg").metadata) == {**COLUMNS, "taken": "2020-01-01T00:00:00", "year": "1951"}


def test_a_new_date_in_a_file_replaces_the_old_one(root: Path) -> None:
    folder = embed(root)
    write_exif(root / "a.jpg", "2020:01:01 00:00:00")
    embed(root)
    assert photo(folder, "a.jpg").metadata["taken"] == "2020-01-01T00:00:00"


def test_no_exif_leaves_places_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = embed(root, metadata=table(root, "taken\nb.jpg,1950\n"))
    capsys.readouterr()
    embed(root, no_exif=True)
    assert dict(photo(folder, "a.jpg").metadata) == {}
    assert dict(photo(folder, "b.jpg").metadata) == {"taken": "1950"}
    # Later runs leave them out too.
    embed_places([], str(folder), again=True)
    assert dict(photo(folder, "a.jpg").metadata) == {}
    assert "--no-exif" not in capsys.readouterr().out
    library = Library(folder)
    assert library.catalogue.columns() == ["taken"]
    read_exif(library)
    assert dict(photo(folder, "a.jpg").metadata) == COLUMNS
    remove_exif(library)
    assert library.catalogue.columns() == ["taken"]
    library.close()


def test_an_older_library_gets_them_without_describing_photos_again(root: Path, capsys) -> None:
    """Like a library of an earlier version, without EXIF. One file has changed since, one is missing."""
    save(root / "c.jpg", 3)
    folder = embed(root, metadata=table(root, "latitude\na.jpg,50\n"))
    library = Library(folder)
    with library.change() as change:
        change.take_exif(False)
    keys = library.keys().tolist()
    write_exif(root / "b.jpg", "2020:01:01 00:00:00")
    (root / "c.jpg").unlink()
    capsys.readouterr()
    read_exif(library)
    assert "3 photos read: 1 with a date, 1 with a place\nnot read: 2 files" in capsys.readouterr().out
    assert dict(photo(folder, "a.jpg").metadata) == {**COLUMNS, "latitude": "50"}
    assert dict(photo(folder, "b.jpg").metadata) == {}
    assert library.keys().tolist() == keys
    library.close()


def test_addresses_that_are_not_allowed_are_skipped(root: Path, capsys) -> None:
    library = Library(embed(root, no_exif=True))
    library.add([Photo("s3://somebody/a.jpg", 1, 1, (1, 1))], unit(1, library.identity["dim"]))
    with library.change() as change:
        change.take_exif(False)
    read_exif(library)
    assert "3 photos read: 1 with a date, 1 with a place\nnot read: 1 file " in capsys.readouterr().out
    library.close()


def test_merging_keeps_values_of_tables(tmp_path: Path) -> None:
    old = Photo("/a", 1, 5, (1, 1), metadata={"taken": "1950"})
    new = Photo("/a", 1, 6, (1, 1), metadata=COLUMNS, stored=(30, 40), exif=COLUMNS)
    for name, each in (("old", old), ("new", new)):
        library_of(tmp_path / name, [each], unit(1, 4)).close()
    merge([str(tmp_path / "old"), str(tmp_path / "new")], str(tmp_path / "all"))
    library = Library(tmp_path / "all")
    entry = library.catalogue.named("/a")
    assert entry is not None
    assert dict(entry[0].metadata) == {**COLUMNS, "taken": "1950"}
    assert entry[0].stored == (30, 40)


DATES = [
    "2018",
    "2018-12-31T23:59:59",
    "2019",
    "2019-03",
    "2019-07-04T12:00:00",
    "2019-07-31T23:00:00+02:00",
    "2020-01",
]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("2019", [2, 3, 4, 5]),
        # A photo with only a year may be from July.
        ("2019-07", [2, 4, 5]),
        ("2019-07-04", [2, 4]),
        ("2019-07-31", [2, 5]),
        ("2019-02..2019-06", [2, 3]),
        ("2019-03..2019-07-04", [2, 3, 4]),
        ("2019-07-04T12:00..2019-07-04T13:00", [2, 4]),
        ("..2018", [0, 1]),
        ("2019-12..", [2, 6]),
        ("2018-12-31..2019", [0, 1, 2, 3, 4, 5]),
        ("1990", []),
        ("summer", []),
    ],
)
def test_periods_filter_by_date(tmp_path: Path, value: str, found: list[int]) -> None:
    photos = [Photo(f"/{n}", 1, 1, (1, 1), metadata={"taken": taken}) for n, taken in enumerate(DATES)]
    library = library_of(tmp_path / "library", photos, unit(len(DATES), 4))
    answers = library.search(unit(1, 4), 9, {"taken": value})[0]
    assert sorted(int(answer.photo.name[1:]) for answer in answers) == found


@pytest.mark.parametrize("value", ["2019-13..2020", "2019..july", "2019-02-30..", ".."])
def test_a_period_without_dates_is_refused(tmp_path: Path, value: str) -> None:
    library = library_of(tmp_path / "library", [Photo("/a", 1, 1, (1, 1), metadata={"taken": "2019"})], unit(1, 4))
    with pytest.raises(UserError, match="taken="):
        library.search(unit(1, 4), 9, {"taken": value})


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"latitude": "43..44"}, [0, 1]),
        ({"latitude": "43.2..", "longitude": "5..6"}, [1, 4]),
        ({"latitude": "..-10"}, [2, 3]),
        ({"longitude": "170..-170"}, [2, 3]),
        ({"longitude": "178.4..-170.7"}, [2, 3]),
        ({"longitude": "-170..170"}, [0, 1, 4]),
        ({"score": "9..10"}, [0]),
        ({"score": "1914..1918"}, [1]),
        ({"score": "a..b"}, [2]),
        ({"score": ".."}, [3]),
        ({"score": "0..99"}, [0]),
    ],
)
def test_ranges_filter_by_number(tmp_path: Path, filters: dict[str, str], found: list[int]) -> None:
    rows = [
        ("43.0", "4.9", "9.5"),
        ("43.5", "5.1", "1914..1918"),
        ("-18.1", "178.4", "a..b"),
        ("-14.3", "-170.7", ".."),
        ("59", "5.5", "many"),
    ]
    names = ("latitude", "longitude", "score")
    photos = [Photo(f"/{n}", 1, 1, (1, 1), metadata=dict(zip(names, row, strict=True))) for n, row in enumerate(rows)]
    library = library_of(tmp_path / "library", photos, unit(len(rows), 4))
    keys = library.catalogue.matching(filters).tolist()
    assert [int(each.name[1:]) for each in library.catalogue.photos(keys).values()] == found


def test_only_valid_places_are_listed(tmp_path: Path) -> None:
    rows = [("43.5", "5.25"), ("91", "0"), ("north", "5"), ("nan", "5"), ("-10", "180")]
    photos = [Photo(f"/{n}", 1, 1, (1, 1), metadata={"latitude": a, "longitude": b}) for n, (a, b) in enumerate(rows)]
    photos.append(Photo("/half", 1, 1, (1, 1), metadata={"latitude": "43"}))
    library = library_of(tmp_path / "library", photos, unit(len(photos), 4))
    assert library.catalogue.places() == [(1, 43.5, 5.25), (5, -10.0, 180.0)]
