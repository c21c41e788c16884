"""Write a split's images, at a smaller size, in LitData's chunk format."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from dolglab.concurrency import process_map, resolve_workers
from dolglab.contracts import Colour, Orientation
from dolglab.data.archive_source import LITDATA_INDEX, TABLE, save_table
from dolglab.data.gldv2 import Kind, image_source, listed_ids
from dolglab.data.image_errors import BrokenImageError, has_vanished, reason
from dolglab.data.image_reading import Reading, checked_reading, decode, shrink
from dolglab.data.sources import GLDv2Source, file_size
from dolglab.errors import UserError
from dolglab.io import atomic_path, folder_lock, retry_io, write_text

# Images per chunk: about 60 MB of 640-pixel photographs, which LitData downloads at once.
CHUNK_SIZE = 600
# The number of images from which the required space is estimated, and the safety factor.
PROBES, RESERVE = 64, 1.1
# An image whose shorter side would fall below this, and so count as broken in training, keeps its bytes.
THIN = 16
# LitData's layout of {"id": str, "image": bytes}: the lengths of both, then both.
LENGTHS = struct.Struct("<II")
ID_BYTES = 16


class _Job(NamedTuple):
    """Images to pack, and their chunk; LitData's description of the chunk is beside it."""

    source: GLDv2Source
    size: int
    quality: int
    reading: Reading
    chunk_size: int
    chunk: Path


