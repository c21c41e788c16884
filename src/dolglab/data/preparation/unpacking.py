"""Unpack archives safely, without writing outside their folder."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from dolglab.data.archive_source import safe_name
from dolglab.errors import UserError
from dolglab.io import write_bytes

Keep = Callable[[PurePosixPath], bool]


def unpack(archive: Path, folder: Path, flat: bool, keep: Keep = lambda name: True) -> None:
    """Unpack the files of a zip archive, or of a tar archive, compressed or not, into `folder`.

    Args:
        archive: the archive.
        folder: the destination.
        flat: drop the folders inside the archive.
        keep: selects files by name.

    Raises UserError for an archive that is damaged or incomplete, for names that lead out of the folder, and for links
    and devices.
    """
    try:
        (_unzip if zipfile.is_zipfile(archive) else _untar)(archive, folder, flat, keep)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, OSError) and error.errno:
            raise UserError(f"{archive.name} could not be unpacked: {error.strerror}") from error
        raise UserError(f"{archive} is damaged ({reason}): delete it, and run the command again") from error


def _untar(archive: Path, folder: Path, flat: bool, keep: Keep) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            name = safe_name(member, archive)
            file = tar.extractfile(member) if keep(name) else None
            if file is not None:
                write_bytes(folder / (name.name if flat else name), file.read())
        # A compressed file has its checksum at the very end.
        while tar.fileobj is not None and tar.fileobj.read(1 << 20):
            pass


def _unzip(archive: Path, folder: Path, flat: bool, keep: Keep) -> None:
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            name = PurePosixPath(member.filename)
            if name.is_absolute() or ".." in name.parts:
                raise UserError(f"{archive} contains {member.filename!r}, which is not a plain file inside it: refused")
            if not member.is_dir() and keep(name):
                write_bytes(folder / (name.name if flat else name), packed.read(member))
