from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from dolglab.data.sources import (
    FolderSource,
    GLDv2Source,
    JoinedSource,
    encode_names,
    file_size,
    first_copies,
    hash_share,
    stable_ids,
)
from dolglab.io import retry_io

NAMES = ["notre dame/1.jpg", "été/ü ñ.jpg", "寺/🗼.jpg", "a=b,c[1]/x.jpg"]


def test_folder_source_reads_names_with_blanks_unicode_and_emoji(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    source = FolderSource(tmp_path, NAMES)
    assert len(source) == 4
    assert [source.name(row) for row in range(4)] == NAMES
    assert [source.read(row).decode() for row in range(4)] == NAMES
    assert source._names.dtype.kind == "S"


def test_joined_sources_are_concatenated_including_empty_ones(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(b"x" * (number + 1))
    names = [[f"{number}.jpg" for number in part] for part in ([], [0, 1], [], [2], [3, 4, 5], [])]
    joined = JoinedSource(*(FolderSource(tmp_path, encode_names(part)) for part in names))
    assert len(joined) == 6
    assert [joined.name(row) for row in range(6)] == [f"{number}.jpg" for number in range(6)]
    assert [joined.size(row) for row in range(6)] == [1, 2, 3, 4, 5, 6]
    assert joined.read(4) == b"xxxxx"
    for outside in (-1, 6):
        with pytest.raises(IndexError, match=str(outside)):
            joined.name(outside)


def test_some_images_of_a_folder_are_taken_in_order(tmp_path: Path) -> None:
    source = FolderSource(tmp_path, NAMES).take(np.array([3, 1]))
    assert [source.name(row) for row in range(len(source))] == [NAMES[3], NAMES[1]]


def test_hex_source_follows_gldv2s_layout(tmp_path: Path) -> None:
    source = GLDv2Source(tmp_path, "train", np.array([0x00A1B2C3D4E5F607, 2**64 - 1], np.uint64))
    assert source.name(0) == "train/0/0/a/00a1b2c3d4e5f607.jpg"
    assert source.name(1) == "train/f/f/f/ffffffffffffffff.jpg"
    with pytest.raises(OSError, match="00a1b2c3d4e5f607"):
        source.read(0)


class Flaky:
    """Raises these errors, one per read, then returns its bytes."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)

    def read(self, position: int) -> bytes:
        if self.errors:
            raise OSError(self.errors.pop(0), "no luck")
        return b"data"


@pytest.mark.parametrize("errors", [(), (errno.EIO,), (errno.ESTALE, errno.EIO)])
def test_a_temporary_read_error_is_retried(errors: tuple[int, ...]) -> None:
    assert retry_io(Flaky(*errors).read, 0) == b"data"


@pytest.mark.parametrize(("errors", "left"), [((errno.EIO,) * 4, 1), ((errno.ENOENT,) * 3, 2)])
def test_a_permanent_read_error_is_reported(errors: tuple[int, ...], left: int) -> None:
    source = Flaky(*errors)
    with pytest.raises(OSError, match="no luck"):
        retry_io(source.read, 0)
    assert len(source.errors) == left


def test_file_size_is_none_for_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "three").write_bytes(b"abc")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    assert file_size(tmp_path / "three") == 3
    assert file_size(tmp_path / "dangling") is None
    assert file_size(tmp_path / "three" / "inside a file") is None


def test_ids_depend_on_names_not_on_positions() -> None:
    ids = stable_ids(NAMES)
    assert ids.dtype == np.uint64
    assert stable_ids(NAMES[::-1]).tolist() == ids.tolist()[::-1]
    assert stable_ids(NAMES, seed=1).tolist() != ids.tolist()
    assert len(set(stable_ids([str(number) for number in range(5000)]).tolist())) == 5000
    assert stable_ids(["landmark/1.jpg"]).tolist() == [6817392550084030613]


def test_hash_shares_are_uniform_and_depend_on_id_and_seed() -> None:
    ids = np.arange(50000, dtype=np.uint64)
    shares = hash_share(ids, 0)
    np.testing.assert_allclose(np.histogram(shares, 10, (0, 1))[0], 5000, rtol=0.05)
    assert shares.min() >= 0
    assert shares.max() < 1
    np.testing.assert_array_equal(hash_share(ids[::-1], 0), shares[::-1])
    assert abs(np.corrcoef(shares, hash_share(ids, 1))[0, 1]) < 0.02


def test_hash_share_is_splitmix64() -> None:
    def splitmix(state: int) -> int:
        mask = 2**64 - 1
        x = (state + 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    ids = [0, 1, 12345, 2**64 - 1]
    expected = [(splitmix(value) >> 11) / 2**53 for value in ids]
    assert hash_share(np.array(ids, np.uint64), 0).tolist() == expected


@pytest.mark.parametrize("size", [1, 100, 20_000])
def test_copies_are_files_of_equal_bytes(tmp_path: Path, size: int) -> None:
    rng = np.random.default_rng(size)
    whole = rng.integers(0, 256, size, np.uint8).tobytes()
    # The same size, and equal except for the first byte, the last, or one in the middle.
    different = [bytes([whole[0] ^ 1]) + whole[1:], whole[:-1] + bytes([whole[-1] ^ 2])]
    different.append(whole[: size // 2] + bytes([whole[size // 2] ^ 4]) + whole[size // 2 + 1 :])
    files = [whole, different[0], whole, different[1], different[2], different[1], whole, whole + b"x", b"", b""]
    names = [f"{place}.jpg" for place in range(len(files))]
    for name, content in zip(names, files, strict=True):
        (tmp_path / name).write_bytes(content)
    names.append("not there.jpg")
    found = first_copies(tmp_path, encode_names(names)).tolist()
    assert found == [files.index(content) if content else place for place, content in enumerate(files)] + [10]


def test_a_set_without_files_has_no_copies(tmp_path: Path) -> None:
    assert first_copies(tmp_path, encode_names([])).tolist() == []
