"""Listing photos below folders and in lists of files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from dolglab.errors import UserError
from dolglab.library.listing import Listing
from dolglab.library.naming import read_list
from photo_library.conftest import save


def names(*places: str, listed: str | None = None, exclude: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The photos, and entries that do not exist."""
    with closing(Listing(places, listed=listed, exclude=exclude)) as listing:
        return [file.name for file in listing], [error.filename for error in listing.unreadable]


def below(folder: Path, exclude: Sequence[str] = ()) -> set[str]:
    return {str(Path(name).relative_to(folder)) for name in names(str(folder), exclude=exclude)[0]}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_list_names_files_and_folders_and_missing_ones_are_left_out(
    folder: Path, tmp_path: Path, end: str, encoding: str
) -> None:
    listed = tmp_path / "list.txt"
    wanted = [str(folder / "a" / "0.jpg"), str(tmp_path / "gone 写真.jpg"), str(folder / "b c")]
    listed.write_bytes(end.join([*wanted, wanted[0]]).encode(encoding))
    for chunk in (1 << 20, len((wanted[0] + end).encode(encoding))):
        assert list(read_list(str(listed), chunk)) == [*wanted, wanted[0]]
    found, gone = names(str(folder / "a" / "1.jpg"), listed=str(listed))
    assert found == [str(folder / name) for name in ("a/0.jpg", "a/1.jpg", "b c/3.jpg", "b c/4.jpg", "b c/5.jpg")]
    assert gone == [wanted[1]]


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
def test_a_byte_order_mark_determines_the_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "list.txt").write_bytes("\ufeffa.jpg\r\né.jpg\r\n".encode(encoding))
    assert list(read_list(str(tmp_path / "list.txt"))) == ["a.jpg", "é.jpg"]


