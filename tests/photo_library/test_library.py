"""A library: what it finds, what it keeps through changes and kills, and what it refuses."""

from __future__ import annotations

import errno
import os
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from dolglab.data.photos import PhotoFile, photo_pixels
from dolglab.errors import UserError
from dolglab.library.catalogue import FILE, Catalogue
from dolglab.library.contents import Photo
from dolglab.library.ingest import embed
from dolglab.library.library import Library
from dolglab.library.listing import Listing, find_photos
from dolglab.library.local_engine import describe_files
from dolglab.library.search_engine import SearchEngine
from dolglab.library.stores import SegmentLimits
from dolglab.sharing.loading import LoadedExtractor
from photo_library.conftest import describe, save
from photo_library.made import identity

IDENTITY = identity(4)


def unit(*rows: list[float]) -> np.ndarray:
    table = np.array(rows, np.float32)
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def photo(name: str, **metadata: str) -> Photo:
    return Photo(name, 1, 1, (2, 3), metadata=metadata)


def changed(library: Library, folder: Path) -> list[PhotoFile]:
    with closing(Listing([str(folder)])) as listing:
        listing.compare(library.folder)
        files = list(listing.changed())
        assert len(files) == listing.changed_count()
        return files


def names(answers: list) -> list[str]:
    return [answer.photo.name for answer in answers]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library.open(tmp_path / "library", IDENTITY)
    library.add(
        [photo("a", year="1900"), photo("b", year="1900", place="x"), photo("c")],
        unit([1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]),
    )
    return library


def test_answers_are_exact_cosines_best_first(library):
    (answers,) = library.search(unit([1, 0.1, 0, 0]), 3)
    assert names(answers) == ["a", "b", "c"]
    np.testing.assert_allclose([answer.cosine for answer in answers], [0.99504, 0.77395, 0.0], atol=1e-5)
    assert answers[1].photo.metadata == {"year": "1900", "place": "x"}


def test_only_photos_that_pass_the_filters_are_found(library):
    query = unit([0, 0, 1, 0])
    assert sorted(names(library.search(query, 9, {"year": "1900"})[0])) == ["a", "b"]
    assert names(library.search(query, 9, {"year": "1900", "place": "x"})[0]) == ["b"]
    assert library.search(query, 9, {"place": "y"}) == [[]]
    odd = """ o"d'd $.[0] 🙂"""
    library.add([photo("d", **{odd: odd})], unit([0, 0, 0, 1]))
    assert names(library.search(query, 9, {odd: odd})[0]) == ["d"]
    library.remove(["d"])
    with pytest.raises(UserError, match=r"colour.*place, year"):
        library.search(query, 9, {"colour": "red"})


def test_photos_are_added_changed_and_removed_without_a_rebuild(library):
    query = unit([0, 0, 0, 1])
    library.add([photo("d"), photo("a")], unit([0, 0, 0, 1], [0, 0, 0.2, 1]))
    assert names(library.search(query, 2)[0]) == ["d", "a"]
    assert len(library) == 4
    # Earlier columns stay if no new ones are given.
    assert library.search(query, 2)[0][1].photo.metadata == {"year": "1900"}
    assert library.remove(["d", "nobody"]) == 1
    assert names(library.search(query, 9)[0])[0] == "a"
    with library.change() as change:
        change.put([Photo("a", 2, 2, reason="zero bytes")], [None])
    assert sorted(names(library.search(query, 9)[0])) == ["b", "c"]
    assert [(bad.name, bad.reason) for bad in library.catalogue.bad()] == [("a", "zero bytes")]


def test_readers_see_changes_by_other_processes(library):
    reader = Library(library.folder)
    query = unit([0, 0, 0, 1])
    assert len(reader) == 3
    with library.writing():
        library.add([photo("d")], unit([0, 0, 0, 1]))
    assert names(reader.search(query, 1)[0]) == ["d"]
    with library.writing():
        library.remove(["a", "b", "c"])
    assert len(list((library.folder / "segments").glob("*.flat"))) == 1
    assert names(reader.search(query, 9)[0]) == ["d"]


