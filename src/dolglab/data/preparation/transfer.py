"""Download one file over HTTP: resumed after interruptions, verified, and renamed only when it is complete."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx

from dolglab.data.sources import file_size
from dolglab.errors import UserError
from dolglab.io import fsync

R = TypeVar("R")

# Temporary HTTP errors: too early, too many requests, and server errors.
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
LONGEST_PAUSE = 60.0
CHECKSUM_TRIES = 2


@dataclass(frozen=True)
class RemoteFile:
    """A published file: its address, its local path, and the address of its md5 sum, if there is one.

    `digest`, such as `md5:HEX` or `sha256:HEX`, is its checksum, if known in advance.
    """

    url: str
    path: Path
    md5_url: str | None = None
    digest: str | None = None

    @property
    def part(self) -> Path:
        """The path of the incomplete file."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def arrived(self) -> int:
        """The number of bytes that have arrived so far."""
        return file_size(self.part) or 0

    @property
    def version(self) -> Path:
        """The path of a file with the version of the incomplete file: the server's ETag or date."""
        return self.path.with_name(f"{self.path.name}.part.version")


@dataclass(frozen=True)
class Session:
    """The common settings of transfers: a client with its time-outs and redirects, and an event that stops them.

    A transfer without progress is repeated up to `retries` times; the pause in seconds doubles each time.
    """

    client: httpx.Client
    retries: int = 6
    pause: float = 1.0
    stop: threading.Event = field(default_factory=threading.Event)


class Stopped(Exception):
    """The transfer was asked to stop; bytes that have arrived are kept."""


class _TransientError(Exception):
    """An error that may be temporary; `after` is the pause requested by the server, in seconds."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


def transfer(session: Session, remote: RemoteFile, advance: Callable[[int], None] = lambda _: None) -> None:
    """Download `remote` to its path.

    Args:
        session: how often broken connections and busy servers are retried (a try that received bytes does not count).
            When it stops, the transfer ends with `Stopped`, and continues from there the next time.
        remote: nothing is done if its path exists already.
        advance: called with the number of bytes that arrive, and with negative numbers for bytes that are discarded.

    Raises:
        UserError: if the file does not exist or is refused, if its checksum stays wrong, if the disk is full, and after
            the last retry.
        Stopped: as requested.
    """
    if remote.path.exists():
        return
    remote.path.parent.mkdir(parents=True, exist_ok=True)
    expected = expected_digest(session, remote)
    for _ in range(CHECKSUM_TRIES):
        _retry(session, remote, lambda: _receive(session, remote, advance, verified=bool(expected)))
        if expected is None or digest_of(remote.part, expected) == expected:
            os.replace(remote.part, remote.path)
            fsync(remote.path.parent)
            remote.version.unlink(missing_ok=True)
            return
        advance(-_drop(remote))
    kind = str(expected).partition(":")[0]
    raise UserError(f"{remote.url} had a wrong {kind} sum in {CHECKSUM_TRIES} downloads: its server is at fault")


def digest_of(path: Path, like: str) -> str:
    """The checksum of a file, of the same kind as `like`, such as `md5:HEX`."""
    kind = like.partition(":")[0]
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()}"


def expected_digest(session: Session, remote: RemoteFile) -> str | None:
    """The checksum of a remote file, known or published as `SUM  NAME`, or None. Raises like `transfer`."""
    url = remote.md5_url
    if url is None:
        return remote.digest

    def ask() -> str:
        response = session.client.get(url)
        _check_status(response, url)
        return response.text

    word = (_retry(session, remote, ask).split() or [""])[0].lower()
    if not re.fullmatch("[0-9a-f]{32}", word):
        raise UserError(f"{url} contains no md5 sum")
    return f"md5:{word}"


def _retry(session: Session, remote: RemoteFile, work: Callable[[], R]) -> R:
    """The result of `work`. Unlike `io.retry_io`, it waits as servers request, and progress resets the retries."""
    failures = 0
    while True:
        before = remote.arrived
        try:
            return work()
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            raise UserError(f"{remote.url}: {error}; check base_url=...") from error
        except (httpx.TransportError, _TransientError) as error:
            failures = 1 if remote.arrived > before else failures + 1
            if failures > session.retries:
                reason = str(error) or type(error).__name__
                raise UserError(
                    f"{remote.url}: gave up after {failures} tries ({reason}); run again to continue"
                ) from error
            asked = error.after if isinstance(error, _TransientError) else None
            pause = session.pause * 2 ** (failures - 1) if asked is None else asked
            if session.stop.wait(min(pause, LONGEST_PAUSE)):
                raise Stopped from None


def _receive(session: Session, remote: RemoteFile, advance: Callable[[int], None], verified: bool) -> None:
    """One request: for the missing bytes, or for the whole file if it cannot be continued."""
    arrived = remote.arrived
    version = remote.version.read_text() if remote.version.exists() else ""
    if arrived and not (version or verified):
        advance(-_drop(remote))
        arrived = 0
    # With a transfer encoding, byte positions would be meaningless.
    headers = {"Accept-Encoding": "identity"}
    if arrived:
        headers |= {"Range": f"bytes={arrived}-", **({"If-Range": version} if version else {})}
    with session.client.stream("GET", remote.url, headers=headers) as response:
        if response.status_code == 416:
            if response.headers.get("content-range", "") == f"bytes */{arrived}":
                return
            advance(-_drop(remote))
            raise _TransientError("the server's file is shorter than what has arrived")
        _check_status(response, remote.url)
        # The position of the answer's first byte in the file.
        match = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
        start = int(match[1]) if match and response.status_code == 206 else 0
        if start and version and _version(response) != version:
            advance(-_drop(remote))
            raise _TransientError("the file has changed in the meantime")
        if start != arrived:
            # The range was ignored, or the file has changed: it starts from the beginning.
            advance(-_drop(remote))
            if start:
                raise _TransientError("the server sent another range")
        remote.version.write_text(_version(response))
        with remote.part.open("ab") as file:
            for chunk in response.iter_raw():
                if session.stop.is_set():
                    raise Stopped
                file.write(chunk)
                advance(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        length = response.headers.get("content-length")
        if length is not None and remote.arrived != start + int(length):
            raise _TransientError("the answer was incomplete")


def _version(response: httpx.Response) -> str:
    """An identifier of the file's version: a strong ETag, else its date, else nothing."""
    etag = response.headers.get("etag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("last-modified", "")


def _check_status(response: httpx.Response, url: str) -> None:
    code = response.status_code
    if code in (200, 206):
        return
    if code in TRANSIENT_STATUS:
        after = response.headers.get("retry-after", "")
        raise _TransientError(f"the server answers {code}", float(after) if after.isdigit() else None)
    raise UserError(f"{url}: the server answers {code}{' (not found)' if code == 404 else ''}; check base_url=...")


def _drop(remote: RemoteFile) -> int:
    """Delete the incomplete file; returns its number of bytes."""
    size = remote.arrived
    remote.part.unlink(missing_ok=True)
    remote.version.unlink(missing_ok=True)
    return size
