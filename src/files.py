"""Writing a file so that a reader never meets half of it."""

from __future__ import annotations

import os
from pathlib import Path


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
