"""Tables joined to photos, however they spell the photos' names."""

from __future__ import annotations

import unicodedata
from contextlib import closing
from pathlib import Path

import pytest

from dolglab.errors import UserError
from dolglab.library.ingest import embed_places
from dolglab.library.library import Library
from dolglab.library.listing import Listing
from photo_library.conftest import save

CHURCH, STREET = "Église Été.jpg", "Straße.jpg"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Photos in folders, with names in NFD as on a Mac."""
    root = tmp_path / "photos"
    for seed, name in enumerate((CHURCH, STREET, "opera/000.jpg", "mucem/000.jpg", "a\\b.jpg", "b/x.jpg", "b/X.JPG")):
        save(root / unicodedata.normalize("NFD", name), seed)
    return root


def joined(root: Path, table: Path, limit: int = 9) -> tuple[dict[str, str], int, list[str]]:
    """The year of each photo by its path in NFC, the number of rows without a photo, and some of them."""
    with closing(Listing([str(root)])) as listing:
        count, strangers = listing.join(str(table), limit)
        years = {str(Path(name).relative_to(root)): columns["year"] for name, columns in listing.metadata()}
    return {unicodedata.normalize("NFC", name): year for name, year in years.items()}, count, strangers


def write(root: Path, rows: str, encoding: str = "utf-8") -> Path:
    table = root.parent / "table.csv"
    table.write_bytes(f"file,year\r\n{rows}".encode(encoding))
    return table


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("called", "photo"),
    [
        (CHURCH, CHURCH),
        (CHURCH.upper(), CHURCH),
        ("STRASSE.jpg", STREET),
        ("opera\\000.jpg", "opera/000.jpg"),
        (".\\Opera\\000.JPG", "opera/000.jpg"),
        ("./opera//000.jpg", "opera/000.jpg"),
        ("opera/../mucem/000.jpg", "mucem/000.jpg"),
        ("photos/mucem/000.jpg", "mucem/000.jpg"),
        # The exact spelling has precedence.
        ("a\\b.jpg", "a\\b.jpg"),
        ("x.jpg", "b/x.jpg"),
        ("X.JPG", "b/X.JPG"),
    ],
)
def test_names_match_in_any_spelling(root: Path, called: str, photo: str, form: str, encoding: str) -> None:
    table = write(root, f"{unicodedata.normalize(form, called)},1901\r\n", encoding)
    assert joined(root, table) == ({photo: "1901"}, 0, [])


@pytest.mark.parametrize("called", ["000.jpg", "b\\X.jpg"])
def test_an_ambiguous_name_is_refused(root: Path, called: str) -> None:
    with pytest.raises(UserError, match="2 photos"):
        joined(root, write(root, f"{called},1901\n"))


def test_rows_without_a_photo_are_listed(root: Path) -> None:
    table = write(root, "nobody.jpg,1901\nera/000.jpg,1902\n,1903\nopera/000.jpg,1904\n")
    assert joined(root, table) == ({"opera/000.jpg": "1904"}, 3, ["nobody.jpg", "era/000.jpg", ""])
    assert joined(root, table, 1)[1:] == (3, ["nobody.jpg"])


def test_two_rows_for_one_photo_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match=r"opera/000\.jpg.* OPERA"):
        joined(root, write(root, "opera/000.jpg,1901\nmucem/000.jpg,1902\nOPERA\\000.jpg,1901\n"))
    (root / "again.jpg").symlink_to("opera/000.jpg")
    with pytest.raises(UserError, match=r"again\.jpg"):
        joined(root, write(root, "opera/000.jpg,1901\nagain.jpg,1902\n"))
    assert joined(root, write(root, "again.jpg,1902\n")) == ({"opera/000.jpg": "1902"}, 0, [])


def test_a_second_table_adds_its_columns_to_those_of_the_first(root: Path) -> None:
    folder = root.parent / "library"

    def columns(*rows: str, again: bool = False) -> dict[str, dict[str, str]]:
        (root.parent / "table.csv").write_text("\n".join(rows))
        table = str(root.parent / "table.csv")
        embed_places([str(root)], str(folder), model="efficientnet_lite0", max_side=64, metadata=table, again=again)
        with closing(Library(folder)) as library:
            page = next(library.catalogue.pages())
            return {"/".join(photo.name.split("/")[-2:]): dict(photo.metadata) for photo, _ in page if photo.metadata}

    first = columns("file,landmark,year", "opera/000.jpg,opera,1900", "mucem/000.jpg,mucem,1901", "x.jpg,,")
    opera, mucem = {"landmark": "opera", "year": "1900"}, {"landmark": "mucem", "year": "1901"}
    assert first == {"opera/000.jpg": opera, "mucem/000.jpg": mucem}
    second = ("file,year,place", "opera/000.jpg,,here", "mucem/000.jpg,1999")
    opera, mucem = {"landmark": "opera", "place": "here"}, {"landmark": "mucem", "year": "1999"}
    for again in (False, True):
        assert columns(*second, again=again) == {"opera/000.jpg": opera, "mucem/000.jpg": mucem}
    with closing(Library(folder)) as library:
        assert library.catalogue.columns() == ["landmark", "place", "year"]


def test_files_that_are_not_tables_are_refused(root: Path) -> None:
    for data in (b"name,year\na,1\n", b"file,year\n\xe9.jpg,1\n", b"\xff\xfef\x00i", b""):
        (root.parent / "table.csv").write_bytes(data)
        with pytest.raises(UserError, match=r"table\.csv"):
            joined(root, root.parent / "table.csv")
