"""What an archive from elsewhere may hold."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath

from src.errors import InputError


def safe_name(member: tarfile.TarInfo, archive: Path) -> PurePosixPath:
    """A member's name. Raises InputError for links, devices, files with holes, and names that lead out."""
    name = PurePosixPath(member.name)
    if not (member.isfile() or member.isdir()) or member.issparse() or name.is_absolute() or ".." in name.parts:
        raise InputError(f"{archive} holds {member.name!r}, which is no plain file inside it: refused")
    return name
