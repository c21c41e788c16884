"""Downloads over connections that break, and from faulty servers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dolglab.data.preparation.transfer import RemoteFile, Session, Stopped, transfer
from dolglab.errors import UserError

DATA = os.urandom(3_000_000)
AT_ONCE = {"retries": 3, "pause": 0.0}


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10) as client:
        yield client


def remote(server, folder: Path, md5: bool = True) -> RemoteFile:
    server.add("/a.tar", DATA, md5="/a.md5")
    return RemoteFile(f"{server.url}/a.tar", folder / "deep" / "a.tar", f"{server.url}/a.md5" if md5 else None)


def bring(client: httpx.Client, it: RemoteFile) -> int:
    """Transfer it; returns the bytes reported to the progress bar."""
    told: list[int] = []
    transfer(Session(client, **AT_ONCE), it, told.append)
    assert [path.name for path in it.path.parent.iterdir()] == ["a.tar"]
    assert it.path.read_bytes() == DATA
    return sum(told)


@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["cut"],
        ["cut", "cut", "cut", "cut", "cut", "cut"],
        [503, 500, 429],
        ["cut", "whole"],
        ["garbled"],
        ["cut", "garbled"],
        ["silent"],
        ["cut", 503, "cut", "silent"],
    ],
)
def test_a_file_is_complete_after_any_transfer_fault(server, client, tmp_path: Path, faults: list) -> None:
    # Without a checksum, wrong bytes cannot be detected.
    for md5 in (True, False) if "garbled" not in faults else (True,):
        it = remote(server, tmp_path / str(md5), md5)
        server.faults["/a.tar"] += faults
        assert bring(client, it) == len(DATA)
        assert not server.faults["/a.tar"]


def test_an_interrupted_transfer_is_resumed(server, client, tmp_path: Path) -> None:
    it = remote(server, tmp_path)
    server.faults["/a.tar"] += ["cut", "cut"]
    bring(client, it)
    half = len(DATA) // 2
    assert server.ranges("/a.tar") == ["", f"bytes={half}-", f"bytes={half + half // 2}-"]


def test_existing_files_are_not_requested(server, client, tmp_path: Path) -> None:
    it = remote(server, tmp_path)
    bring(client, it)
    server.asked.clear()
    bring(client, it)
    assert server.asked == []


def test_a_changed_file_is_downloaded_from_the_beginning(server, client, tmp_path: Path) -> None:
    it = remote(server, tmp_path, md5=False)
    server.add("/a.tar", b"old" * 999_999)
    server.faults["/a.tar"] += ["cut", 404]
    with pytest.raises(UserError, match="404"):
        bring(client, it)
    assert it.part.stat().st_size > 0
    server.add("/a.tar", DATA)
    assert bring(client, it) == len(DATA) - len(b"old" * 999_999) // 2


def test_a_part_longer_than_the_file_is_discarded(server, client, tmp_path: Path) -> None:
    it = remote(server, tmp_path)
    it.part.parent.mkdir(parents=True)
    it.part.write_bytes(DATA + b"more")
    bring(client, it)


def test_a_part_without_version_or_checksum_is_not_trusted(server, client, tmp_path: Path) -> None:
    it = remote(server, tmp_path, md5=False)
    it.part.parent.mkdir()
    it.part.write_bytes(b"what is this?")
    bring(client, it)
    assert server.ranges("/a.tar") == [""]


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ([404], "404.*base_url"),
        ([403], "403"),
        ([503] * 4, "4 tries.*503"),
        (["garbled", "garbled"], "md5.*2 downloads"),
    ],
)
def test_permanent_errors_are_reported(server, client, tmp_path: Path, faults: list, message: str) -> None:
    it = remote(server, tmp_path)
    server.faults["/a.tar"] += faults
    with pytest.raises(UserError, match=message):
        bring(client, it)
    assert not it.path.exists()


def test_a_checksum_file_without_a_checksum_is_refused(server, client, tmp_path: Path) -> None:
    it = remote(server, tmp_path)
    server.files["/a.md5"] = b"<html>not here</html>"
    with pytest.raises(UserError, match=r"a\.md5"):
        bring(client, it)


@pytest.mark.parametrize("url", ["ftp://host/a.tar", "nonsense", "http://127.0.0.1:1/a.tar"])
def test_unreachable_addresses_are_reported(client, tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match=r"base_url|4 tries"):
        transfer(Session(client, **AT_ONCE), RemoteFile(url, tmp_path / "a.tar"))


def test_a_stopped_transfer_keeps_received_bytes(server, client, tmp_path: Path) -> None:
    it = remote(server, tmp_path)
    stop = threading.Event()
    with pytest.raises(Stopped):
        transfer(Session(client, **AT_ONCE, stop=stop), it, lambda _: stop.set())
    assert 0 < it.part.stat().st_size < len(DATA)
    bring(client, it)
    assert len(server.ranges("/a.tar")) == 2


def test_a_complete_part_is_not_downloaded_again(server, client, tmp_path: Path) -> None:
    it = remote(server, tmp_path)
    it.part.parent.mkdir(parents=True)
    it.part.write_bytes(DATA)
    bring(client, it)
    assert server.ranges("/a.tar") == [f"bytes={len(DATA)}-"]


def test_a_server_that_ignores_if_range_does_not_mix_versions(server, client, tmp_path: Path) -> None:
    it = remote(server, tmp_path, md5=False)
    it.part.parent.mkdir(parents=True)
    it.part.write_bytes(b"old" * 1000)
    it.version.write_text('"old"')
    server.faults["/a.tar"] += ["blind"]
    bring(client, it)
    assert server.ranges("/a.tar") == ["bytes=3000-", ""]
