"""Merging libraries of several machines."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from dolglab.data.photos import PhotoFile
from dolglab.errors import UserError
from dolglab.library.contents import Photo
from dolglab.library.ingest import embed_places
from dolglab.library.library import Library
from dolglab.library.listing import Listing, find_photos, read_shard
from dolglab.library.maintenance import merge
from dolglab.sharing.loading import LoadedExtractor
from photo_library.conftest import describe, save
from photo_library.made import identity, library_of, unit


def names(library: Library) -> set[str]:
    return {photo.name for page in library.catalogue.pages() for photo, _ in page}


def test_shards_merged_answer_as_one_library(loaded: LoadedExtractor, folder: Path, tmp_path: Path, capsys) -> None:
    (folder / "broken.jpg").write_text("text")
    (tmp_path / "table.csv").write_text("file,year\na/0.jpg,1900\nb c/4.jpg,1901\n")

    def embed(name: str, shard: str | None) -> str:
        library = str(tmp_path / name)
        options = {"model": "efficientnet_lite0", "max_side": 64, "metadata": str(tmp_path / "table.csv")}
        embed_places([str(folder)], library, **options, threads=1, shard=shard)
        return library

    whole = Library(embed("whole", None))
    parts = [embed(f"part{part}", f"{part}/3") for part in (1, 2, 3)]
    with Library(parts[1]).change() as change:
        change.add_mounts(["/media/disk"])
    assert "without a photo here" not in capsys.readouterr().out
    merge(parts, str(tmp_path / "merged"))
    merged = Library(tmp_path / "merged")
    assert len(merged) == len(whole) == sum(len(Library(part)) for part in parts) == 6
    assert "/media/disk" in merged.catalogue.mounts()
    assert [bad.name for bad in merged.catalogue.bad()] == [str(folder / "broken.jpg")]
    files = [file for file in find_photos([str(folder)]) if "broken" not in file.name]
    queries = np.concatenate([describe(loaded, file.name) for file in files])
    for filters in (None, {"year": "1901"}):
        pairs = zip(whole.search(queries, 6, filters), merged.search(queries, 6, filters), strict=True)
        for wanted, found in pairs:
            assert [(a.photo.name, a.photo.metadata) for a in found] == [
                (a.photo.name, a.photo.metadata) for a in wanted
            ]
            np.testing.assert_allclose([a.cosine for a in found], [a.cosine for a in wanted], atol=1e-5)


def listed(folder: Path, shard: str) -> list[PhotoFile]:
    with closing(Listing([str(folder)], shard)) as listing:
        files = list(listing)
        assert len(listing) == len(files)
        return files


def test_an_additional_file_does_not_move_others_to_another_shard(folder: Path) -> None:
    def shards() -> dict[str, int]:
        files = find_photos([str(folder)])
        parts = {part: listed(folder, f"{part}/3") for part in (1, 2, 3)}
        assert sorted(file.name for own in parts.values() for file in own) == [file.name for file in files]
        return {file.name: part for part, own in parts.items() for file in own}

    before = shards()
    save(folder / "a" / "00.jpg", 7)
    assert before.items() < shards().items()


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "-1/2", "1/2/3"])
def test_an_invalid_shard_is_refused(shard: str) -> None:
    with pytest.raises(UserError, match=f"--shard.* {shard}"):
        read_shard(shard)


def test_the_newest_version_of_a_photo_is_copied_with_the_columns_of_all(tmp_path: Path, capsys) -> None:
    rows = unit(6, 4)
    old = library_of(tmp_path / "old", [Photo("/a", 1, 5, (1, 1), metadata={"year": "1", "by": "x"})], rows[:1])
    with old.change() as change:
        change.put([Photo(name, 1, day, reason="zero bytes") for name, day in (("/b", 5), ("/c", 9))], [None, None])
    same = [Photo("/a", 2, 6, (2, 2), metadata={"year": "2"}), Photo("/b", 1, 5, (1, 1)), Photo("/c", 1, 8, (1, 1))]
    library_of(tmp_path / "new", same, rows[1:4])
    for order, taken in ((("old", "new"), (3, 2)), (("new", "old"), (3, 1))):
        out = tmp_path / "-".join(order)
        merge([str(tmp_path / name) for name in order], str(out))
        said = capsys.readouterr().out
        assert [f"{name}: {count} photo" in said for name, count in zip(order, taken, strict=True)] == [True, True]
        merged = Library(out)
        assert [photo.name for photo in merged.catalogue.bad()] == ["/c"]
        (a, *_), (b, *_) = merged.search(rows[1:3], 1)
        assert (a.photo.name, a.photo.changed, a.photo.metadata) == ("/a", 6, {"year": "2", "by": "x"})
        assert (b.photo.name, b.cosine) == ("/b", pytest.approx(1, abs=1e-6))
        assert len(merged) == 2


def test_a_name_from_the_user_replaces_one_by_neighbours(tmp_path: Path) -> None:
    given = {"place": "port", "year": "1900"}
    library_of(tmp_path / "old", [Photo("/a", 1, 5, metadata={"place": "arch", "place score": "0.9"})], unit(1, 4))
    library_of(tmp_path / "new", [Photo("/a", 1, 6, metadata=given)], unit(1, 4))
    for order in (("old", "new"), ("new", "old")):
        out = tmp_path / "-".join(order)
        merge([str(tmp_path / name) for name in order], str(out))
        ((photo, _),) = next(Library(out).catalogue.pages())
        assert photo.metadata == given


def test_a_failing_source_is_not_copied_in_part(tmp_path: Path) -> None:
    photos = [Photo(f"/{row}", 1, 1, (1, 1)) for row in range(6)]
    library_of(tmp_path / "good", photos[:2], unit(2, 4))
    library_of(tmp_path / "bad", photos[2:], unit(4, 4), segments=2)
    (tmp_path / "bad" / "segments" / "00000002.flat").write_bytes(b"cut short")
    with pytest.raises(UserError, match=r"00000002\.flat"):
        merge([str(tmp_path / "good"), str(tmp_path / "bad")], str(tmp_path / "out"))
    assert names(Library(tmp_path / "out")) == {"/0", "/1"}


def test_other_models_and_a_library_into_itself_are_refused(tmp_path: Path) -> None:
    mine, other = str(tmp_path / "mine"), str(tmp_path / "other")
    library_of(tmp_path / "mine", [Photo("/a", 1, 1, (1, 1))], unit(1, 4))
    Library.open(other, identity(4, model="n"))
    with pytest.raises(UserError, match=r"other .*model n.*mine .*model m"):
        merge([mine, other], str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"mine .*model m"):
        merge([other], mine)
    with pytest.raises(UserError, match=re.escape(mine)):
        merge([mine, other], mine)
    assert not (tmp_path / "out").exists()
