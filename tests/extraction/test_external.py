"""Descriptors of other projects, in every supported format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from dolglab.contracts import Benchmark
from dolglab.data.folder import class_benchmark
from dolglab.data.sources import FolderSource
from dolglab.errors import UserError
from dolglab.extraction import external
from dolglab.extraction.external import read_descriptors
from extraction.external_files import (
    DIM,
    GALLERY,
    IMAGES,
    QUERIES,
    benchmark_of,
    save_matlab,
    save_npy,
    unit,
    write_names,
)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4", np.int8])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_read_in_the_benchmarks_order(
    tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64], kind: Any, order: Any
) -> None:
    rows = np.asarray(raw, kind, order=order)
    given = read_descriptors(save_npy(tmp_path / "d.npy", rows), benchmark)
    assert given.descriptors.dtype == np.float32
    np.testing.assert_allclose(given.descriptors, unit(rows), rtol=0, atol=1e-7)
    assert (given.normalised, given.note) == (False, "from d.npy, normalised here")


def test_normalised_descriptors_keep_every_bit(tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64]) -> None:
    rows = torch.nn.functional.normalize(torch.from_numpy(raw.astype(np.float32))).numpy()
    given = read_descriptors(save_npy(tmp_path / "d.npy", rows), benchmark)
    np.testing.assert_array_equal(given.descriptors, rows)
    assert (given.normalised, given.note) == (True, "from d.npy")
    assert given.descriptors.flags.writeable


def test_descriptors_rounded_to_half_precision_count_as_normalised(
    tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64]
) -> None:
    rows = unit(raw).astype(np.float16)
    given = read_descriptors(save_npy(tmp_path / "d.npy", rows), benchmark)
    assert given.normalised
    np.testing.assert_allclose(np.linalg.norm(given.descriptors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(given.descriptors, unit(rows), atol=1e-7)


def test_huge_and_tiny_numbers_are_normalised(tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64]) -> None:
    rows = raw.astype(np.float32)
    rows[0] *= np.float32(1e36)
    rows[1] *= np.float32(1e-36)
    given = read_descriptors(save_npy(tmp_path / "d.npy", rows), benchmark)
    np.testing.assert_allclose(given.descriptors, unit(raw), rtol=0, atol=1e-6)


@pytest.mark.parametrize("exact", [True, False])
def test_large_files_are_mapped_and_not_read_whole(
    tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64], exact: bool
) -> None:
    sizes = {"in_memory": 8, "chunk_bytes": 48}
    rows = unit(raw) if exact else raw
    given = read_descriptors(save_npy(tmp_path / "d.npy", rows), benchmark, **sizes)
    assert isinstance(given.descriptors, np.memmap)
    assert given.normalised is exact
    # The file itself, or a temporary one.
    assert (given.descriptors.filename == tmp_path / "d.npy") is exact
    np.testing.assert_allclose(given.descriptors, unit(raw), rtol=0, atol=1e-7)
    aligned = read_descriptors(
        save_npy(tmp_path / "e.npy", rows[::-1]), benchmark, write_names(tmp_path / "e.txt", IMAGES[::-1]), **sizes
    )
    np.testing.assert_array_equal(aligned.descriptors, given.descriptors)


def test_missing_space_for_a_copy_is_reported_first(
    tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 9})())
    path = save_npy(tmp_path / "d.npy", raw)
    with pytest.raises(UserError, match="TMPDIR"):
        read_descriptors(path, benchmark, in_memory=8)


FORMS = {
    "paths": IMAGES,
    "stems": ["été à", "b", "c.v2", "d", "e", "f", "0aff", "p", "q"],
    "files": [name.rpartition("/")[2] for name in IMAGES],
    "without extension": [name.rpartition(".")[0] for name in IMAGES],
    "elsewhere": [f"/data/set/{name}" for name in IMAGES],
    "another extension": [f"{name.rpartition('.')[0]}.PNG" for name in IMAGES],
    "as the list has it": [*GALLERY, "0a/0aff.png", *QUERIES],
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_found_by_name_and_others_ignored(
    tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64], form: str
) -> None:
    order = np.random.default_rng(1).permutation(len(IMAGES) + 3)
    rows = np.concatenate([raw, np.full((3, DIM), np.nan)])[order]
    names = np.array([*FORMS[form], "x.jpg", "jpg/c", "y"], object)[order].tolist()
    path = save_npy(tmp_path / "d.npy", rows)
    named = read_descriptors(path, benchmark, write_names(tmp_path / "names of mine", names))
    np.testing.assert_allclose(named.descriptors, unit(raw), rtol=0, atol=1e-7)
    write_names(tmp_path / "d.txt", names)
    beside = read_descriptors(str(path), benchmark)
    np.testing.assert_array_equal(beside.descriptors, named.descriptors)


def test_lists_of_names_from_any_system_are_read(
    tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64]
) -> None:
    path = save_npy(tmp_path / "d.npy", raw[::-1])
    (tmp_path / "d.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*IMAGES[::-1], "", " "]).encode())
    np.testing.assert_allclose(read_descriptors(path, benchmark).descriptors, unit(raw), atol=1e-7)


def test_whole_paths_are_preferred_to_shorter_names(tmp_path: Path) -> None:
    gallery = ["a/1.jpg", "b/1.jpg", "c/2.jpg"]
    benchmark = benchmark_of(gallery, ["q/3.jpg"])
    rows = np.eye(4, 6)
    names = write_names(tmp_path / "d.txt", ["b/1.jpg", "3", "a/1.jpg", "2.jpg"])
    given = read_descriptors(save_npy(tmp_path / "d.npy", rows), benchmark, names)
    np.testing.assert_array_equal(given.descriptors, rows[[2, 0, 3, 1]])


def test_ambiguous_names_are_refused(tmp_path: Path) -> None:
    path = save_npy(tmp_path / "d.npy", np.eye(3))
    benchmark = benchmark_of(["a/1.jpg", "b/1.jpg"], ["q/3.jpg"])
    write_names(tmp_path / "d.txt", ["a/1.jpg", "1", "3"])
    with pytest.raises(UserError, match=r"for small: 1 of 3 images .*: b/1\.jpg \("):
        read_descriptors(path, benchmark)
    write_names(tmp_path / "d.txt", ["x/1.jpg", "y/1.jpg", "3"])
    with pytest.raises(UserError, match=r"1 of 3 images .*: a/1\.jpg"):
        read_descriptors(path, benchmark_of(["a/1.jpg", "a/2.jpg"], ["q/3.jpg"]))
    write_names(tmp_path / "d.txt", ["a/1.jpg", "a/2.jpg", "3"])
    with pytest.raises(UserError, match=r"2 of 3 images .*: a/1\.jpg, a/1\.jpg"):
        read_descriptors(path, benchmark_of(["a/1.jpg", "a/2.jpg"], ["a/1.jpg"]))


def test_missing_and_repeated_names_are_counted_and_named(
    tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64]
) -> None:
    path = save_npy(tmp_path / "d.npy", raw)
    names = write_names(tmp_path / "d.txt", [f"{name}{'x' * (name > 'jpg/c')}" for name in IMAGES])
    first = r"jpg/été à\.jpg, jpg/c\.v2\.jpg, jpg/d\.jpg, jpg/e\.jpg, jpg/f\.jpg and 3 more"
    with pytest.raises(UserError, match=rf"d\.npy for small: 8 of 9 images .*: {first} \(write_names=FILE"):
        read_descriptors(path, benchmark)
    write_names(names, [*IMAGES[:-2], "jpg/b.jpg", "jpg/b.jpg"])
    with pytest.raises(UserError, match=r": jpg/b\.jpg$"):
        read_descriptors(path, benchmark)
    write_names(names, IMAGES[1:])
    with pytest.raises(UserError, match=r"d\.npy has 9 descriptors.* 8 names"):
        read_descriptors(path, benchmark)
    with pytest.raises(UserError, match=r"none\.txt"):
        read_descriptors(path, benchmark, tmp_path / "none.txt")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dim", [3, 7, 9, 11])
def test_the_authors_matlab_layout_and_its_transpose_are_read(
    tmp_path: Path, benchmark: Benchmark, dim: int, transposed: bool
) -> None:
    raw = np.random.default_rng(2).normal(size=(9, dim))
    gallery, queries = (raw[:7], raw[7:]) if transposed else (raw[:7].T, raw[7:].T)
    path = save_matlab(tmp_path / "d.mat", X=gallery, Q=queries, other="text")
    np.testing.assert_allclose(read_descriptors(path, benchmark).descriptors, unit(raw), rtol=0, atol=1e-7)


def test_matlab_tables_that_fit_both_ways_are_columns(tmp_path: Path) -> None:
    raw = np.random.default_rng(2).normal(size=(4, 2))
    path = save_matlab(tmp_path / "d.mat", X=raw[:2].T, Q=raw[2:].T)
    given = read_descriptors(path, benchmark_of(["a", "b"], ["p", "q"]))
    np.testing.assert_allclose(given.descriptors, unit(raw), rtol=0, atol=1e-7)


@pytest.mark.parametrize("transposed", [False, True])
def test_matlab_tables_with_names_are_read(
    tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64], transposed: bool
) -> None:
    order = [8, 3, 1, 0, 7, 2, 4, 6, 5]
    parts = raw[order[:6]], raw[order[6:]]
    path = save_matlab(
        tmp_path / "d.mat", **{key: part if transposed else part.T for key, part in zip("XQ", parts, strict=True)}
    )
    write_names(tmp_path / "d.txt", [IMAGES[row] for row in order])
    np.testing.assert_allclose(read_descriptors(path, benchmark).descriptors, unit(raw), rtol=0, atol=1e-7)


def test_safetensors_in_one_or_two_parts_are_read(
    tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64]
) -> None:
    apart, together = tmp_path / "apart.safetensors", tmp_path / "together.safetensors"
    save_file({"gallery": raw[:7].astype(np.float32), "queries": raw[7:], "temperature": np.ones(1)}, apart)
    save_file({"descriptors": raw}, together)
    for path in (apart, together):
        np.testing.assert_allclose(read_descriptors(path, benchmark).descriptors, unit(raw), rtol=0, atol=2e-7)


def test_names_in_safetensors_are_used(tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64]) -> None:
    path = tmp_path / "d.safetensors"
    stored = raw[::-1].copy()
    save_file({"descriptors": stored}, path, metadata={"names": json.dumps(IMAGES[::-1])})
    # A file beside it has lower precedence, and a given one has higher precedence.
    write_names(tmp_path / "d.txt", IMAGES)
    np.testing.assert_allclose(read_descriptors(path, benchmark).descriptors, unit(raw), rtol=0, atol=1e-7)
    asked = read_descriptors(path, benchmark, tmp_path / "d.txt")
    np.testing.assert_allclose(asked.descriptors, unit(stored), rtol=0, atol=1e-7)


def test_safetensors_of_bfloat16_are_read(tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64]) -> None:
    rounded = torch.from_numpy(raw).bfloat16()
    save_torch({"descriptors": rounded}, tmp_path / "d.safetensors")
    given = read_descriptors(tmp_path / "d.safetensors", benchmark)
    np.testing.assert_allclose(given.descriptors, unit(rounded.double().numpy()), rtol=0, atol=1e-7)


def test_queries_in_the_gallery_need_no_extra_rows(tmp_path: Path) -> None:
    source = FolderSource(tmp_path, ["x/1.jpg", "x/2.jpg", "y/1.jpg"])
    benchmark = class_benchmark("classes", source, np.array(["x", "x", "y"]))
    rows = np.eye(3, 4)
    np.testing.assert_array_equal(read_descriptors(save_npy(tmp_path / "d.npy", rows), benchmark).descriptors, rows)
    path = save_matlab(tmp_path / "d.mat", X=rows.T)
    np.testing.assert_array_equal(read_descriptors(path, benchmark).descriptors, rows)
    write_names(tmp_path / "d.txt", ["y/1", "x/1", "x/2"])
    given = read_descriptors(tmp_path / "d.npy", benchmark)
    np.testing.assert_array_equal(given.descriptors, rows[[1, 2, 0]])


def write_hloc(path: Path, rows: NDArray[Any], names: list[str] = IMAGES) -> Path:
    """A file as written by hloc, in half precision, with other data besides descriptors."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(path, "w") as file:
        for name, row in zip(names, rows, strict=True):
            file.create_group(name).create_dataset("global_descriptor", data=row.astype(np.float16))
            file[name].create_dataset("image_size", data=[640, 480])
    return path


