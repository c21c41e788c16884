"""Tar archives in memory."""

from __future__ import annotations

import io
import tarfile
from typing import Literal


def tar(files: dict[str, bytes], compression: Literal["", "gz"] = "", **odd: bytes) -> bytes:
    """An archive of files; `odd` adds a member of that name and type."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{compression}") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, kind in odd.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    return out.getvalue()
