"""Changed photos are described again, even if size and modification time are the same."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from dolglab.data.photos import PhotoFile
from dolglab.library import ingest
from dolglab.library.catalogue import FILE
from dolglab.library.ingest import Intake, embed, embed_places
from dolglab.library.library import Library
from dolglab.library.listing import Listing, find_photos
from dolglab.library.local_engine import describe_files
from dolglab.library.maintenance import merge
from dolglab.library.schema import LATER, photo_columns
from dolglab.sharing.loading import LoadedExtractor
from photo_library.conftest import save


@pytest.fixture
def library(loaded: LoadedExtractor, folder: Path, tmp_path: Path) -> Library:
    library = Library.open(tmp_path / "library", loaded.identity)
    embed(library, describe_files(loaded, find_photos([str(folder)])))
    return library


def changed(library: Library, *places: Path, again: bool = False) -> list[PhotoFile]:
    with closing(Listing([str(place) for place in places])) as listing:
        listing.compare(library.folder, again)
        return list(listing.changed())


def embed_again(library: Library, loaded: LoadedExtractor, *places: Path) -> Intake:
    return embed(library, describe_files(loaded, changed(library, *places)))


def change_in_place(path: Path) -> None:
    """As by `exiftool -P`: size and modification time stay the same."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    # A byte of the JPEG's density.
    assert data[6:10] == b"JFIF"
    data[15] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_photo_changed_in_place_is_described_again(library: Library, loaded: LoadedExtractor, folder: Path) -> None:
    change_in_place(folder / "a" / "0.jpg")
    outcome = embed_again(library, loaded, folder)
    assert (outcome.added, outcome.unchanged, outcome.bad) == (1, 0, 0)
    assert changed(library, folder) == []


def test_a_new_status_of_the_same_bytes_is_checked_once(
    library: Library, loaded: LoadedExtractor, folder: Path
) -> None:
    """As after a copy, a restored backup, or a change of permissions."""
    for path in folder.rglob("*.jpg"):
        path.chmod(0o600)
    outcome = embed_again(library, loaded, folder)
    assert (outcome.added, outcome.unchanged) == (0, 6)
    assert changed(library, folder) == []
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    shutil.rmtree(folder)
    copy.rename(folder)
    outcome = embed_again(library, loaded, folder)
    assert (outcome.added, outcome.unchanged, len(library)) == (0, 6, 6)


def test_all_photos_are_described_again_on_request(library: Library, loaded: LoadedExtractor, folder: Path) -> None:
    again = changed(library, folder / "a", again=True)
    assert [Path(file.name).parent.name for file in again] == ["a"] * 3
    assert embed(library, describe_files(loaded, again)).added == 3
    assert len(library) == 6