def test_hlocs_file_is_read_by_group(tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64]) -> None:
    path = write_hloc(tmp_path / "d.h5", unit(raw)[::-1], IMAGES[::-1])
    given = read_descriptors(path, benchmark)
    assert given.normalised
    np.testing.assert_allclose(given.descriptors, unit(raw), atol=2e-3)
    write_hloc(tmp_path / "more.h5", unit(raw[[0, *range(len(raw))]]), ["elsewhere.jpg", *IMAGES])
    np.testing.assert_array_equal(read_descriptors(tmp_path / "more.h5", benchmark).descriptors, given.descriptors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.pop("jpg/b.jpg"), r"1 of 9 images are not listed: jpg/b\.jpg"),
        (lambda file: file.clear(), "no image's group"),
        (lambda file: file.create_dataset("x/global_descriptor", data=[1.0]), "lengths 5, 1"),
    ],
)
def test_an_hloc_file_without_descriptors_is_refused(
    tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64], change: Callable[[Any], None], message: str
) -> None:
    path = write_hloc(tmp_path / "d.h5", raw)
    import h5py  # pyright: ignore[reportMissingImports]

    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(UserError, match=message):
        read_descriptors(path, benchmark)
    path.write_bytes(b"text")
    with pytest.raises(UserError, match="is not an HDF5 file"):
        read_descriptors(path, benchmark)


