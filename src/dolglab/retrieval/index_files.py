"""A faiss index on disk: the file that faiss writes, and a JSON beside it that says what it is.

faiss trusts its files: cut short, a mapped one ends the process, and flipped bits give wrong answers. So the JSON knows
the length and the digest, and is there only once the index is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dolglab.errors import UserError
from dolglab.io import atomic_path, sha256_of, write_text

FIELDS = {"kind", "settings", "dim", "count", "bytes", "sha256"}


@dataclass(frozen=True)
class IndexHeader:
    """What an index is: its kind, the settings it was built with, descriptors' length and number (None: any)."""

    kind: str
    settings: Mapping[str, int | None] = field(default_factory=dict)
    dim: int | None = None
    count: int | None = None


def write_index(path: Path, index: Any, header: IndexHeader) -> None:
    """Write a faiss index beside `path`, then rename it into place, then its JSON; folders are made as needed.

    Raises UserError for a name that faiss cannot take and for a file that cannot be written.
    """
    import faiss

    with atomic_path(path) as aside:
        name = _utf8(aside)
        try:
            faiss.write_index(index, name)
        except RuntimeError as error:
            raise UserError(f"{path} cannot be written: is there room on the disk?") from error
        stored = {"kind": header.kind, "settings": dict(header.settings), "dim": header.dim, "count": header.count}
        stored |= {"bytes": aside.stat().st_size, "sha256": sha256_of(aside)}
        # Whoever is stopped between these steps leaves no JSON that speaks of another index.
        _json_path(path).unlink(missing_ok=True)
    write_text(_json_path(path), json.dumps(stored, indent=2) + "\n")


def read_index(path: Path, wanted: IndexHeader, mmap: bool) -> Any:
    """The faiss index at `path`, if it is the wanted one; mapped, its content is not checked against the digest.

    Raises UserError for an index that is not there, damaged, or another than `wanted`.
    """
    import faiss

    stored = _read_json(path)
    _check_wanted(path, stored, wanted)
    damaged = UserError(f"{path} is damaged: build the index again")
    try:
        if path.stat().st_size != stored["bytes"] or not (mmap or sha256_of(path) == stored["sha256"]):
            raise damaged
    except OSError as error:
        # Another process took it away since its header was read.
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    # faiss maps the lists of inverted files by one flag, the vectors, codes and graphs of other kinds by another.
    mapped = faiss.IO_FLAG_MMAP if wanted.kind.startswith("ivf") else faiss.IO_FLAG_MMAP_IFC
    name = _utf8(path)
    try:
        index = faiss.read_index(name, mapped if mmap else 0)
    except RuntimeError as error:
        raise damaged from error
    if (index.d, index.ntotal) != (stored["dim"], stored["count"]):
        raise damaged
    return index


def _json_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: there is no index: build one and save it there")
    beside = _json_path(path)
    try:
        stored = json.loads(beside.read_text())
    except OSError as error:
        raise UserError(f"{beside} cannot be read, so the index was not saved whole: build it again") from error
    except ValueError:
        stored = None
    if not isinstance(stored, dict) or not isinstance(stored.get("settings"), dict) or FIELDS - stored.keys():
        raise UserError(f"{beside} is damaged: build the index again")
    return stored


def _check_wanted(path: Path, stored: dict[str, Any], wanted: IndexHeader) -> None:
    if stored["kind"] != wanted.kind:
        raise UserError(f"{path} is an index of the kind {stored['kind']}, not {wanted.kind}: ask for that one")
    if wanted.dim not in (None, stored["dim"]):
        raise UserError(f"{path} indexes descriptors of {stored['dim']} values, not {wanted.dim}: build it again")
    had, asked = stored["settings"], wanted.settings
    others = [f"{name}={had.get(name)}, not {asked.get(name)}" for name in asked if had.get(name) != asked.get(name)]
    if others:
        raise UserError(f"{path} was built with {' and '.join(others)}: build it again or ask for the same")


def _utf8(path: Path) -> str:
    try:
        return path.as_posix().encode().decode()
    except UnicodeEncodeError as error:
        raise UserError(f"{os.fsencode(path)!r}: faiss takes UTF-8 names only, rename the folder or file") from error