def test_a_name_that_is_not_utf8_is_the_one_on_disk(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf\xe9.jpg\n")
    assert list(map(os.fsencode, read_list(str(tmp_path / "list.txt")))) == [b"\xe9.jpg"]


def test_names_with_newlines_are_separated_by_nul(folder: Path, tmp_path: Path) -> None:
    (odd,) = folder.glob("a/photo*")
    assert "\n" in odd.name
    (tmp_path / "list.txt").write_text(f"{odd}\0")
    assert names(listed=str(tmp_path / "list.txt")) == ([str(odd)], [])


@pytest.mark.parametrize(
    "data",
    [
        # UTF-16 and UTF-32 without a mark, which would be names of single letters: "/", ".".
        "/a.jpg\r\n/b.jpg\r\n".encode("utf-16-le"),
        "/a.jpg".encode("utf-16-be"),
        "写真/a.jpg".encode("utf-16-le"),
        "/a.jpg\n".encode("utf-32-le"),
        "\ufeffa.jpg".encode("utf-16-le")[:-1],
        # Line breaks and NUL.
        b"a.jpg\nb.jpg\0c.jpg\n",
        b"a.jpg\nb.jpg\0c.jpg",
        b"a.jpg\0b.jpg\r\n\0",
    ],
)
@pytest.mark.parametrize("chunk", [4, 1 << 20])
def test_an_ambiguous_list_is_refused(tmp_path: Path, data: bytes, chunk: int) -> None:
    """No other file is opened."""
    listed = tmp_path / "list.txt"
    listed.write_bytes(data)
    with pytest.raises(UserError, match=r"list\.txt"):
        names(listed=str(listed))
    if b"jpg\0c" not in data:
        with pytest.raises(UserError, match=r"list\.txt.*UTF-"):
            list(read_list(str(listed), chunk))


@pytest.mark.parametrize(("text", "said"), [(None, r"list\.txt"), ("", r"list\.txt"), ("s3x://a", r"s3x://a")])
def test_an_empty_list_is_a_user_error(tmp_path: Path, text: str | None, said: str) -> None:
    listed = tmp_path / "list.txt"
    if text is not None:
        listed.write_text(text)
    with pytest.raises(UserError, match=said):
        names(listed=str(listed))


def test_files_of_a_nas_and_of_recycle_bins_are_not_photos(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/@eaDir/1.jpg/SYNOFILE_THUMB_M.jpg", "#recycle/b/2.jpg", "lost+found/3.jpg"):
        save(tmp_path / name, 1)
    save(tmp_path / "$RECYCLE.BIN" / "4.jpg", 1)
    save(tmp_path / ".cache" / "5.jpg", 1)
    assert below(tmp_path) == {"a/1.jpg"}
    # Named directly, they are listed.
    assert below(tmp_path / "#recycle") == {"b/2.jpg"}


def test_excluded_files_are_left_out(tmp_path: Path) -> None:
    for name in ("2019/a.jpg", "2019/thumbs/a.jpg", "2020/a.png", "2020/a.jpg", "thumbs/b.jpg", "b.jpg"):
        save(tmp_path / name, 1)
    assert below(tmp_path, ["thumbs"]) == {"2019/a.jpg", "2020/a.png", "2020/a.jpg", "b.jpg"}
    assert below(tmp_path, ["2019/*", "*.png"]) == {"2020/a.jpg", "thumbs/b.jpg", "b.jpg"}
    assert below(tmp_path, ["/thumbs/", "/*.jpg"]) == {"2020/a.png"}
    assert below(tmp_path, ["/thumbs/", "/b.jpg", "202?"]) == {"2019/a.jpg", "2019/thumbs/a.jpg"}


def test_folders_of_an_object_store_are_excluded_too() -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    for name in ("a.jpg", "@eaDir/b.jpg", "thumbs/c.jpg", ".d/e.jpg", "f/g.jpg"):
        store.pipe(f"/excluding/{name}", b"one")
    try:
        found, _ = names("memory://excluding", exclude=["thumbs"])
        assert [name.rpartition("excluding/")[2] for name in found] == ["a.jpg", "f/g.jpg"]
    finally:
        store.rm("/excluding", recursive=True)


def test_links_out_of_a_folder_are_named_and_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    save(inside / "a.jpg", 1)
    save(outside / "b.jpg", 2)
    (inside / "folder").symlink_to(outside)
    (inside / "file.jpg").symlink_to(outside / "b.jpg")
    (inside / "nowhere.jpg").symlink_to(inside / "nothing.jpg")
    (inside / "loop.jpg").symlink_to(inside / "loop.jpg")
    (inside / "here").symlink_to(inside)
    with closing(Listing([str(inside)])) as listing:
        assert [file.name for file in listing] == [str(inside / "a.jpg")]
        assert sorted(listing.links) == [str(inside / "file.jpg"), str(inside / "folder")]
        assert sorted(error.filename for error in listing.unreadable) == [
            str(inside / "loop.jpg"),
            str(inside / "nowhere.jpg"),
        ]


def test_a_file_with_several_paths_is_listed_once(tmp_path: Path) -> None:
    save(tmp_path / "b" / "photo.jpg", 1)
    (tmp_path / "b" / "alias.jpg").symlink_to("photo.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    save(tmp_path / "c" / "other.jpg", 1)
    (tmp_path / "c" / "second.jpg").hardlink_to(tmp_path / "c" / "other.jpg")
    places = [str(tmp_path / name) for name in ("b", "link", "link/alias.jpg", "c")]
    with closing(Listing(places)) as listing:
        assert [file.name for file in listing] == [str(tmp_path / "b/photo.jpg"), str(tmp_path / "c/other.jpg")]
        assert listing.twin_count() == 2
        assert listing.twins(1) == [(str(tmp_path / "b/alias.jpg"), str(tmp_path / "b/photo.jpg"))]


def test_mount_points_of_photos_are_known(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_mount():
        pytest.skip("no /dev/shm is mounted here")
    save(tmp_path / "a.jpg", 1)
    with tempfile.TemporaryDirectory(dir=memory) as folder, closing(Listing([str(tmp_path)])) as here:
        save(Path(folder) / "in" / "b.jpg", 1)
        with closing(Listing([folder, str(tmp_path)])) as both:
            assert both.mounts() - here.mounts() == {str(memory)}