@pytest.mark.parametrize("kind", ["float32", "float16", "fixed"])
@pytest.mark.parametrize("named", [True, False])
def test_a_parquet_column_of_lists_is_read(
    tmp_path: Path, benchmark: Benchmark, raw: NDArray[np.float64], kind: str, named: bool
) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    step = -1 if named else 1
    value = arrow.float16() if kind == "float16" else arrow.float32()
    rows = [list(row) for row in raw[::step].astype(np.float16 if kind == "float16" else np.float32)]
    column = arrow.array(rows, arrow.list_(value, DIM) if kind == "fixed" else arrow.list_(value))
    names = {"name": IMAGES[::step], "width": list(range(len(IMAGES)))} if named else {}
    # In several groups of rows.
    parquet.write_table(arrow.table({**names, "descriptor": column}), tmp_path / "d.parquet", row_group_size=4)
    given = read_descriptors(tmp_path / "d.parquet", benchmark)
    np.testing.assert_allclose(given.descriptors, unit(raw), atol=2e-3 if kind == "float16" else 1e-6)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"vector": [[1.0]]}, "it holds vector"),
        ({"descriptor": [[1.0, 2.0], [1.0]]}, "lengths 2, 1"),
        ({"descriptor": [[1.0], None]}, "lengths 1, None"),
        ({"descriptor": [[], []]}, "lengths 0"),
        ({"descriptor": [["a"], ["b"]]}, "table of numbers"),
        ({"descriptor": [1.0, 2.0]}, "not a Parquet file of descriptors"),
        ({"descriptor": [[1.0]], "name": [3]}, "other things than names"),
    ],
    ids=str,
)
def test_columns_that_are_not_descriptors_are_refused(
    tmp_path: Path, benchmark: Benchmark, columns: dict, message: str
) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    parquet.write_table(arrow.table(columns), tmp_path / "d.parquet")
    with pytest.raises(UserError, match=message) as caught:
        read_descriptors(tmp_path / "d.parquet", benchmark)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [IMAGES, ["jpg/\udcff.jpg", "b.jpg"]])
def test_a_list_of_images_is_read_as_it_was_written(tmp_path: Path, names: list[str]) -> None:
    external.write_names(tmp_path / "a folder" / "names.txt", benchmark_of(names, []))
    assert external.read_names(tmp_path / "a folder" / "names.txt") == names


@pytest.mark.parametrize("name", ["jpg/a\n.jpg", " a.jpg", "a.jpg\r"])
def test_names_that_are_no_line_are_not_listed(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="rename"):
        external.write_names(tmp_path / "names.txt", benchmark_of(["b.jpg", name], []))
    assert not (tmp_path / "names.txt").exists()
