"""Removing photos, and the properties of a library."""

from __future__ import annotations

from pathlib import Path

import pytest

from dolglab.errors import UserError
from dolglab.library.contents import Photo
from dolglab.library.library import Library
from dolglab.library.maintenance import print_info, remove
from photo_library.made import library_of, unit

ODD = "photo = '\"é🙂\n\udce9.jpg"


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Three files, one with an odd name, and an object store's photo."""
    names = [str(tmp_path / "photos" / name) for name in ("a.jpg", "b.jpg", ODD)] + ["s3://bucket/c.jpg"]
    (tmp_path / "photos").mkdir()
    for name in names[:3]:
        Path(name).touch()
    photos = [Photo(name, 1, 1, (1, 1), metadata={"year": "1900"}) for name in names]
    library = library_of(tmp_path / "library", photos, unit(4, 4))
    with library.change() as change:
        change.put([Photo(str(tmp_path / "photos" / "broken\n.jpg"), 1, 1, reason="zero bytes")], [None])
    return library


def left(library: Library) -> set[str]:
    return {name.rpartition("/")[2] for name in (photo.name for page in library.catalogue.pages() for photo, _ in page)}


def test_photos_are_removed_by_any_path_to_them(library: Library, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    remove(library, [f"photos/{ODD}", "link/../photos/a.jpg", "s3://bucket/c.jpg"])
    assert "3 photos removed: 1 in" in capsys.readouterr().out
    remove(library, ["link/b.jpg"])
    assert left(library) == {"broken\n.jpg"}
    assert (tmp_path / "photos" / ODD).exists()


def test_one_unknown_photo_prevents_any_removal(library: Library) -> None:
    with pytest.raises(UserError, match=r"nobody\\n\.jpg"):
        remove(library, [str(library.folder.parent / "photos" / "a.jpg"), "nobody\n.jpg"])
    with pytest.raises(UserError, match="--gone"):
        remove(library, [])
    assert len(library) == 4


def test_photos_are_removed_by_end_of_path_and_by_folder(library: Library, tmp_path: Path, capsys) -> None:
    more = [str(tmp_path / "more" / name) for name in ("b.jpg", "in/c.jpg", "in/d.jpg")]
    library.add([Photo(name, 1, 1, (1, 1)) for name in [*more, "s3://bucket/in/e.jpg"]], unit(4, 4, seed=1))
    with pytest.raises(UserError, match=r"2 photos.*b\.jpg"):
        remove(library, ["A.jpg", "b.jpg"])
    with pytest.raises(UserError, match=r"ore/b\.jpg"):
        remove(library, ["ore/b.jpg"])
    for nothing in ("", "in", str(tmp_path / "mor")):
        with pytest.raises(UserError, match="nothing was removed"):
            remove(library, [nothing])
    assert len(library) == 8
    remove(library, ["A.JPG", "more\\b.jpg", "bucket/c.jpg"])
    assert left(library) == {"b.jpg", ODD, "broken\n.jpg", "c.jpg", "d.jpg", "e.jpg"}
    remove(library, [str(tmp_path / "more")])
    remove(library, ["s3://bucket/in/"])
    assert left(library) == {"b.jpg", ODD, "broken\n.jpg"}


def test_folders_are_removed_by_the_end_of_their_path(library: Library, tmp_path: Path, monkeypatch) -> None:
    names = [f"more/{name}.jpg" for name in ("opera/a", "opera/in/b", "Mucem/a", "museum/opera/a", "operas/a")]
    paths = [*(str(tmp_path / name) for name in names), "s3://bucket/port/a.jpg"]
    library.add([Photo(name, 1, 1, (1, 1)) for name in paths], unit(6, 4, seed=1))

    def there() -> set[str]:
        return {name.removeprefix(f"{tmp_path}/") for name in library.catalogue.names()} & {*names, paths[-1]}

    with pytest.raises(UserError, match=r"opera matches 2 .*/more/museum/opera.*nothing was removed"):
        remove(library, ["mucem", "opera"])
    for nothing in ("pera", "more/nothing", "mucem/opera"):
        with pytest.raises(UserError, match="nothing was removed"):
            remove(library, [nothing])
    assert len(there()) == 6
    remove(library, ["mucem/", "more\\opera", "port"])
    assert there() == {"more/museum/opera/a.jpg", "more/operas/a.jpg"}
    # A path from the current folder has precedence.
    library.add([Photo(str(tmp_path / "opera/c.jpg"), 1, 1, (1, 1))], unit(1, 4, seed=2))
    monkeypatch.chdir(tmp_path)
    remove(library, ["opera", "operas/"])
    assert there() == {"more/museum/opera/a.jpg"}
    assert left(library) == {"a.jpg", "b.jpg", ODD, "broken\n.jpg", "c.jpg"}


def test_photos_of_a_disk_that_is_not_mounted_are_kept(library: Library, tmp_path: Path, capsys) -> None:
    """An empty mount point, a missing one, and one of a disk that is mounted elsewhere now."""
    disks = {name: tmp_path / name for name in ("empty", "away", "moved")}
    names = [str(disk / "photos" / f"{name} {number}.jpg") for name, disk in disks.items() for number in range(3)]
    library.add([Photo(name, 1, 1, (1, 1)) for name in names], unit(9, 4, seed=1))
    with library.change() as change:
        change.add_mounts([str(disks["away"])])
        change.add_mounts([str(disks["moved"])])
    disks["empty"].mkdir()
    (disks["moved"] / "photos").mkdir(parents=True)
    Path(names[-1]).touch()
    (tmp_path / "photos" / "a.jpg").unlink()
    remove(library, [], gone=True)
    said = capsys.readouterr().out
    assert "not removed: 6 photos" in said
    # Two on the moved disk, one deleted from its folder, and one that never existed.
    assert "4 photos removed" in said
    assert {name for name in left(library) if "." in name} >= {"empty 0.jpg", "away 2.jpg", "moved 2.jpg", "b.jpg"}
    # Photos of a lost disk are removed by naming its folder.
    remove(library, [str(disks["away"])], gone=True)
    assert "not removed: 3 photos" in capsys.readouterr().out
    (disks["empty"] / "something").touch()
    remove(library, [], gone=True)
    assert left(library) == {"b.jpg", ODD, "moved 2.jpg", "c.jpg"}


def test_missing_files_are_removed_unless_all_are_missing(library: Library, tmp_path: Path, capsys) -> None:
    (tmp_path / "photos" / "broken\n.jpg").touch()
    (tmp_path / "photos" / ODD).unlink()
    remove(library, [], gone=True)
    assert "1 photo removed: 3 in" in capsys.readouterr().out
    remove(library, [], gone=True)
    assert "0 photos removed: 3 in" in capsys.readouterr().out
    (tmp_path / "photos").rename(tmp_path / "unplugged")
    with pytest.raises(UserError, match="all 3 photos"):
        remove(library, [], gone=True)
    assert left(library) == {"a.jpg", "b.jpg", "c.jpg", "broken\n.jpg"}


def test_info_describes_a_library(library: Library, capsys) -> None:
    print_info(library)
    said = capsys.readouterr().out
    for part in ("photos: 4\n", "could not be read: 1 (--bad names them)", "model: M, 4 values", "columns: year"):
        assert part in said
    print_info(library, bad=True)
    assert capsys.readouterr().out.endswith("broken\\n.jpg: zero bytes\n")
