"""Packed images are the same training set with fewer pixels."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import litdata
import numpy as np
import pytest
from numpy.typing import NDArray

from archives import tar
from dolglab.data.archive_source import PackedSource, index_archives
from dolglab.data.gldv2 import load_gldv2
from dolglab.data.image_reading import READ_ALL, decode
from dolglab.data.module import LandmarkDataModule
from dolglab.data.preparation import pack
from dolglab.data.preparation.pack import pack_gldv2, packed_bytes
from dolglab.errors import UserError

Encode = Callable[..., bytes]
Photo = Callable[..., NDArray[np.uint8]]


pack_in_sevens = partial(pack_gldv2, chunk_size=7)


@pytest.fixture
def large(gldv2: Path, photo: Photo, encode: Encode) -> Path:
    """The small data set with photographs of different sizes, one of them broken."""
    files = sorted((gldv2 / "train").rglob("*.jpg"))
    for number, file in enumerate(files):
        file.write_bytes(encode(photo(60 + 3 * number, 90, number), quality=92))
    files[-1].write_bytes(b"no image")
    return gldv2


@pytest.mark.parametrize("workers", [1, 2])
def test_all_sources_give_the_same_ids_in_the_same_order(large: Path, workers: int) -> None:
    folder = pack_in_sevens(large, size=64, workers=workers)
    unpacked, packed = (load_gldv2(large, kind=kind) for kind in ("folder", "packed"))
    images = {f"{f.relative_to(large / 'train')}": f.read_bytes() for f in (large / "train").rglob("*.jpg")}
    (large / "train" / "images_000.tar").write_bytes(tar(images))
    index_archives(large / "train", 1)
    archived = load_gldv2(large, kind="tar")
    for other in (packed, archived):
        assert other.ids.tolist() == unpacked.ids.tolist()
        assert other.labels.tolist() == unpacked.labels.tolist()
        names = [[one.source.name(row) for row in range(len(one))] for one in (other, unpacked)]
        assert names[0] == names[1]
    for row in range(len(packed)):
        data = unpacked.source.read(row)
        assert packed.source.read(row) == packed_bytes(data, 64, 90, READ_ALL)
        assert packed.source.size(row) == len(packed.source.read(row))
    assert len(list(folder.glob("*.bin"))) == 5


def test_litdata_reads_what_was_packed(large: Path) -> None:
    folder = pack_in_sevens(large, size=64, workers=1)
    data = litdata.StreamingDataset(str(folder))
    training = load_gldv2(large, kind="packed")
    assert len(data) == len(training)
    for row in (0, 13, 29):
        assert data[row]["id"] == f"{int(training.ids[row]):016x}"
        assert bytes(data[row]["image"]) == training.source.read(row)


def test_images_are_shrunk_and_never_enlarged(photo: Photo, encode: Encode) -> None:
    big, small = encode(photo(300, 400), quality=95), encode(photo(30, 40), quality=95)
    assert decode(packed_bytes(big, 200, 90, READ_ALL)).shape == (150, 200, 3)
    assert packed_bytes(small, 200, 90, READ_ALL) == small
    assert packed_bytes(encode(photo(30, 40), "PNG"), 200, 90, READ_ALL)[:2] == b"\xff\xd8"
    assert packed_bytes(b"no image", 200, 90, READ_ALL) == b"no image"


def test_only_missing_chunks_are_packed_again(large: Path) -> None:
    folder = pack_in_sevens(large, size=64, workers=1)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("chunk-*")}
    gone = sorted(folder.glob("chunk-*.json"))[2]
    gone.unlink()
    (folder / ".pack-left").mkdir()
    pack_in_sevens(large, size=64, workers=1)
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("chunk-*")}
    assert {name for name in before if before[name] != after[name]} == {gone.name, gone.with_suffix(".bin").name}
    assert not (folder / ".pack-left").exists()
    pack_in_sevens(large, size=32, workers=1)
    assert not before.keys() & {path.name for path in folder.glob("chunk-*")}
    assert len(load_gldv2(large, kind="packed")) == 30


def test_a_file_that_vanishes_stops_packing_until_it_is_back(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vanishing = sorted((large / "train").rglob("*.jpg"))[9]
    data, usage = vanishing.read_bytes(), shutil.disk_usage(large)

    def looking(_: Path):
        # After the images were looked for, and before they are packed.
        vanishing.unlink()
        return usage

    with monkeypatch.context() as patch:
        patch.setattr(pack.shutil, "disk_usage", looking)
        with pytest.raises(UserError, match=rf"{vanishing.name} is missing"):
            pack_in_sevens(large, size=64, workers=1)
    assert not list((large / "packed").rglob(".pack-*"))
    vanishing.write_bytes(data)
    pack_in_sevens(large, size=64, workers=1)
    assert len(load_gldv2(large, kind="packed")) == 30


def test_what_cannot_be_packed_or_read_is_said(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, message in [
        ({"size": 0}, "size.* 0 and 90"),
        ({"quality": 101}, "quality.* 640 and 101"),
        ({"train_csv": "none.csv"}, r"none\.csv"),
    ]:
        with pytest.raises(UserError, match=message):
            pack_in_sevens(large, **options)
    with pytest.raises(UserError, match="task=pack"):
        load_gldv2(large, kind="packed")
    usage = shutil.disk_usage(large)
    monkeypatch.setattr(pack.shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(UserError, match=re.escape(str(large / "packed"))):
        pack_in_sevens(large, size=64)
    assert not list((large / "packed").rglob("*.bin"))


def test_damage_to_packed_images_is_found(large: Path) -> None:
    folder = pack_in_sevens(large, size=64, workers=1)
    chunk = sorted(folder.glob("*.bin"))[1]
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-5])
    with pytest.raises(UserError, match=chunk.name):
        load_gldv2(large, kind="packed")
    pack_in_sevens(large, size=64, workers=1)
    assert chunk.read_bytes() == whole
    chunk.write_bytes(whole[:50] + b"f" * 10 + whole[60:])
    with pytest.raises(UserError, match=chunk.name):
        pack_in_sevens(large, size=64, workers=1)
    chunk.write_bytes(whole)
    (folder / "index.json").write_text("{")
    with pytest.raises(UserError, match=re.escape(str(folder))):
        load_gldv2(large, kind="packed")
    pack_in_sevens(large, size=64, workers=1)
    ids = load_gldv2(large, kind="packed").ids
    with pytest.raises(UserError, match=r"1 of 31 .*0000000000000001"):
        PackedSource(large, "train", np.append(ids, np.uint64(1)))


def test_packed_images_must_be_read_with_the_same_orientation(large: Path) -> None:
    pack_in_sevens(large, size=64, orientation="ignore", workers=1)
    reading = {"source": "packed", "holdout": 0, "batch_size": 4}
    for options in ({}, {"orientation": "ignore", "colour": "ignore"}):
        with pytest.raises(UserError, match=r"orientation=ignore colour=srgb"):
            LandmarkDataModule.from_gldv2(large, **options, **reading)
    assert LandmarkDataModule.from_gldv2(large, orientation="ignore", **reading).num_classes == 3


def test_long_thin_images_keep_their_bytes(photo: Photo, encode: Encode) -> None:
    panorama = encode(photo(20, 900))
    assert packed_bytes(panorama, 640, 90, READ_ALL) == panorama


def test_invalid_settings_leave_packed_images_unchanged(large: Path) -> None:
    folder = pack_in_sevens(large, size=64, workers=1)
    before = sorted(path.name for path in folder.iterdir())
    for options, message in [
        ({"source": "packed"}, "source=packed"),
        ({"orientation": "up"}, "orientation.* up"),
        ({"workers": 0}, "workers.* 0"),
    ]:
        with pytest.raises(UserError, match=message):
            pack_in_sevens(large, size=32, **options)
    assert sorted(path.name for path in folder.iterdir()) == before
    next(folder.glob("chunk-*.json")).write_text("")
    pack_in_sevens(large, size=64, workers=1)
    assert len(load_gldv2(large, kind="packed")) == 30
