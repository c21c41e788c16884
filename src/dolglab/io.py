"""Files that one process at a time holds; a process that ends, however, holds none."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from dolglab.errors import InputError


def write_text(path: Path, text: str) -> Path:
    """Write `text` as UTF-8 beside `path`, then rename it into place; folders are made as needed.

    File names that are not UTF-8 come as lone surrogates, which are written as escapes.
    """
    return write_bytes(path, text.encode(errors="backslashreplace"))


def is_utf8(name: str) -> bool:
    """Whether a name, as the system gives it, is Unicode: other bytes come as lone surrogates."""
    return name.encode(errors="ignore").decode() == name


def settle(path: Path) -> None:
    """Have a file on the disk itself, where a power cut leaves it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> Path:
    """Write `data` beside `path`, then rename it into place; folders are made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(data)
        settle(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return path


# Handles by file. Closed where this process forks, since the fork would hold them beyond its end.
_HELD: dict[Path, int] = {}


def hold(path: Path, seconds: float = 0.0, needed: bool = False) -> bool:
    """Hold the file at `path`, made as needed, until this process ends or lets go of it.

    False where another process holds it, still after so many `seconds`. On a disk without locks nothing is refused;
    raises InputError there where the lock is `needed`.
    """
    if held(path):
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


def held(path: Path) -> bool:
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
            raise InputError(f"this disk has no file locks ({error.strerror}): put the folder on another one") from None
    return True


os.register_at_fork(after_in_child=release_all)
