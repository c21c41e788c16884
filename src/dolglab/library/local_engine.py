"""Describe photos in threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolglab.concurrency import available_memory, prefetch_map
from dolglab.data.colour import Pixels
from dolglab.data.exif import exif_columns
from dolglab.data.image_errors import (
    VANISHED,
    BrokenImageError,
    MissingReaderError,
    OutOfMemoryError,
    TooLargeError,
    has_vanished,
    reason,
)
from dolglab.data.image_formats import read_header
from dolglab.data.image_reading import Reading, decode_shrunk, stored_size
from dolglab.data.photos import MIN_SIDE, PhotoFile, check_size, digest_of
from dolglab.data.tiff import is_tiff, open_tiff
from dolglab.library.contents import Photo, upright_size
from dolglab.sharing.loading import LoadedExtractor

# Number of photos that each thread reads ahead.
READ_AHEAD = 8
# Bytes per pixel that one pass needs, for the attention of transformers (convolutions need a quarter), and the share of
# the memory that passes may use.
PASS_BYTES, PASS_SHARE = 1_200, 0.75
# Number of files that are tried to find one photo for comparing backends.
TRIED_FILES = 16
# Number of photos without pixels that are passed on together.
PASSED_PHOTOS = 64
# The size of a photo that is to be read again next time; no file has it.
UNKNOWN_SIZE = -1


class Described(NamedTuple):
    """The result for one file.

    Attributes:
        photo: with digest and shape, or with the reason why it could not be read; its size is `UNKNOWN_SIZE` if the
            failure may be temporary.
        descriptor: (dim,); None if the photo could not be read, or if the file's bytes have the digest given with it.
        further: number of pages of the file besides the described one.
        local: packed local features, if requested.
        vanished: the file did not exist any more when it was to be read.
    """

    photo: Photo
    descriptor: NDArray[np.float32] | None = None
    further: int = 0
    local: bytes | None = None
    vanished: bool = False


def describe_files(
    loaded: LoadedExtractor,
    files: Iterable[PhotoFile],
    threads: int = 2,
    damaged: bool = False,
    describe_locally: Callable[[Pixels], bytes] | None = None,
) -> Iterator[Described]:
    """The results for files, approximately in their order.

    Args:
        threads: number of threads that read and decode.
        damaged: describe damaged JPEGs as far as they can be read.
        describe_locally: computes a photo's packed local features, if requested.
    """
    describer = loaded.describer

    def groups() -> Iterator[list[_Read]]:
        """Groups of photos for one pass through the network; photos that are not described come with the next group."""
        buckets = describer.buckets()
        waiting: dict[int, _Read] = {}
        passed: list[_Read] = []
        read = partial(_read, max_side=loaded.identity["max_side"], reading=loaded.reading._replace(damaged=damaged))
        for place, (_, found) in enumerate(prefetch_map(read, files, threads, READ_AHEAD * threads)):
            if found.pixels is None:
                passed.append(found)
                if len(passed) == PASSED_PHOTOS:
                    yield passed
                    passed = []
                continue
            waiting[place] = found
            for group in buckets.add(place, found.pixels):
                yield passed + [waiting.pop(key) for key, _ in group]
                passed = []
        yield passed
        for group in buckets.rest():
            yield [waiting.pop(key) for key, _ in group]

    def describe(group: list[_Read]) -> list[Described]:
        pixels = [each.pixels for each in group if each.pixels is not None]
        descriptors = iter(describer.together(pixels) if pixels else ())
        done = []
        for photo, shown, further, vanished in group:
            local = None if shown is None or describe_locally is None else describe_locally(shown)
            done.append(Described(photo, None if shown is None else next(descriptors), further, local, vanished))
        return done

    workers = passes_side_by_side(describer.workers, loaded.identity["max_side"] * max(1, *loaded.identity["scales"]))
    for _, done in prefetch_map(describe, groups(), workers, workers + 1, describer.share_cores):
        yield from done


def passes_side_by_side(most: int, side: float) -> int:
    """The number of photos, up to `most`, that are described at the same time, as available memory permits.

    `side` is the longest side of a photo in pixels.

    >>> passes_side_by_side(1, 10**9)
    1
    """
    room = available_memory() * PASS_SHARE / (PASS_BYTES * side**2)
    return max(1, int(min(most, room)))


def first_pixels(loaded: LoadedExtractor, files: Iterable[PhotoFile]) -> Pixels | None:
    """The pixels of the first file that can be read, if it is among the first `TRIED_FILES`."""
    found = (_read(file, loaded.identity["max_side"], loaded.reading).pixels for file in islice(files, TRIED_FILES))
    return next((pixels for pixels in found if pixels is not None), None)


class _Read(NamedTuple):
    """A photo, its pixels if it is to be described, the number of further pages, and whether its file vanished."""

    photo: Photo
    pixels: Pixels | None = None
    further: int = 0
    vanished: bool = False


def _read(file: PhotoFile, max_side: int, reading: Reading) -> _Read:
    photo = Photo(file.name, file.size, file.changed, ctime=file.ctime, digest=file.digest)
    try:
        data = file.read()
        digest = digest_of(data)
        if digest == file.digest:
            return _Read(photo)
        pixels = decode_shrunk(data, max_side, reading)
        height, width = pixels.shape[:2]
        if min(height, width) < MIN_SIDE:
            # It may only be small because it was shrunk, as any scan was whose header is refused as too large.
            with suppress(TooLargeError):
                header = read_header(data)
                check_size(header.height, header.width)
        further = open_tiff(data).further if is_tiff(data) else 0
        size = stored_size(data)
        stored = None if size is None else upright_size(size, (height, width))
        photo = replace(photo, shape=(height, width), digest=digest, stored=stored, exif=exif_columns(data))
        return _Read(photo, pixels, further)
    except (BrokenImageError, OSError) as error:
        # It may succeed later: an unmounted disk, a missing package, too little memory.
        temporary = isinstance(error, OSError | MissingReaderError | OutOfMemoryError)
        size = UNKNOWN_SIZE if temporary else photo.size
        vanished = has_vanished(error)
        why = VANISHED if vanished else reason(error)
        return _Read(replace(photo, size=size, reason=why, digest=None), vanished=vanished)
