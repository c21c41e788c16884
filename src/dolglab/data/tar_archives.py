"""GLDv2's tar archives, indexed once and then read where they lie: nothing is unpacked."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dolglab.concurrency import process_map
from dolglab.data.archive_source import COLUMNS, ArchiveSource, Table, open_table, save_table
from dolglab.errors import UserError
from dolglab.io import folder_lock, write_bytes, write_text

FORMAT = 1
FOLDER, CURRENT = ".index", "current.json"
# What is known of an image before several archives stand in one table.
PART = ("id", "offset", "size")
BLOCK = 512
# An archive ends with two blocks of zeros, filled up to a record of 20 blocks.
MAX_END = 22 * BLOCK
ADVICE = "delete it, and `dolglab prepare task=gldv2` fetches it again"
IMAGE_NAME = re.compile(r"([0-9a-f]{16})\.jpg")


class TarSource(ArchiveSource):
    """Images of `root/SPLIT/*.tar`, indexed by `index_archives`."""

    advice = "fetch the other archives and index them (mode=index), or list only images that are there"

    def open_files(self) -> tuple[Path, list[str], Table]:
        """Raises UserError where there is no index, or one of other archives than are there."""
        folder = self.root / self.split
        how = f"`dolglab prepare task=gldv2 root={self.root} split={self.split} mode=index` makes it"
        try:
            about = json.loads((folder / FOLDER / CURRENT).read_text())
            if about["format"] != FORMAT:
                raise ValueError
            table = open_table(folder / FOLDER / about["tag"])
            archives = [str(name) for name, _, _ in about["archives"]]
            same = about["archives"] == archive_stamps([folder / name for name in archives])
        except FileNotFoundError:
            raise UserError(f"the archives of {folder} have no index, or are gone: {how}") from None
        except OSError as error:
            raise UserError(f"the index of {folder} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, EOFError):
            raise UserError(f"the index of {folder} is damaged: {how} anew") from None
        if not same:
            raise UserError(f"the archives of {folder} are not those that were indexed: {how} anew")
        # What a scan that goes on compares.
        self.stamp = str(about["tag"])
        return folder, archives, table


def index_archives(folder: str | Path, workers: int = 4) -> Path:
    """Index the tar archives of a folder and return the index's path; archives that are indexed are not read again.

    Raises UserError for no archives, one that is damaged, cut short or unsafe, an image that lies in two of them, a
    folder that cannot be written or that another process prepares.
    """
    folder = Path(folder)
    archives = sorted(path for path in folder.glob("*.tar") if path.is_file())
    if not archives:
        raise UserError(f"there are no archives in {folder} to index")
    with folder_lock(folder):
        stale = [path for path in archives if _indexed_part(path) is None]
        list(process_map(_index_one, stale, workers, "indexing"))
        return _join(folder, archives)


def archive_stamps(archives: Sequence[Path]) -> list[list[Any]]:
    """Name, size and date of each archive: what an index is valid for."""
    return [[path.name, (stat := path.stat()).st_size, stat.st_mtime_ns] for path in archives]


def read_headers(archive: Path) -> Table:
    """Ids, offsets and sizes of an archive's images, in its order; files that are no GLDv2 images are passed over.

    Raises UserError for an archive that is damaged or cut short, and for links, devices, and names that are absolute
    or lead out.
    """
    found: list[tuple[int, int, int]] = []
    try:
        with tarfile.open(archive, "r:") as tar:
            while (member := tar.next()) is not None:
                match = IMAGE_NAME.fullmatch(safe_name(member, archive).name)
                if member.isfile() and match:
                    found.append((int(match[1], 16), member.offset_data, member.size))
                # The library keeps every header otherwise.
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]
            end = tar.offset
        with archive.open("rb") as file:
            file.seek(end)
            rest = file.read(MAX_END + 1)
        if not BLOCK <= len(rest) <= MAX_END or any(rest):
            raise UserError(f"{archive} is cut short or damaged after {len(found)} images: {ADVICE}")
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive} is no whole tar archive ({error}): {ADVICE}") from error
    except OSError as error:
        raise UserError(f"{archive} cannot be read: {error.strerror}") from error
    return {name: np.array([row[place] for row in found], COLUMNS[name]) for place, name in enumerate(PART)}


def safe_name(member: tarfile.TarInfo, archive: Path) -> PurePosixPath:
    """A member's name. Raises UserError for links, devices, files with holes, and names that lead out."""
    name = PurePosixPath(member.name)
    if not (member.isfile() or member.isdir()) or member.issparse() or name.is_absolute() or ".." in name.parts:
        raise UserError(f"{archive} holds {member.name!r}, which is no plain file inside it: refused")
    return name


def _index_one(archive: Path) -> None:
    """Write an archive's part; its stamp is taken first, so that an archive that changes meanwhile is read again."""
    (stamp,) = archive_stamps([archive])
    data = io.BytesIO()
    np.savez(data, stamp=json.dumps([FORMAT, *stamp]), allow_pickle=False, **read_headers(archive))
    try:
        write_bytes(_part_path(archive), data.getvalue())
    except OSError as error:
        raise UserError(f"{_part_path(archive)} cannot be written: {error.strerror or error}") from error


def _part_path(archive: Path) -> Path:
    return archive.parent / FOLDER / "parts" / f"{archive.stem}.npz"


def _indexed_part(archive: Path) -> Table | None:
    """An archive's part; None where there is none, or where it is of another state of the archive."""
    try:
        with _part_path(archive).open("rb") as file, np.load(file, allow_pickle=False) as part:
            if json.loads(str(part["stamp"])) != [FORMAT, *archive_stamps([archive])[0]]:
                return None
            return {name: part[name] for name in PART}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _join(folder: Path, archives: list[Path]) -> Path:
    """The archives' parts as one sorted table."""
    stamps = archive_stamps(archives)
    tag = hashlib.blake2b(json.dumps([FORMAT, stamps]).encode(), digest_size=8).hexdigest()
    home = folder / FOLDER / tag
    try:
        open_table(home)
    except (OSError, ValueError, EOFError):
        table = _table(archives)
        try:
            save_table(home, table)
        except OSError as error:
            raise UserError(f"{home} cannot be written: {error.strerror or error}") from error
    write_text(folder / FOLDER / CURRENT, json.dumps({"format": FORMAT, "tag": tag, "archives": stamps}))
    for old in (folder / FOLDER).iterdir():
        if old.is_dir() and old.name not in (tag, "parts"):
            shutil.rmtree(old)
    print(f"{folder}: {len(np.load(home / 'id.npy', mmap_mode='r')):,} images in {len(archives)} archives are indexed")
    return home


def _table(archives: list[Path]) -> Table:
    parts = [_indexed_part(archive) for archive in archives]
    if None in parts:
        raise UserError(f"{archives[parts.index(None)]} changed while it was indexed: run again")
    found = [part for part in parts if part is not None]
    table: Table = {name: np.concatenate([part[name] for part in found]) for name in PART}
    table["archive"] = np.repeat(np.arange(len(found)), [len(part["id"]) for part in found])
    order = np.argsort(table["id"], kind="stable")
    table = {name: column[order] for name, column in table.items()}
    repeated = np.flatnonzero(table["id"][1:] == table["id"][:-1])
    if len(repeated):
        first, second = (archives[n].name for n in table["archive"][repeated[0] : repeated[0] + 2].tolist())
        raise UserError(f"the image {int(table['id'][repeated[0]]):016x} lies in {first} and again in {second}")
    return table
