"""Photos described by this process, in threads."""

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
from dolglab.data.image_errors import BrokenImageError, MissingReaderError, OutOfMemoryError, TooLargeError, reason
from dolglab.data.image_formats import read_header
from dolglab.data.image_reading import Reading, decode_shrunk, stored_size
from dolglab.data.photos import MIN_SIDE, PhotoFile, check_size, digest_of
from dolglab.data.tiff import is_tiff, open_tiff
from dolglab.library.contents import Photo, upright_size
from dolglab.sharing.loading import LoadedExtractor

# Photos that each thread reads ahead.
READ_AHEAD = 8
# Bytes of a pass for each pixel, as transformers take for attention (convolutions take a quarter), and the share of the
# memory that passes may take.
PASS_BYTES, PASS_SHARE = 1_200, 0.75
# Files of which one is taken to see what runs the network faster.
TRIED_FILES = 16
# Photos that are not to be described, and are given on together.
PASSED_PHOTOS = 64
# The size of a photo that is to be tried again: no file has it.
UNKNOWN_SIZE = -1


class Described(NamedTuple):
    """What became of a file.

    Attributes:
        photo: with its digest and shape; where it could not be read with the reason, and with `UNKNOWN_SIZE` where
            that may pass.
        descriptor: (dim,); None also of a file whose bytes have the digest that it came with.
        further: how many pages the file has beside the one that is described.
        local: its local features, packed, where they were asked for.
    """

    photo: Photo
    descriptor: NDArray[np.float32] | None = None
    further: int = 0
    local: bytes | None = None


def describe_files(
    loaded: LoadedExtractor,
    files: Iterable[PhotoFile],
    threads: int = 2,
    damaged: bool = False,
    describe_locally: Callable[[Pixels], bytes] | None = None,
) -> Iterator[Described]:
    """What becomes of each file, about in their order.

    Args:
        threads: that read and decode.
        damaged: damaged JPEGs are described as far as they can be read.
        describe_locally: gives a photo's local features, packed, where these are wanted too.
    """
    describer = loaded.describer

    def groups() -> Iterator[list[_Read]]:
        """Photos that go through the network together, and before them those that are not to be described."""
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
        for photo, shown, further in group:
            local = None if shown is None or describe_locally is None else describe_locally(shown)
            done.append(Described(photo, None if shown is None else next(descriptors), further, local))
        return done

    workers = passes_side_by_side(describer.workers, loaded.identity["max_side"] * max(1, *loaded.identity["scales"]))
    for _, done in prefetch_map(describe, groups(), workers, workers + 1, describer.share_cores):
        yield from done


def passes_side_by_side(most: int, side: float) -> int:
    """How many photos of up to `side` pixels a side are described at the same time: what memory there is has room for.

    >>> passes_side_by_side(1, 10**9)
    1
    """
    room = available_memory() * PASS_SHARE / (PASS_BYTES * side**2)
    return max(1, int(min(most, room)))


def first_pixels(loaded: LoadedExtractor, files: Iterable[PhotoFile]) -> Pixels | None:
    """The pixels of the first file that can be read, if it is among the first few."""
    found = (_read(file, loaded.identity["max_side"], loaded.reading).pixels for file in islice(files, TRIED_FILES))
    return next((pixels for pixels in found if pixels is not None), None)


class _Read(NamedTuple):
    """A photo, its pixels where it is to be described, and further pages."""

    photo: Photo
    pixels: Pixels | None = None
    further: int = 0


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
            # Perhaps only since it was shrunk, as a scan too large for its header to be read surely was.
            with suppress(TooLargeError):
                header = read_header(data)
                check_size(header.height, header.width)
        further = open_tiff(data).further if is_tiff(data) else 0
        size = stored_size(data)
        stored = None if size is None else upright_size(size, (height, width))
        photo = replace(photo, shape=(height, width), digest=digest, stored=stored, exif=exif_columns(data))
        return _Read(photo, pixels, further)
    except (BrokenImageError, OSError) as error:
        # A disk that was not there, a reader that was not installed, little memory: another time it may be read.
        may_pass = isinstance(error, OSError | MissingReaderError | OutOfMemoryError)
        size = UNKNOWN_SIZE if may_pass else photo.size
        return _Read(replace(photo, size=size, reason=reason(error), digest=None))
