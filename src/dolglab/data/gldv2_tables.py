"""GLDv2's csv files: which images show which landmark, and the solutions of its retrieval and recognition tasks."""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from dolglab.errors import UserError

T = TypeVar("T")

IMAGE_ID = re.compile("[0-9a-f]{16}")
USAGES = ("Public", "Private", "Ignored")


def read_labels(path: Path) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Image ids (uint64 of their 16 hex digits) and landmark ids of either csv, in the file's order."""
    return _parse_rows(path, labelled=True)


def read_ids(path: Path) -> NDArray[np.uint64]:
    """The ids in the column `id` of `index.csv` or `test.csv`, in the file's order.

    Raises UserError for another header, no rows, or an id that is not 16 hex digits.
    """
    return _parse_rows(path, labelled=False)[0]


def read_retrieval_solution(path: str | Path) -> dict[str, dict[str, frozenset[str]]]:
    """For each usage, for each query, the index images of its landmark; queries of none have an empty set.

    Raises UserError as `read_recognition_solution`.
    """
    return _read_solution(path, "images", lambda images: frozenset(() if images == "None" else images.split()))


def read_recognition_solution(path: str | Path) -> dict[str, dict[str, frozenset[int]]]:
    """For each usage, for each test image, the landmarks it shows; none is an empty set.

    Raises UserError for a missing file, another header, a landmark that is no number, an unknown usage, an image
    listed twice.
    """
    return _read_solution(path, "landmarks", lambda landmarks: frozenset(map(int, landmarks.split())))


@contextmanager
def open_csv(path: Path) -> Iterator[TextIO]:
    """A csv file to read. Raises UserError, while it is read, where it is none."""
    # A landmark's images are one field, which may be longer than the csv module takes unless told otherwise.
    limit = csv.field_size_limit(2**31 - 1)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield file
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a csv file: {error}") from error
    finally:
        csv.field_size_limit(limit)


def id_bytes(names: Sequence[str]) -> bytes:
    """The ids' eight bytes each, most significant first. Raises ValueError for a name that is no id.

    >>> id_numbers(id_bytes(["00000000000000ff", "0000000000000100"])).tolist()
    [255, 256]
    """
    for name in names:
        if not IMAGE_ID.fullmatch(name):
            raise ValueError(f"{name!r} is not an image id of 16 hex digits (0-9a-f)")
    return bytes.fromhex("".join(names))


def id_numbers(data: bytes | bytearray) -> NDArray[np.uint64]:
    """What `id_bytes` gave, as numbers."""
    return np.frombuffer(data, ">u8").astype(np.uint64)


def parse_ids(names: Sequence[str], path: Path | str) -> NDArray[np.uint64]:
    """The ids as numbers. Raises UserError, with the path they are from, for a name that is no id."""
    try:
        return id_numbers(id_bytes(names))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def check_unique(ids: NDArray[np.uint64], path: Path) -> None:
    """Raise UserError where ascending ids have one twice."""
    repeated = np.flatnonzero(ids[1:] == ids[:-1])
    if len(repeated):
        raise UserError(f"{path}: the image id {int(ids[repeated[0]]):016x} is listed more than once")


def _parse_rows(path: Path, labelled: bool) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Image ids and, where they are `labelled`, their landmarks; a row of `images` lists several of one landmark."""
    ids, landmarks, counts = bytearray(), array("q"), array("q")
    with open_csv(path) as file:
        rows = csv.reader(file)
        header = [column.strip() for column in next(rows, [])]
        several = labelled and "images" in header
        try:
            images = header.index("images" if several else "id")
            landmark = header.index("landmark_id") if labelled else images
        except ValueError:
            wanted = "columns landmark_id,images or id,landmark_id" if labelled else "column id"
            raise UserError(f"{path}: needs the {wanted}; it has {','.join(header)!r}") from None
        for number, row in enumerate(rows, start=2):
            if not row:
                continue
            try:
                names = row[images].split() if several else [row[images].strip()]
                ids += id_bytes(names)
                if labelled:
                    landmarks.append(int(row[landmark]))
                    counts.append(len(names))
            except IndexError:
                raise UserError(f"{path}, row {number}: it has fewer columns than the header") from None
            except (ValueError, OverflowError) as error:
                raise UserError(f"{path}, row {number}: {error}") from error
    if not ids:
        raise UserError(f"{path} lists no images")
    return id_numbers(ids), np.repeat(np.array(landmarks), np.array(counts))


def _read_solution(
    path: str | Path, answers: str, parse: Callable[[str], frozenset[T]]
) -> dict[str, dict[str, frozenset[T]]]:
    """For each usage, each row's answers by its id."""
    columns = ("id", answers, "Usage")
    found: dict[str, dict[str, frozenset[T]]] = {usage: {} for usage in USAGES}
    seen: set[str] = set()
    path = Path(path)
    with open_csv(path) as file:
        rows = csv.DictReader(file)
        if not set(columns) <= set(rows.fieldnames or ()):
            raise UserError(f"{path}: needs the columns {','.join(columns)}; it has {rows.fieldnames or 'none'}")
        for row in rows:
            name, answer, usage = (str(row[column] or "").strip() for column in columns)
            if usage not in USAGES:
                raise UserError(f"{path}, image {name}: the usage {usage!r} is none of {', '.join(USAGES)}")
            if name in seen:
                raise UserError(f"{path}: the image {name} is listed more than once")
            seen.add(name)
            try:
                found[usage][name] = parse(answer)
            except ValueError as error:
                raise UserError(f"{path}, image {name}: {answer!r} are no landmark ids") from error
    return found