def test_a_library_of_an_earlier_version_is_not_described_again(
    library: Library, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library.close()
    with closing(sqlite3.connect(library.folder / FILE)) as db, db:
        for column in LATER:
            db.execute(f"ALTER TABLE photo DROP COLUMN {column}")
        db.execute("DELETE FROM about WHERE key = 'mounts'")
    shutil.copytree(library.folder, tmp_path / "copy")
    options = {"model": "efficientnet_lite0", "max_side": 64, "threads": 1}

    def said(**more: bool) -> str:
        embed_places([str(folder)], str(library.folder), **options, **more)
        return capsys.readouterr().out

    assert "0 of them to be described" in said(plan=True)
    assert "0 photos described, 6 already there" in said()
    change_in_place(folder / "a" / "0.jpg")
    assert "1 of them to be described" in said(plan=True)
    assert "1 photo described, 5 already there" in said()
    (folder / "a" / "0.jpg").chmod(0o600)
    assert "1 of them to be described (1 only if" in said(plan=True)
    assert "0 photos described, 6 already there" in said()
    # It can be read and merged without a change.
    merge([str(tmp_path / "copy")], str(tmp_path / "merged"))
    assert len(Library(tmp_path / "merged")) == 6
    with closing(sqlite3.connect(tmp_path / "copy" / FILE)) as db:
        assert not photo_columns(db) & LATER.keys()


def test_a_library_of_an_earlier_version_whose_describing_was_interrupted_continues(
    library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with library.change() as change:
        change.set_ctimes((name, None) for name in library.catalogue.names())
    library.close()

    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "embed", stopped)
        with pytest.raises(KeyboardInterrupt):
            embed_places([], str(library.folder), again=True)
    capsys.readouterr()
    embed_places([str(folder)], str(library.folder), max_side=64)
    assert "6 photos described, 0 already there" in capsys.readouterr().out


def test_a_file_known_by_another_path_is_not_added_again(
    library: Library, loaded: LoadedExtractor, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For example through a second mount or a link."""
    other = tmp_path / "0 other"
    other.mkdir()
    for path in folder.glob("a/?.jpg"):
        (other / path.name).hardlink_to(path)
    save(other / "new.jpg", 99)
    (tmp_path / "table.csv").write_text("file,year\n0 other/1.jpg,1901\n")
    embed_places(
        [str(other)], str(library.folder), model="efficientnet_lite0", max_side=64, metadata=str(tmp_path / "table.csv")
    )
    assert "1 photo described, 2 already there" in capsys.readouterr().out
    assert len(library) == 7
    known = library.catalogue.named(str(folder / "a" / "1.jpg"))
    assert known is not None
    assert known[0].metadata == {"year": "1901"}
    # With both paths listed, a change of the file is a change of the known photo.
    Image.new("RGB", (40, 30), "red").save(folder / "a" / "1.jpg")
    assert [file.name for file in changed(library, other, folder)] == [str(folder / "a" / "1.jpg")]


def test_a_picture_too_small_to_describe_is_named(library: Library, loaded: LoadedExtractor, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for size in ((1, 1), (12, 12), (900, 8), (16, 16), (5000, 8), (8, 2000)):
        Image.new("RGB", size, "red").save(small / f"{size[0]}x{size[1]}.png")
    outcome = embed_again(library, loaded, small)
    assert (outcome.added, outcome.bad) == (3, 3)
    assert {Path(photo.name).stem for photo in library.catalogue.bad()} == {"1x1", "12x12", "900x8"}
    assert all(
        photo.reason and photo.reason.startswith(Path(photo.name).stem.replace("x", " x "))
        for photo in library.catalogue.bad()
    )
    assert changed(library, small) == []


def test_photos_that_vanish_while_they_are_described_leave_nothing_behind(
    loaded: LoadedExtractor, folder: Path, tmp_path: Path
) -> None:
    """They are counted apart from unreadable ones; known photos keep their descriptors, until they are removed."""
    library = Library.open(tmp_path / "library", loaded.identity)
    known, *new = find_photos([str(folder)])
    embed(library, describe_files(loaded, [known]))
    save(Path(known.name), 77)
    save(folder / "a" / "broken.jpg", 5)
    (folder / "a" / "broken.jpg").write_bytes(b"no image")
    listed = changed(library, folder)
    kept = {name: Path(name).read_bytes() for name in (known.name, new[2].name)}
    for name in kept:
        Path(name).unlink()
    outcome = embed(library, describe_files(loaded, listed))
    assert (outcome.added, outcome.bad, outcome.vanished) == (4, 1, 2)
    assert [Path(bad.name).name for bad in library.catalogue.bad()] == ["broken.jpg"]
    assert len(library) == 5
    assert library.catalogue.named(new[2].name) is None
    for name, data in kept.items():
        Path(name).write_bytes(data)
    again = embed_again(library, loaded, folder)
    assert (again.added, again.bad, again.vanished) == (2, 0, 0)
    assert len(library) == 6


def test_the_command_counts_photos_that_vanished_apart(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = ingest.load_extractor

    def loading(*arguments, **options) -> LoadedExtractor:
        # The photos are listed by now, and not read yet.
        (folder / "a" / "1.jpg").unlink()
        return load(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "load_extractor", loading)
        embed_places([str(folder)], str(tmp_path / "library"), model="efficientnet_lite0", max_side=64)
    said = capsys.readouterr().out
    assert "5 photos described, 0 already there, 1 vanished before it was read: 5 in" in said
    assert "could not be read" not in said
    embed_places([str(folder)], str(tmp_path / "library"))
    assert "0 photos described, 5 already there: 5 in" in capsys.readouterr().out
