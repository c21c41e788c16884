"""Files that are written whole or not at all, and files that one process at a time holds."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dolglab.errors import UserError


def write_text(path: Path, text: str) -> Path:
    """Write `text` as UTF-8 in one step (see `atomic_path`); returns `path`.

    File names that are not UTF-8 come as lone surrogates, which are written as escapes.
    """
    return write_bytes(path, text.encode(errors="backslashreplace"))


def is_utf8(name: str) -> bool:
    """Whether a name, as the system gives it, is Unicode: other bytes come as lone surrogates."""
    return name.encode(errors="ignore").decode() == name


def fsync(path: Path) -> None:
    """Have a file on the disk itself, where a power cut leaves it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Where to write what is to stand at `path`, a file or a folder: renamed into place when the block ends well.

    A reader meets what stood there or the whole; a block that fails leaves what stood there, and nothing else. The
    folders above are made as needed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        if aside.is_file():
            fsync(aside)
        os.replace(aside, path)
    finally:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> Path:
    """Write `data` in one step (see `atomic_path`); returns `path`."""
    with atomic_path(path) as aside:
        aside.write_bytes(data)
    return path


# Handles by file. Closed where this process forks, since the fork would hold them beyond its end.
_HELD: dict[Path, int] = {}


def acquire(path: Path, seconds: float = 0.0, needed: bool = False) -> bool:
    """Hold the file at `path`, made as needed, until this process ends or lets go of it.

    False where another process holds it, still after so many `seconds`. On a disk without locks nothing is refused;
    raises UserError there where the lock is `needed`.
    """
    if is_held(path):
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    end = time.monotonic() + seconds
    while not _locked(handle, needed):
        if time.monotonic() >= end:
            os.close(handle)
            return False
        time.sleep(0.1)
    _HELD[path.absolute()] = handle
    return True


def is_held(path: Path) -> bool:
    """Whether this process holds a file."""
    return path.absolute() in _HELD


def release(path: Path) -> None:
    """Let go of a file."""
    os.close(_HELD.pop(path.absolute()))


def release_all() -> None:
    """Let go of every file."""
    for path in list(_HELD):
        release(path)


def _locked(handle: int, needed: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # No locks here.
        if needed:
            raise UserError(f"this disk has no file locks ({error.strerror}): put the folder on another one") from None
    return True


os.register_at_fork(after_in_child=release_all)
