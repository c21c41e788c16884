"""Many files: missing ones are downloaded, damaged ones are found, and nothing else is changed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from archives import tar
from dolglab.data.archive_source import TarSource
from dolglab.data.preparation.fetch import ARCHIVES, archive_numbers, fetch, fetch_gldv2, gldv2_files
from dolglab.errors import UserError
from dolglab.io import folder_lock

AT_ONCE = {"retries": 3, "pause": 0.0}


@pytest.fixture
def gldv2(server):
    """Small files of the test split on the server."""
    for remote in gldv2_files(Path(), "test", "all", server.url):
        path = remote.url.removeprefix(server.url)
        server.add(path, os.urandom(5000), md5=(remote.md5_url or "").removeprefix(server.url) or None)
    return server


def get(server, root: Path, mode="run", archives: object = "0-4", **options: int) -> None:
    fetch(gldv2_files(root, "test", archives, server.url), root, mode, 3, **AT_ONCE, **options)


def test_a_split_is_downloaded_as_published(gldv2, tmp_path: Path, capsys) -> None:
    for n in range(20):
        gldv2.add(
            f"/test/images_{n:03}.tar", tar({f"{n:016x}.jpg": b"image"}), md5=f"/md5sum/test/md5.images_{n:03}.txt"
        )
    fetch_gldv2(tmp_path / "root", "test", base_url=f"{gldv2.url}/")
    root = tmp_path / "root"
    names = sorted(
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and ".index" not in path.parts
    )
    assert names == [
        ".preparing.lock",
        "recognition_solution_v2.1.csv",
        "retrieval_solution_v2.1.csv",
        "test.csv",
        "test/.preparing.lock",
        *(f"test/images_{n:03}.tar" for n in range(20)),
    ]
    assert (root / "test" / "images_007.tar").read_bytes() == gldv2.files["/test/images_007.tar"]
    assert "23 files downloaded, all 23 exist now" in (said := capsys.readouterr().out)
    assert "20 images in 20 archives indexed" in said
    index = TarSource(root, "test", np.arange(20, dtype=np.uint64))
    assert index.read(7) == b"image"


def test_a_second_run_downloads_only_missing_files(gldv2, tmp_path: Path, capsys) -> None:
    gldv2.faults["/test/images_002.tar"] += [404]
    with pytest.raises(UserError, match=r"1 of 8 .*images_002\.tar"):
        get(gldv2, tmp_path)
    gldv2.asked.clear()
    get(gldv2, tmp_path)
    assert {path for path, _ in gldv2.asked} == {"/test/images_002.tar", "/md5sum/test/md5.images_002.txt"}
    get(gldv2, tmp_path)
    assert "all 8 files exist already" in capsys.readouterr().out


def test_verify_finds_damaged_and_missing_files(gldv2, tmp_path: Path, capsys) -> None:
    get(gldv2, tmp_path)
    get(gldv2, tmp_path, "verify")
    assert "5 of 5 files have the published checksum" in capsys.readouterr().out
    (tmp_path / "test" / "images_001.tar").write_bytes(b"x" * 5000)
    (tmp_path / "test" / "images_003.tar").unlink()
    with pytest.raises(UserError, match=r"1 missing \(images_003\.tar\); 1 damaged, .*\(images_001\.tar\)"):
        get(gldv2, tmp_path, "verify")
    assert (tmp_path / "test" / "images_001.tar.damaged").exists()
    get(gldv2, tmp_path)
    get(gldv2, tmp_path, "verify")
    assert not list(tmp_path.rglob("*.md5*"))


def test_status_needs_no_network(gldv2, tmp_path: Path, capsys) -> None:
    gldv2.faults["/test/images_001.tar"] += ["cut", 404]
    with pytest.raises(UserError):
        get(gldv2, tmp_path)
    gldv2.asked.clear()
    capsys.readouterr()
    get(gldv2, tmp_path, "status", archives="0-6")
    out = capsys.readouterr().out
    assert "7 of 10 files exist, 35.0 kB" in out
    assert "1 incomplete, 2.5 kB: images_001.tar" in out
    assert "3 missing: images_001.tar, images_005.tar, images_006.tar" in out
    assert gldv2.asked == []


def test_missing_space_is_reported_before_any_download(gldv2, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"40\.0 kB"):
        get(gldv2, tmp_path, spare_bytes=10**18)
    assert gldv2.asked == []


def test_two_processes_do_not_prepare_one_folder(gldv2, tmp_path: Path) -> None:
    with folder_lock(tmp_path), pytest.raises(UserError, match=re.escape(str(tmp_path))):
        get(gldv2, tmp_path)
    get(gldv2, tmp_path)


def test_an_unwritable_folder_is_refused(gldv2, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "file" / "root"))):
        get(gldv2, tmp_path / "file" / "root")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("all", [0, 1, 2, 3]),
        ("none", []),
        (None, []),
        (2, [2]),
        ("1-3", [1, 2, 3]),
        ([3, "0-1"], [0, 1, 3]),
        ("0,2", [0, 2]),
    ],
)
def test_archive_numbers_are_parsed(given: object, expected: list[int]) -> None:
    assert archive_numbers(given, 4) == expected
    if expected:
        assert archive_numbers([n + 1 for n in expected], 4, first=1) == [n + 1 for n in expected]


@pytest.mark.parametrize("given", ["4", "3-1", "0-4", "-1", "x", "", 1.5])
def test_unknown_archives_are_refused(given: object) -> None:
    with pytest.raises(UserError, match="archives="):
        archive_numbers(given, 4)


def test_invalid_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"split=val .*train, index, test"):
        gldv2_files(tmp_path, "val", "all", "http://host")
    with pytest.raises(UserError, match=r"mode=go .*run, verify, status, index"):
        fetch_gldv2(tmp_path, "train", mode="go")  # pyright: ignore[reportArgumentType]
    for url, message in [("http://127.0.0.1:1", r"127\.0\.0\.1"), ("http://host:80a", "base_url")]:
        with pytest.raises(UserError, match=message):
            fetch_gldv2(tmp_path, "train", "none", url)
    with pytest.raises(UserError, match="mode=go"):
        fetch([], tmp_path, "go")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="parallel"):
        fetch([], tmp_path, "run", 0)


def test_addresses_are_the_published_ones(tmp_path: Path) -> None:
    files = gldv2_files(tmp_path, "train", [499], "https://s3.amazonaws.com/google-landmark/")
    assert files[-1].url == "https://s3.amazonaws.com/google-landmark/train/images_499.tar"
    assert files[-1].md5_url == "https://s3.amazonaws.com/google-landmark/md5sum/train/md5.images_499.txt"
    assert files[0].url == "https://s3.amazonaws.com/google-landmark/metadata/train_clean.csv"
    assert ARCHIVES == {"train": 500, "index": 100, "test": 20}