def pack_gldv2(
    root: str | Path,
    size: int = 640,
    quality: int = 90,
    train_csv: str = "train_clean.csv",
    source: Kind = "auto",
    orientation: Orientation = "exif",
    colour: Colour = "srgb",
    workers: int | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> Path:
    """Pack the images of `train_csv` into `root/packed/train`, by ascending id; an interrupted run is continued.

    Larger images are shrunk by area to a longer side of `size` pixels, turned upright, and written as JPEGs with this
    `quality`. JPEGs that are small enough, long thin images, and unreadable images keep their bytes, so that training
    sees the same images. A chunk has `chunk_size` images; by default all cores are `workers`.

    Returns the folder. Raises UserError for invalid settings or lists, missing images, too little space, a folder that
    cannot be written or that another process is preparing, and if LitData is not installed.
    """
    if source == "packed":
        raise UserError("source=packed: packed images cannot be packed again; use auto, tar or folder")
    if not isinstance(size, int) or size < 1 or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise UserError(f"size must be above 0 and quality from 1 to 100, not {size} and {quality}")
    if find_spec("litdata") is None:
        raise UserError("packing needs LitData: pip install 'dolglab[pack]'")
    reading, workers = checked_reading(orientation, colour), resolve_workers(workers)
    root = Path(root)
    images = image_source(root, "train", listed_ids(root, "train", train_csv), source)
    folder = root / "packed" / "train"
    with folder_lock(folder):
        jobs = _jobs(images, size, quality, reading, folder, chunk_size)
        left = [job for job in jobs if not _done(job)]
        try:
            _check_space(left, jobs, folder)
            for stale in _others(folder, jobs):
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
            list(process_map(_pack, left, workers, "packing", unit="chunks"))
            _join(folder, jobs)
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
    total = sum(job.chunk.stat().st_size for job in jobs)
    print(
        f"{folder}: {len(images):,} images in {len(jobs)} chunks, {total / 1e9:.2f} GB; data.source=packed reads them"
    )
    return folder


def packed_bytes(data: bytes, size: int, quality: int, reading: Reading) -> bytes:
    """An image's bytes in packed form."""
    try:
        pixels = decode(data, reading)
    except BrokenImageError:
        return data
    shorter, longer = sorted(pixels.shape[:2])
    if (longer <= size and data[:2] == b"\xff\xd8") or shorter * size < THIN * longer:
        return data
    return simplejpeg.encode_jpeg(np.ascontiguousarray(shrink(pixels, size)), quality, colorsubsampling="420")


def _jobs(images: GLDv2Source, size: int, quality: int, reading: Reading, folder: Path, chunk_size: int) -> list[_Job]:
    """The jobs; a chunk's name identifies its content, so that chunks of other images or settings are not mistaken."""
    rows = np.arange(len(images))
    about = json.dumps([size, quality, reading.orientation, images.split, *_stated(reading).values()]).encode()
    jobs = []
    for number, start in enumerate(range(0, len(images), chunk_size)):
        part = images.take(rows[start : start + chunk_size])
        tag = hashlib.blake2b(about + part.ids.tobytes(), digest_size=6).hexdigest()
        jobs.append(_Job(part, size, quality, reading, chunk_size, folder / f"chunk-{number:05}-{tag}.bin"))
    return jobs


def _stated(reading: Reading) -> dict[str, str]:
    """The colour setting of packed images, if it is not that of versions before this option existed."""
    return {} if reading.colour == "ignore" else {"colour": reading.colour}


def _done(job: _Job) -> bool:
    try:
        about = json.loads(job.chunk.with_suffix(".json").read_text())
        return file_size(job.chunk) == about["chunks"][0]["chunk_bytes"]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return False


def _check_space(left: list[_Job], jobs: list[_Job], folder: Path) -> None:
    """Raise UserError if the remaining images will probably not fit on the disk, estimated from some of them."""
    total = sum(len(job.source) for job in left)
    if not total:
        return
    probes = [left[n * len(left) // PROBES] for n in range(PROBES)] if len(left) > PROBES else left
    sizes = [len(_packed(job, len(job.source) // 2)) for job in probes]
    dropped = sum(path.stat().st_size for path in _others(folder, jobs) if path.is_file())
    wanted, free = RESERVE * total * sum(sizes) / len(sizes), shutil.disk_usage(folder).free + dropped
    if wanted > free:
        raise UserError(f"packing needs about {wanted / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free in {folder}")


def _packed(job: _Job, position: int) -> bytes:
    try:
        data = retry_io(job.source.read, position)
    except OSError as error:
        name = job.source.name(position)
        if has_vanished(error):
            raise UserError(f"{name} is missing: restore it, or take it off the list; then pack again") from error
        raise UserError(f"{name} cannot be read: {reason(error)}") from error
    return packed_bytes(data, job.size, job.quality, job.reading)


def _pack(job: _Job) -> None:
    """Write one chunk under a temporary name; LitData's description of it is written last."""
    from litdata.streaming.writer import BinaryWriter

    class PlainWriter(BinaryWriter):
        """Without types: with pyarrow installed, LitData would write Arrow tables instead of single rows."""

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, None if name == "_types" else value)

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(dir=job.chunk.parent, prefix=".pack-") as scratch, atomic_path(job.chunk) as aside:
        writer = PlainWriter(scratch, chunk_size=len(job.source))
        for position in range(len(job.source)):
            writer.add_item(position, {"id": f"{int(job.source.ids[position]):016x}", "image": _packed(job, position)})
        writer.done()
        writer.merge()
        about = json.loads((Path(scratch) / "index.json").read_text())
        (chunk,) = about["chunks"]
        (Path(scratch) / chunk["filename"]).rename(aside)
    chunk["filename"] = job.chunk.name
    about["config"]["chunk_size"] = job.chunk_size
    write_text(job.chunk.with_suffix(".json"), json.dumps({"chunks": [chunk], "config": about["config"]}))


def _others(folder: Path, jobs: list[_Job]) -> list[Path]:
    """Chunks of other images or settings, the list and table of all chunks, and leftovers of killed processes."""
    current = {job.chunk.stem for job in jobs}
    return [
        path
        for path in folder.iterdir()
        if path.name.startswith((".pack-", TABLE, LITDATA_INDEX))
        or path.suffix == ".part"
        or (path.name.startswith("chunk-") and path.stem not in current)
    ]


def _join(folder: Path, jobs: list[_Job]) -> None:
    """Write LitData's list of all chunks, and the table of each image's position."""
    parts = [json.loads(job.chunk.with_suffix(".json").read_text()) for job in jobs]
    ids, offsets, sizes = (np.concatenate(column) for column in zip(*map(_layout, jobs), strict=True))
    archive = np.repeat(np.arange(len(jobs)), [len(job.source) for job in jobs])
    chunks = [chunk for part in parts for chunk in part["chunks"]]
    size, quality, reading = jobs[0].size, jobs[0].quality, jobs[0].reading
    about = {"size": size, "quality": quality, "orientation": reading.orientation, **_stated(reading)}
    write_text(folder / LITDATA_INDEX, json.dumps({"chunks": chunks, "config": parts[0]["config"], "packed": about}))
    save_table(folder / TABLE, {"id": ids, "archive": archive, "offset": offsets, "size": sizes})


def _layout(job: _Job) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, offsets and sizes of a chunk's images. Raises UserError for a chunk with unexpected content."""
    data = job.chunk.read_bytes()
    try:
        (count,) = struct.unpack_from("<I", data)
        starts = np.frombuffer(data, "<u4", count + 1, offset=4).astype(np.int64)
        lengths = [LENGTHS.unpack_from(data, start) for start in starts[:-1].tolist()]
    except (struct.error, ValueError):
        raise UserError(f"{job.chunk} is damaged: delete it, and pack again") from None
    sizes = np.array([size for _, size in lengths], np.int64)
    places = starts[:-1] + LENGTHS.size
    names = [data[place : place + ID_BYTES].decode("latin-1") for place in places.tolist()]
    whole = np.array_equal(places + ID_BYTES + sizes, starts[1:]) and all(name == ID_BYTES for name, _ in lengths)
    if not whole or names != [f"{sample:016x}" for sample in job.source.ids.tolist()]:
        raise UserError(f"{job.chunk} is damaged: delete it, and pack again")
    return job.source.ids, places + ID_BYTES, sizes