def test_a_segment_missing_in_the_catalogue_is_ignored(library, monkeypatch):
    """As after a kill between the two writes."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dolglab.library.catalogue.Change.put", killed)
        with pytest.raises(KeyboardInterrupt):
            library.add([photo("d")], unit([0, 0, 0, 1]))
    again = Library(library.folder)
    assert len(again) == 3
    assert names(again.search(unit([0, 0, 0, 1]), 9)[0]) == ["a", "b", "c"]
    with again.writing():
        pass
    assert len(list((library.folder / "segments").glob("*.flat"))) == 1


def test_photos_of_a_damaged_segment_are_described_again(loaded: LoadedExtractor, folder: Path, tmp_path: Path):
    files = find_photos([str(folder)])
    library = Library.open(tmp_path / "library", loaded.identity)
    embed(library, describe_files(loaded, files[:2]))
    embed(library, describe_files(loaded, files[2:]))
    with library.catalogue.change() as change:
        change.set_metadata(files[0].name, {"year": "1900"})
    (tmp_path / "library" / "segments" / "00000001.flat").write_bytes(b"cut short")
    again = Library(tmp_path / "library", loaded.identity)
    query = describe(loaded, files[0].name)
    with pytest.raises(UserError, match=r"00000001\.flat"):
        again.search(query, 1)
    assert again.forget_damaged() == 2
    assert again.forget_damaged() == 0
    assert embed(again, describe_files(loaded, changed(again, folder))).added == 2
    ((best,),) = again.search(query, 1)
    assert (best.photo.name, best.photo.metadata) == (files[0].name, {"year": "1900"})


def test_another_model_another_format_or_no_library_is_refused(library, tmp_path):
    for key, value in (
        ("model", "n"),
        ("dim", 5),
        ("scales", [0.5]),
        ("max_side", 65),
        ("colour", "ignore"),
        ("decoding", "scaled"),
    ):
        said = r"M \(m\)" if key == "model" else rf"{key} .* not {re.escape(str(value))}"
        with pytest.raises(UserError, match=said):
            Library(library.folder, {**IDENTITY, key: value})
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "nothing"))):
        Library(tmp_path / "nothing")
    (tmp_path / FILE).write_bytes(b"no database at all, but long enough to be read as one")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / FILE))):
        Library(tmp_path)


def test_only_one_process_writes(library):
    with library.writing():
        pid = os.fork()
        if not pid:
            try:
                with Library(library.folder).writing():
                    os._exit(1)
            except UserError:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0


def test_photos_find_themselves_and_only_changed_ones_are_described(
    loaded: LoadedExtractor, folder: Path, tmp_path: Path
):
    (folder / "a" / "text.jpg").write_text("no image")
    (folder / "a" / "empty.png").touch()
    (folder / "a" / "notes.txt").touch()
    (folder / "b c" / "drawing.SVG").write_text("<svg/>")
    outside = tmp_path / "outside.jpg"
    save(outside, 9)
    (folder / "a" / "link.jpg").symlink_to(outside)
    save(folder / "a" / "._0.jpg", 10)
    save(folder / ".thumbnails" / "0.jpg", 11)
    library = Library.open(tmp_path / "library", loaded.identity)
    files = find_photos([str(folder)])
    with closing(Listing([str(folder)])) as listing:
        assert files == list(listing)
        assert listing.others == {".svg": 1, ".txt": 1}
    assert len(files) == 8
    outcome = embed(library, describe_files(loaded, files))
    assert (outcome.added, outcome.bad) == (6, 2)
    assert {Path(bad.name).name: bad.reason for bad in library.catalogue.bad()} == {
        "text.jpg": "not an image",
        "empty.png": "zero bytes",
    }
    photos = [file for file in files if Path(file.name).name not in ("text.jpg", "empty.png")]
    engine = SearchEngine(library.folder)
    found = engine.search([photo_pixels(file.name, 64) for file in photos], 3)
    for file, (best, *_) in zip(photos, found, strict=True):
        assert best.photo.name == file.name
        assert best.cosine == pytest.approx(1, abs=1e-5)
        assert best.photo.shape == (43, 64)

    save(Path(photos[0].name), 77)
    os.utime(photos[0].name, ns=(1, 1))
    again = changed(library, folder)
    assert [file.name for file in again] == [photos[0].name]
    assert embed(library, describe_files(loaded, again)).added == 1
    assert len(library) == 6


def test_missing_and_empty_places_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "gone"))):
        find_photos([str(tmp_path / "gone")])
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        find_photos([str(tmp_path)])
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        Listing([str(tmp_path)])


def test_an_object_stores_photos_are_found_and_read():
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe("/bucket/photos/a.jpg", b"one")
    store.pipe("/bucket/photos/readme.txt", b"two")
    try:
        (found,) = find_photos(["memory://bucket/photos"])
        assert found.name == "memory:///bucket/photos/a.jpg" or found.name == "memory://bucket/photos/a.jpg"
        assert (found.size, found.read()) == (3, b"one")
        store.pipe("/bucket/photos/a.jpg", b"new")
        assert find_photos(["memory://bucket/photos"]) != [found]
    finally:
        store.rm("/bucket", recursive=True)


def test_temporary_failures_are_retried_and_keep_the_older_descriptor(
    loaded: LoadedExtractor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With an unmounted disk, nothing is lost, and unreadable files are read again later."""
    library = Library.open(tmp_path / "library", loaded.identity)
    first, second, *_ = find_photos([str(folder)])
    embed(library, describe_files(loaded, [first]))
    save(Path(first.name), 77)

    def unplugged(self: PhotoFile) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(PhotoFile, "read", unplugged)
        again = changed(library, folder)
        assert embed(library, describe_files(loaded, again)).bad == len(again) == 6
    assert len(library) == 1
    assert {bad.reason for bad in library.catalogue.bad()} == {"Input/output error"}
    assert changed(library, folder) == again
    assert embed(library, describe_files(loaded, again)).added == 6
    assert changed(library, folder) == []
    assert second.name in {photo.name for page in library.catalogue.pages() for photo, _ in page}


