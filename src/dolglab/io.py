"""Files: atomic writes, reads that are repeated after temporary errors, and locks between processes."""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from dolglab.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

# Errors of a disk or of a network file system that may be temporary.
TRANSIENT = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN})
# macOS has no such error.
TRANSIENT |= {errno.EREMOTEIO} if hasattr(errno, "EREMOTEIO") else set()
TRIES, PAUSE = 3, 0.1  # seconds
# The suffix of temporary names, and of SQLite's files beside them: the machine and process that made them.
ASIDE = re.compile(r"\.([0-9a-f]{8})-(\d+)\.part(-journal|-wal|-shm)?$")
_HOST = hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()
_SWEPT: set[Path] = set()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path for writing a file or folder, which is renamed to `path` if the block succeeds.

    A reader finds the old content or the complete new one, even after a power cut. If the block fails, the old content
    stays, and nothing else is left. The next process that writes into the same folder removes what killed processes
    left. Parent folders are created. An existing `path` must be a file or an empty folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    aside = aside_of(path)
    try:
        yield aside
        # Of a folder only its own files: deeper ones are thousands of photos that can be made again.
        for written in aside.iterdir() if aside.is_dir() else (aside,):
            if written.is_file():
                fsync(written)
        os.replace(aside, path)
        fsync(path.parent)
    finally:
        _remove(aside)


def aside_of(path: Path) -> Path:
    """The temporary path at which this process writes the content of `path`."""
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.part")


def sweep(folder: Path) -> None:
    """Remove temporary files that killed processes of this machine left in a folder; once per process."""
    if folder in _SWEPT:
        return
    _SWEPT.add(folder)
    for left in folder.glob(".*.part*"):
        made_by = ASIDE.search(left.name)
        if made_by is not None and made_by[1] == _HOST and not _is_alive(int(made_by[2])):
            _remove(left)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # A process of another user.
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> Path:
    """Write `data` in one step (see `atomic_path`); returns `path`."""
    with atomic_path(path) as aside:
        aside.write_bytes(data)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write `text` as UTF-8 in one step (see `atomic_path`); returns `path`.

    File names that are not UTF-8 come as lone surrogates, which are written as escapes.
    """
    return write_bytes(path, text.encode(errors="backslashreplace"))


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as CSV, one line each.

    >>> csv_text([("id", "score"), ("a,b", 1)])
    'id,score\\n"a,b",1\\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def read_bytes(path: str | Path) -> bytes:
    """A file's bytes. Raises OSError, also for pipes and devices, which could block or never end."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    with open(handle, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        return file.read()


def fsync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk, so that they survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_name(benchmark: str) -> str:
    """A benchmark's name as a file name.

    >>> file_name("photos/paris")
    'photos_paris'
    """
    return benchmark.replace("/", "_")


def is_utf8(name: str) -> bool:
    r"""Whether a file name is valid UTF-8; Python represents other bytes as lone surrogates.

    >>> is_utf8("été.jpg"), is_utf8("\udcff.jpg")
    (True, False)
    """
    return name.encode(errors="ignore").decode() == name


def remove_empty(folder: Path) -> None:
    """Remove a folder that is empty, and with it those around it, below the current one, that it leaves empty.

    Raises OSError for one that is not empty.
    """
    folder.rmdir()
    inside = folder.resolve()
    for around in inside.parents:
        if Path.cwd() not in around.parents or any(around.iterdir()):
            break
        around.rmdir()


def retry_io(operation: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The result of `operation`, which is repeated after temporary errors of the disk or the network.

    Raises OSError if it keeps failing, and at once if the file does not exist or may not be read.
    """
    for _ in range(TRIES - 1):
        try:
            return operation(*args, **kwargs)
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            time.sleep(PAUSE)
    return operation(*args, **kwargs)


# The library filelock is not used: it does not distinguish a disk without locks from a folder that cannot be written,
# leaves marker files of killed processes where there is no flock, and before version 4 a fork keeps the lock.
_HELD: dict[Path, int] = {}


def acquire(path: Path, seconds: float = 0.0, needed: bool = False) -> bool:
    """Lock the file at `path`, creating it if needed, until this process ends or releases it; forks do not inherit it.

    Returns True also if this process holds it already, and False if another process still holds it after `seconds`. On
    a disk without locks it returns True, or raises UserError if the lock is `needed`.
    """
    if is_held(path):
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + seconds
    try:
        while not _lock(handle, path, needed):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
        _HELD[path.absolute()] = handle
        return True
    finally:
        if not is_held(path):
            os.close(handle)


def is_held(path: Path) -> bool:
    """Whether this process holds a file."""
    return path.absolute() in _HELD


def release(path: Path) -> None:
    """Release the lock of a file."""
    os.close(_HELD.pop(path.absolute()))


def release_all() -> None:
    """Release the locks of all files."""
    for path in list(_HELD):
        release(path)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Lock a folder, creating it if needed, while it is prepared; the lock ends with the process, however it ends.

    Raises UserError if it is already locked, also by this process, if it cannot be written, and on a disk without
    locks.
    """
    lock = folder / ".preparing.lock"
    try:
        free = not is_held(lock) and acquire(lock, needed=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
    if not free:
        raise UserError(f"another process is preparing {folder}: wait for it, or stop it")
    try:
        yield
    finally:
        release(lock)


def _lock(handle: int, path: Path, needed: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if needed:
            raise UserError(
                f"{path.parent}: this disk has no file locks ({error.strerror}): put the folder on another one"
            ) from None
    return True


# A fork that kept the handles would hold the locks after its parent has ended.
os.register_at_fork(after_in_child=release_all)
