"""Benchmarks and distractors are downloaded and unpacked into the layout for evaluation."""

from __future__ import annotations

import json
import os
import pickle
import re
import tarfile
from pathlib import Path

import pytest

from archives import tar
from dolglab.data.preparation.revisited import PHOTO_RELEASE, fetch_benchmark, fetch_distractors
from dolglab.data.preparation.unpacking import unpack
from dolglab.data.revisited import revisited_benchmark
from dolglab.errors import UserError

TRUTH = {
    "imlist": ["paris_defense_000605"],
    "qimlist": ["paris_louvre_000001"],
    "gnd": [{"bbx": [0.0, 0.0, 1.0, 1.0], "easy": [0], "hard": [], "junk": []}],
}


def test_paris_in_two_archives_becomes_one_folder(server, tmp_path: Path, capsys) -> None:
    server.add("/paris_1-v1.tgz", tar({"paris/defense/paris_defense_000605.jpg": b"a"}, "gz"))
    server.add("/paris_2-v1.tgz", tar({"paris/louvre/paris_louvre_000001.jpg": b"b"}, "gz"))
    server.add("/gnd/rparis6k/gnd_rparis6k.pkl", b"truth")
    fetch_benchmark(tmp_path, "rparis6k", server.url, f"{server.url}/gnd/")
    assert {path.name: path.read_bytes() for path in (tmp_path / "jpg").iterdir()} == {
        "paris_defense_000605.jpg": b"a",
        "paris_louvre_000001.jpg": b"b",
    }
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".") == [
        "gnd_rparis6k.pkl",
        "jpg",
        "release.json",
    ]
    assert json.loads((tmp_path / "release.json").read_text())["release"] == PHOTO_RELEASE
    (tmp_path / "gnd_rparis6k.pkl").write_bytes(pickle.dumps(TRUTH, protocol=2))
    assert revisited_benchmark(tmp_path).release == PHOTO_RELEASE
    (tmp_path / "release.json").write_text("[]")
    with pytest.raises(UserError, match=r"release\.json"):
        revisited_benchmark(tmp_path)
    assert "2 images" in capsys.readouterr().out
    server.asked.clear()
    fetch_benchmark(tmp_path, "rparis6k", server.url, f"{server.url}/gnd/")
    assert server.asked == []


def test_a_damaged_archive_leaves_no_folder(server, tmp_path: Path) -> None:
    whole = tar({"oxford_000001.jpg": b"a" * 10_000}, "gz")
    server.add("/oxbuild_images-v1.tgz", whole[: len(whole) // 2])
    server.add("/gnd/roxford5k/gnd_roxford5k.pkl", b"truth")
    with pytest.raises(UserError, match=r"oxbuild_images-v1\.tgz"):
        fetch_benchmark(tmp_path, "roxford5k", server.url, f"{server.url}/gnd/")
    assert not (tmp_path / "jpg").exists()
    (tmp_path / "oxbuild_images-v1.tgz").unlink()
    server.add("/oxbuild_images-v1.tgz", whole)
    fetch_benchmark(tmp_path, "roxford5k", server.url, f"{server.url}/gnd/")
    assert [path.name for path in (tmp_path / "jpg").iterdir()] == ["oxford_000001.jpg"]


def test_distractors_are_unpacked_one_archive_after_another(server, tmp_path: Path) -> None:
    server.add("/revisitop1m.txt", b"1/a.jpg\n2/b.jpg\n")
    for number, name in [(1, "1/a.jpg"), (2, "2/b.jpg")]:
        server.add(f"/jpg/revisitop1m.{number}.tar.gz", tar({name: name.encode()}, "gz"))
    server.faults["/jpg/revisitop1m.2.tar.gz"] += [404]
    with pytest.raises(UserError, match="1 of 3 files"):
        fetch_distractors(tmp_path, "1-2", server.url)
    fetch_distractors(tmp_path, "1-2", server.url)
    for name in ("1/a.jpg", "2/b.jpg"):
        assert (tmp_path / "jpg" / name).read_bytes() == name.encode()
    assert not list(tmp_path.glob("*.gz"))
    server.asked.clear()
    fetch_distractors(tmp_path, "1-2", server.url)
    assert server.asked == []


def test_a_wrong_byte_anywhere_in_a_compressed_archive_is_detected(tmp_path: Path) -> None:
    whole = tar({f"{n}.jpg": os.urandom(3000) for n in range(10)}, "gz")
    for place in range(20, len(whole), len(whole) // 40):
        (tmp_path / "a.tgz").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"a\.tgz") as error:
            unpack(tmp_path / "a.tgz", tmp_path / "in", flat=True)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../out.jpg", "/etc/out.jpg", "a/../../out.jpg"])
def test_names_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.tgz").write_bytes(tar({name: b"x"}, "gz"))
    for flat in (True, False):
        with pytest.raises(UserError, match=re.escape(repr(name))):
            unpack(tmp_path / "a.tgz", tmp_path / "in", flat)
    assert not list(tmp_path.rglob("out.jpg"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "a.tgz").write_bytes(tar({}, "gz", link=kind))
    with pytest.raises(UserError, match="'link'"):
        unpack(tmp_path / "a.tgz", tmp_path / "in", flat=False)
