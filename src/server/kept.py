"""Files that the server itself put into a folder, by a list of their names there: only those does it delete."""

from __future__ import annotations

import json
from pathlib import Path

from src.files import write_bytes, write_text

# Beside the files.
NAMES = ".added.json"


def keep(path: Path, data: bytes) -> None:
    """Write a file and note that it is the server's."""
    write_bytes(path, data)
    try:
        _write(path.parent, _names(path.parent) | {path.name})
    except OSError:
        path.unlink()
        raise


def is_kept(path: Path) -> bool:
    """Whether the server put it there, into a folder that is no link to elsewhere."""
    return not path.parent.is_symlink() and path.name in _names(path.parent)


def discard(path: Path) -> None:
    """Delete a file of the server's."""
    # First: what somebody else puts there later is not the server's.
    _write(path.parent, _names(path.parent) - {path.name})
    path.unlink(missing_ok=True)


def _names(folder: Path) -> set[str]:
    try:
        return set(json.loads((folder / NAMES).read_text()))
    except (FileNotFoundError, ValueError):
        return set()


def _write(folder: Path, names: set[str]) -> None:
    write_text(folder / NAMES, json.dumps(sorted(names)))
