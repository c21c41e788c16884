"""GLDv2's archives, indexed and read in place, compared with the unpacked tree and tarfile."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dolglab.data.archive_source import TarSource, index_archives, read_headers
from dolglab.data.crops import CropRange
from dolglab.data.datasets import TrainingImages
from dolglab.data.gldv2 import hold_out, load_gldv2
from dolglab.errors import UserError
from dolglab.io import folder_lock


def pack(folder: Path, archives: int = 3) -> list[Path]:
    """Pack the tree of `folder` into archives, as published, and remove the tree."""
    files = sorted(folder.glob("?/?/?/*.jpg"))
    paths = [folder / f"images_{number:03}.tar" for number in range(archives)]
    for number, path in enumerate(paths):
        with tarfile.open(path, "w:") as tar:
            for file in files[number::archives]:
                tar.add(file, str(file.relative_to(folder)))
    for child in folder.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
    return paths


def add(path: Path, name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE) -> None:
    with tarfile.open(path, "a:" if path.exists() else "w:") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.linkname = kind, len(data) if kind == tarfile.REGTYPE else 0, "other"
        tar.addfile(member, io.BytesIO(data) if kind == tarfile.REGTYPE else None)


@pytest.fixture
def packed(gldv2: Path) -> Path:
    pack(gldv2 / "train")
    index_archives(gldv2 / "train", workers=1)
    return gldv2


def test_archives_and_tree_give_the_same_bytes(gldv2: Path, tmp_path: Path) -> None:
    tree = load_gldv2(gldv2)
    shutil.copytree(gldv2, tmp_path / "packed", dirs_exist_ok=True)
    pack(tmp_path / "packed" / "train")
    index_archives(tmp_path / "packed" / "train", workers=2)
    packed = load_gldv2(tmp_path / "packed")
    assert isinstance(packed.source, TarSource)
    np.testing.assert_array_equal(packed.ids, tree.ids)
    for row in range(len(tree)):
        assert packed.source.name(row) == tree.source.name(row)
        assert packed.source.read(row) == tree.source.read(row)
        assert packed.source.size(row) == tree.source.size(row)
    ours, theirs = (hold_out(part, 0.4, landmarks=3) for part in (packed, tree))
    np.testing.assert_array_equal(ours[0].ids, theirs[0].ids)
    assert ours[1].digest == theirs[1].digest
    crops = [TrainingImages(part, 32, CropRange(), 0) for part in (packed, tree)]
    keys = [(1, row) for row in range(10)]
    np.testing.assert_array_equal(*(part.__getitems__(keys).images.numpy() for part in crops))


def test_offsets_equal_those_of_tarfile(packed: Path) -> None:
    for path in (packed / "train").glob("*.tar"):
        with tarfile.open(path) as tar:
            expected = [(int(Path(m.name).stem, 16), m.offset_data, m.size) for m in tar if m.isfile()]
        table = read_headers(path)
        assert list(zip(*(table[name].tolist() for name in ("id", "offset", "size")), strict=True)) == expected


def test_a_second_run_reads_only_changed_archives(packed: Path, monkeypatch, capsys) -> None:
    from dolglab.data import archive_source as tar_index

    read: list[str] = []
    original = tar_index.read_headers
    monkeypatch.setattr(tar_index, "read_headers", lambda path: read.append(path.name) or original(path))
    index_archives(packed / "train", workers=1)
    assert read == []
    add(packed / "train" / "images_001.tar", f"a/b/c/{'abc'.ljust(16, '0')}.jpg")
    training = packed / "train"
    with pytest.raises(UserError, match="mode=index"):
        load_gldv2(packed)
    index_archives(training, workers=1)
    assert read == ["images_001.tar"]
    assert "31 images in 3 archives indexed" in capsys.readouterr().out
    assert len(load_gldv2(packed)) == 30
    # Tables of earlier states are deleted.
    assert len([path for path in (training / ".index").iterdir() if path.is_dir()]) == 2


def test_an_archive_changed_later_is_detected(packed: Path) -> None:
    path = packed / "train" / "images_000.tar"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    with pytest.raises(UserError, match="mode=index"):
        load_gldv2(packed)


@pytest.mark.parametrize("cut", [100, 511, 512, 1024, 3000])
def test_an_archive_truncated_anywhere_is_refused(packed: Path, cut: int) -> None:
    path = packed / "train" / "images_002.tar"
    # tarfile pads archives with zeros to a multiple of 10,240; the end is before these.
    with tarfile.open(path) as tar:
        end = max(m.offset_data + -(-m.size // 512) * 512 for m in tar)
    os.truncate(path, end + 512 - cut)
    with pytest.raises(UserError, match=r"images_002\.tar .*task=gldv2"):
        index_archives(packed / "train", workers=1)
    assert not list((packed / "train" / ".index").rglob(".*"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../x/aaaaaaaaaaaaaaaa.jpg", tarfile.REGTYPE),
        ("/a/a/a/aaaaaaaaaaaaaaaa.jpg", tarfile.REGTYPE),
        ("a/a/a/aaaaaaaaaaaaaaaa.jpg", tarfile.SYMTYPE),
        ("a/a/a/aaaaaaaaaaaaaaaa.jpg", tarfile.LNKTYPE),
        ("a/a/a/aaaaaaaaaaaaaaaa.jpg", tarfile.CHRTYPE),
    ],
)
def test_unsafe_members_of_an_archive_are_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    add(tmp_path / "images_000.tar", name, kind=kind)
    with pytest.raises(UserError, match=re.escape(repr(name))):
        index_archives(tmp_path)


def test_other_files_are_skipped(tmp_path: Path) -> None:
    for name in ("README.txt", "a/a/a/notes.jpg", "a/a/a/AAAAAAAAAAAAAAAA.jpg", f"f/f/f/{'f' * 16}.jpg"):
        add(tmp_path / "images_000.tar", name)
    home = index_archives(tmp_path)
    assert np.load(home / "id.npy").tolist() == [2**64 - 1]


def test_unusable_folders_and_archives_are_refused(packed: Path, tmp_path: Path, gldv2: Path) -> None:
    folder = packed / "train"
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "nothing"))):
        index_archives(tmp_path / "nothing")
    (tmp_path / "a.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(UserError, match=r"a\.tar"):
        index_archives(tmp_path)
    with folder_lock(folder), pytest.raises(UserError, match=re.escape(str(folder))):
        index_archives(folder)
    with pytest.raises(UserError, match=r"1 of 1 .*0000000000000001"):
        TarSource(packed, "train", np.array([1], np.uint64))
    with pytest.raises(UserError, match=r"data.source=zip .*auto, folder, tar"):
        load_gldv2(packed, kind="zip")  # pyright: ignore[reportArgumentType]
    for text in ("{", "[]", json.dumps({"format": 0}), json.dumps({"format": 1, "tag": "gone", "archives": []})):
        (folder / ".index" / "current.json").write_text(text)
        with pytest.raises(UserError, match="mode=index"):
            load_gldv2(packed)
    shutil.rmtree(folder / ".index")
    with pytest.raises(UserError, match="mode=index"):
        load_gldv2(packed)


@pytest.mark.parametrize("name", ["id", "offset"])
def test_a_damaged_index_is_rebuilt(packed: Path, name: str) -> None:
    folder = packed / "train"
    (column,) = (folder / ".index").glob(f"*/{name}.npy")
    os.truncate(column, column.stat().st_size - 8)
    (part,) = (folder / ".index").glob("parts/images_001.npz")
    os.truncate(part, 100)
    with pytest.raises(UserError, match="mode=index"):
        load_gldv2(packed)
    index_archives(folder, workers=1)
    assert load_gldv2(packed).source.read(3)[:2] == b"\xff\xd8"


def test_gaps_and_appended_archives_are_detected(packed: Path) -> None:
    path = packed / "train" / "images_000.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        second = tar.getmembers()[1].offset
    for damaged in (whole[:second] + bytes(len(whole) - second), whole + whole):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"images_000\.tar"):
            index_archives(packed / "train", workers=1)


def test_archives_that_are_not_indexed_are_ignored(packed: Path) -> None:
    (packed / "train" / "images_009.tar").write_bytes(b"still arriving")
    assert len(load_gldv2(packed)) == 30


def test_an_image_in_two_archives_is_refused(packed: Path) -> None:
    name = load_gldv2(packed).source.name(4)
    shutil.copy(packed / "train" / "images_001.tar", packed / "train" / "images_009.tar")
    with pytest.raises(UserError, match=r"images_001\.tar .*images_009\.tar"):
        index_archives(packed / "train", workers=1)
    assert name.startswith("train/")


def test_an_archive_that_shrinks_while_it_is_read_is_a_read_error(packed: Path) -> None:
    source = load_gldv2(packed).source
    for path in (packed / "train").glob("*.tar"):
        os.truncate(path, 100)
    with pytest.raises(OSError, match="train/"):
        source.read(0)


def _first_bytes(source: TarSource) -> list[bytes]:
    return [source.read(row)[-20:] for row in range(len(source))]


@pytest.mark.process
def test_other_processes_open_the_files_themselves(packed: Path) -> None:
    source = load_gldv2(packed).source
    assert isinstance(source, TarSource)
    expected = _first_bytes(source)
    assert _first_bytes(pickle.loads(pickle.dumps(source))) == expected
    assert len(pickle.dumps(source)) < 1000
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_first_bytes, [source, source.take(np.arange(3))]) == [expected, expected[:3]]


def test_parts_share_the_table_and_its_files(packed: Path, gldv2: Path) -> None:
    """The parts for chunks of millions of images must not open their own files."""
    training = load_gldv2(gldv2, kind="tar")
    before = len(list(Path("/proc/self/fd").iterdir()))
    parts = [training.source.take(np.array([row])) for row in range(len(training))]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert [part.read(0) for part in parts] == [training.source.read(row) for row in range(len(training))]
    again = pickle.loads(pickle.dumps(parts[7]))
    assert again.name(0) == parts[7].name(0) == training.source.name(7)
