"""Indexes on disk: saving and loading, and errors for damaged, truncated or other files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dolglab.errors import UserError
from dolglab.retrieval.faiss_indexes import IVFFlatIndex
from dolglab.retrieval.index import FlatIndex, Index, recall
from retrieval.indexes import DIM, KINDS, Table, every_kind, stable_sort


@every_kind
def test_saved_loaded_and_mapped_indexes_give_the_same_answers(
    kind: str, data: tuple[Table, Table], built: dict[str, Index], tmp_path: Path
) -> None:
    path = tmp_path / "new" / "an index"
    built[kind].save(path)
    assert sorted(os.listdir(path.parent)) == ["an index", "an index.json"]
    expected = built[kind].search(data[1], 30)
    for mmap in (False, True):
        index = KINDS[kind][0]()
        index.load(path, mmap=mmap, dim=DIM)
        for ours, theirs in zip(index.search(data[1], 30), expected, strict=True):
            assert (ours == theirs).all()
        assert (len(index), index.bytes_per_vector) == (1500, built[kind].bytes_per_vector)
        assert mmap == (str(path) in Path("/proc/self/maps").read_text())
    # The file has the same data as the memory, plus headers and sizes of lists.
    assert 0 <= path.stat().st_size - 1500 * built[kind].bytes_per_vector < 600


@every_kind
def test_an_index_can_be_saved_where_it_was_mapped_from(
    kind: str, data: tuple[Table, Table], built: dict[str, Index], tmp_path: Path
) -> None:
    path = tmp_path / "index"
    built[kind].save(path)
    mapped = KINDS[kind][0]()
    mapped.load(path, mmap=True)
    built[kind].save(path)
    assert (mapped.search(data[1], 5)[1] == built[kind].search(data[1], 5)[1]).all()
    with pytest.raises(UserError, match=re.escape(str(path))):
        mapped.save(path)
    mapped.build(data[0])
    mapped.save(path)
    assert path.is_file()


class TakesAway(FlatIndex):
    """An index whose file is deleted after the JSON was read, when its settings are compared."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def settings(self) -> dict[str, int | None]:
        self.path.unlink()
        return {}


@pytest.mark.parametrize("mmap", [True, False])
def test_an_index_deleted_while_it_is_read_is_reported(data: tuple[Table, Table], tmp_path: Path, mmap: bool) -> None:
    index, path = FlatIndex(), tmp_path / "index"
    index.build(data[0])
    index.save(path)
    with pytest.raises(UserError, match=os.strerror(errno.ENOENT)):
        TakesAway(path).load(path, mmap)


def test_search_settings_may_change_with_a_loaded_index(data: tuple[Table, Table], tmp_path: Path) -> None:
    index = IVFFlatIndex(lists=30, probes=1)
    index.build(data[0])
    index.save(tmp_path / "index")
    wider = IVFFlatIndex(lists=30, probes=30, depth=7)
    wider.load(tmp_path / "index")
    assert recall(wider.search(data[1], 10)[1], stable_sort(*data)[1], 10) == 1


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (FlatIndex, r"ivf_flat, not flat"),
        (lambda: IVFFlatIndex(lists=31, seed=1), r"lists=30, not 31 and seed=0, not 1"),
        (IVFFlatIndex, r"lists=30, not None"),
    ],
)
def test_an_index_of_another_kind_is_refused(
    other: Callable[[], Index], message: str, built: dict[str, Index], tmp_path: Path
) -> None:
    built["ivf_flat"].save(tmp_path / "index")
    index = other()
    with pytest.raises(UserError, match=message):
        index.load(tmp_path / "index")
    with pytest.raises(RuntimeError):
        index.search(np.ones((1, DIM), np.float32), 1)


def test_descriptors_of_another_size_are_refused(built: dict[str, Index], tmp_path: Path) -> None:
    built["flat"].save(tmp_path / "index")
    with pytest.raises(UserError, match=r"\b32 values, not 512"):
        FlatIndex().load(tmp_path / "index", dim=512)
    with pytest.raises(UserError, match=r"\b8 values .*\b32$"):
        built["flat"].search(np.ones((1, 8), np.float32), 1)


@pytest.mark.parametrize("mmap", [False, True])
@every_kind
def test_a_truncated_file_is_refused(kind: str, mmap: bool, built: dict[str, Index], tmp_path: Path) -> None:
    path = tmp_path / "index"
    built[kind].save(path)
    whole = path.read_bytes()
    for length in (0, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="index is damaged"):
            KINDS[kind][0]().load(path, mmap=mmap)


def test_a_flipped_byte_is_refused(built: dict[str, Index], tmp_path: Path) -> None:
    path = tmp_path / "index"
    built["hnsw"].save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="index is damaged"):
        KINDS["hnsw"][0]().load(path)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_file_that_is_not_an_index_is_refused(mmap: bool, built: dict[str, Index], tmp_path: Path) -> None:
    path, beside = tmp_path / "index", tmp_path / "index.json"
    built["flat"].save(path)
    path.write_bytes(b"nonsense" * 9)
    known = json.loads(beside.read_text()) | {"bytes": 72}
    beside.write_text(json.dumps(known | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))
    with pytest.raises(UserError, match="index is damaged"):
        FlatIndex().load(path, mmap=mmap)


def test_a_json_of_another_index_is_refused(built: dict[str, Index], tmp_path: Path) -> None:
    path, beside = tmp_path / "index", tmp_path / "index.json"
    built["flat"].save(path)
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"count": 3}))
    with pytest.raises(UserError, match="index is damaged"):
        FlatIndex().load(path)


def test_missing_and_incomplete_files_are_refused(built: dict[str, Index], tmp_path: Path) -> None:
    path, beside = tmp_path / "index", tmp_path / "index.json"
    with pytest.raises(UserError, match=re.escape(f"{path}: ")):
        FlatIndex().load(path)
    built["flat"].save(path)
    for text in ("{", "[]", '{"kind": "flat"}', "\udcff"):
        beside.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(UserError, match=r"index\.json is damaged"):
            FlatIndex().load(path)
    beside.unlink()
    with pytest.raises(UserError, match=r"index\.json cannot be read"):
        FlatIndex().load(path)


def test_a_name_that_faiss_cannot_read_is_refused(built: dict[str, Index], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="UTF-8"):
        built["flat"].save(tmp_path / os.fsdecode(b"\xff"))
    assert os.listdir(tmp_path) == []


def test_a_full_disk_keeps_the_previous_index(
    data: tuple[Table, Table], built: dict[str, Index], tmp_path: Path
) -> None:
    path = tmp_path / "index"
    small = FlatIndex()
    small.build(data[0][:10])
    small.save(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match="index cannot be written"):
            built["flat"].save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(os.listdir(tmp_path)) == ["index", "index.json"]
    small.load(path)
    assert len(small) == 10
