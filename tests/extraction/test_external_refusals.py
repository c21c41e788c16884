"""Invalid descriptors of other projects are refused in one clear line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.sparse import csc_matrix

from dolglab.contracts import Benchmark
from dolglab.errors import UserError
from dolglab.extraction.external import read_descriptors
from extraction.external_files import save_matlab, save_npy


@pytest.mark.parametrize(
    ("value", "count", "why"),
    [
        (np.nan, 1, r"1 of 9 descriptors .*: jpg/été à\.jpg$"),
        (-np.inf, 7, r"7 of 9 descriptors .*jpg/e\.jpg and 2 more$"),
        (0, 9, r"9 of 9 descriptors .*zero.*: jpg/été à\.jpg, .* and 4 more$"),
    ],
)
def test_rows_without_a_direction_are_counted_and_named(
    tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64], value: float, count: int, why: str
) -> None:
    raw[:count] *= 0 if value == 0 else 1
    raw[:count, 2] = value
    path = save_npy(tmp_path / "d.npy", raw)
    with pytest.raises(UserError, match=why) as error:
        read_descriptors(path, benchmark)
    assert "\n" not in str(error.value)


ORDER = r"for the 9 images of small, 7 .* 2 .*d\.txt"


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ({"X": np.ones((5, 7)), "Q": np.ones((5, 3))}, f"has 7 and 3 descriptors {ORDER}"),
        ({"X": np.ones((8, 5)), "Q": np.ones((2, 5))}, f"has 8 and 2 descriptors {ORDER}"),
        ({"X": np.ones((5, 7))}, f"has 7 descriptors {ORDER}"),
        ({"X": np.ones((5, 7)), "Q": np.ones((4, 2))}, r"gallery.* 5 .*queries.* 4$"),
        ({"Q": np.ones((5, 2))}, r"d\.mat .*X"),
        ({"X": np.ones((5, 7)), "Q": "text"}, "Q .*<U4"),
        ({"X": csc_matrix(np.ones((5, 7))), "Q": np.ones((5, 2))}, "X .*csc_"),
        ({"X": np.ones((5, 7)) * 1j, "Q": np.ones((5, 2))}, "X .*complex128"),
        ({"X": np.ones((5, 7)), "Q": np.empty((0, 0))}, r"Q .*float64.*\(0, 0\)"),
    ],
)
def test_wrong_matlab_tables_give_one_clear_line(
    tmp_path: Path, benchmark: Benchmark, tables: dict[str, Any], why: str
) -> None:
    path = save_matlab(tmp_path / "d.mat", **tables)
    with pytest.raises(UserError, match=why) as error:
        read_descriptors(path, benchmark)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("tensors", "metadata", "why"),
    [
        ({"gallery": np.ones((7, 5))}, None, " gallery$"),
        ({"a": np.ones((7, 5)), "b": np.ones(3)}, None, " a, b$"),
        ({"descriptors": np.ones((9, 5)), "queries": np.ones((2, 5))}, None, " descriptors, queries$"),
        ({"gallery": np.ones((7, 5)), "queries": np.ones((2, 6))}, None, r"gallery.* 5 .*queries.* 6$"),
        ({"gallery": np.ones((6, 5)), "queries": np.ones((3, 5))}, None, f"has 6 and 3 descriptors {ORDER}"),
        ({"descriptors": np.ones((9, 5), np.bool_)}, None, "descriptors .*bool"),
        ({"descriptors": np.ones((9, 5))}, {"names": "a b"}, r"d\.safetensors.*names"),
        ({"descriptors": np.ones((9, 5))}, {"names": "[1]"}, r"d\.safetensors.*names"),
        ({"descriptors": np.ones((9, 5))}, {"names": "[]"}, " 9 .* 0 names"),
    ],
)
def test_wrong_safetensors_give_one_clear_line(
    tmp_path: Path, benchmark: Benchmark, tensors: dict[str, Any], metadata: dict[str, str] | None, why: str
) -> None:
    save_file(tensors, tmp_path / "d.safetensors", metadata=metadata)
    with pytest.raises(UserError, match=why) as error:
        read_descriptors(tmp_path / "d.safetensors", benchmark)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.ones((10, 5)), f"has 10 descriptors {ORDER}"),
        (np.ones((5, 9)), f"has 5 descriptors {ORDER}"),
        (np.ones(9), r"float64.*\(9,\)"),
        (np.ones((9, 5, 1)), r"\(9, 5, 1\)"),
        (np.ones((9, 5), np.complex64), "complex64"),
        (np.full((9, 5), "a"), "<U1"),
        (np.full((9, 5), {"a": 1}, object), r"d\.npy"),
        (np.ones((0, 5)), "."),
        (np.ones((9, 0)), "."),
    ],
)
def test_wrong_arrays_give_one_clear_line(tmp_path: Path, benchmark: Benchmark, array: NDArray[Any], why: str) -> None:
    np.save(tmp_path / "d.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=why) as error:
        read_descriptors(tmp_path / "d.npy", benchmark)
    assert "\n" not in str(error.value)


MATLAB_73 = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM" + bytes(384) + b"\x89HDF\r\n\x1a\n"


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("d.npy", b"\x80\x04]\x94(K\x01K\x02K\x03e.", r"d\.npy"),
        ("d.npy", b"", r"d\.npy"),
        ("d.npy", b"\x93NUMPY\x01\x00\x10\x00garbage", r"d\.npy"),
        ("d.mat", MATLAB_73, r"v7\.3"),
        ("d.mat", b"no matlab" * 100, r"d\.mat"),
        ("d.mat", b"", r"d\.mat"),
        ("d.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00garbage!", r"d\.safetensors"),
        ("d.safetensors", b"", r"d\.safetensors"),
        ("d.csv", b"1,2", r"d\.csv$"),
        ("d", b"", r" d$"),
    ],
)
def test_a_file_of_another_kind_gives_one_clear_line(
    tmp_path: Path, benchmark: Benchmark, name: str, data: bytes, why: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=why) as error:
        read_descriptors(tmp_path / name, benchmark)
    assert "\n" not in str(error.value)


def test_a_truncated_file_gives_one_clear_line(tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64]) -> None:
    save_file({"descriptors": raw}, tmp_path / "d.safetensors")
    for path in (
        save_npy(tmp_path / "d.npy", raw),
        save_matlab(tmp_path / "d.mat", X=raw[:7].T, Q=raw[7:].T),
        tmp_path / "d.safetensors",
    ):
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(UserError, match=re.escape(str(path))) as error:
            read_descriptors(path, benchmark)
        assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_reported(tmp_path: Path, benchmark: Benchmark) -> None:
    with pytest.raises(UserError, match=r"d\.npy$"):
        read_descriptors(tmp_path / "d.npy", benchmark)
    with pytest.raises(UserError, match=rf"{re.escape(str(tmp_path))} "):
        read_descriptors(tmp_path, benchmark)