def test_concurrent_first_commands_make_one_library(tmp_path: Path):
    first = Library.open(tmp_path / "library", IDENTITY)
    about = {"identity": {**IDENTITY, "title": "second"}, "store": {"kind": "flat"}}
    assert not Catalogue.create(tmp_path / "library", about)
    first.add([photo("a")], unit([1, 0, 0, 0]))
    assert len(Library(tmp_path / "library", IDENTITY)) == 1


def test_photos_can_be_added_despite_a_damaged_segment(library):
    (library.folder / "segments" / "00000001.flat").write_bytes(b"cut short")
    again = Library(library.folder, limits=SegmentLimits(tier=1.5))
    with again.writing():
        again.add([photo("d")], unit([0, 0, 0, 1]))
        again.add([photo("e")], unit([0, 0, 0, 1]))
    assert len(again) == 5


def test_an_inverted_box_is_refused(folder: Path):
    with pytest.raises(UserError, match="5,5,4,9"):
        photo_pixels(str(folder / "a" / "0.jpg"), 64, (5, 5, 4, 9))


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (-1, 0, 5, 5), (0, 0, 73, 48), (0, 0, 0.2, 0.2)])
def test_a_box_outside_the_photo_is_refused(folder: Path, box):
    with pytest.raises(UserError, match=r"0\.jpg, of 72 x 48"):
        photo_pixels(str(folder / "a" / "0.jpg"), 64, box)


def test_a_query_that_is_not_a_photo_is_refused(tmp_path: Path):
    path = tmp_path / "a.jpg"
    with pytest.raises(UserError, match=re.escape(str(path))):
        photo_pixels(str(path), 64)
    path.write_text("text")
    with pytest.raises(UserError, match=re.escape(str(path))):
        photo_pixels(str(path), 64)
