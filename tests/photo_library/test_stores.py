"""Every kind of store gives the answers of a plain loop after any changes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import dolglab
import warm_python
from dolglab.errors import UserError
from dolglab.library.contents import Answer, Photo
from dolglab.library.duplicates import write_duplicates
from dolglab.library.library import Library
from dolglab.library.stores import REPLACED, STORES, SegmentLimits
from photo_library.made import identity

DIM = 64
IDENTITY = identity(DIM)
# Segments of 300 or more photos have codes, which are used if they select fewer than nine of ten photos.
CODED = SegmentLimits(coded_from=300, coded_dim=DIM, shortlist=50, scanned_share=0.9)


def unit(count: int, seed: int) -> np.ndarray:
    """Descriptors around 40 centres, the same for all seeds."""
    centres = np.random.default_rng(0).normal(size=(40, DIM))
    rng = np.random.default_rng([1, seed])
    rows = (centres[rng.integers(0, 40, count)] + 0.7 * rng.normal(size=(count, DIM))).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def photos(first: int, count: int) -> list[Photo]:
    return [Photo(f"{n:04d}", 1, 1, (2, 3), metadata={"half": str(n % 2)}) for n in range(first, first + count)]


class Plain:
    """The reference, a dictionary and a loop."""

    def __init__(self) -> None:
        self.rows: dict[str, np.ndarray] = {}

    def add(self, added: list[Photo], descriptors: np.ndarray) -> None:
        self.rows |= {photo.name: row for photo, row in zip(added, descriptors, strict=True)}

    def best(self, query: np.ndarray, k: int, half: str | None = None) -> list[tuple[str, float]]:
        found = [(n, float(row @ query)) for n, row in self.rows.items() if half in (None, str(int(n) % 2))]
        return sorted(found, key=lambda pair: -pair[1])[:k]


@pytest.fixture(params=[*STORES, "codes"])
def library(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Library]:
    if request.param == "milvus":
        pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed")
    coded = request.param == "codes"
    store, limits = (None, CODED) if coded else (request.param, SegmentLimits())
    library = Library.open(tmp_path / "library", IDENTITY, store, limits)
    yield library
    library.close()


def test_answers_equal_a_loop_after_every_change(library: Library) -> None:
    plain = Plain()
    queries = unit(4, 99)

    def add(first: int, count: int, seed: int) -> None:
        descriptors = unit(count, seed)
        library.add(photos(first, count), descriptors)
        plain.add(photos(first, count), descriptors)

    def same() -> None:
        assert len(library) == len(plain.rows)
        for half in (None, "1"):
            found = library.search(queries, 5, None if half is None else {"half": half})
            for query, answers in zip(queries, found, strict=True):
                wanted = plain.best(query, 5, half)
                assert [answer.photo.name for answer in answers] == [name for name, _ in wanted]
                np.testing.assert_allclose([answer.cosine for answer in answers], [c for _, c in wanted], atol=1e-5)

    with library.writing():
        add(0, 400, 0)
        same()
        add(390, 30, 1)
        add(500, 1, 2)
        same()
        library.remove([f"{n:04d}" for n in range(0, 400, 3)])
        for n in range(0, 400, 3):
            plain.rows.pop(f"{n:04d}")
        same()
    same()
    with library.writing():
        library.remove([f"{n:04d}" for n in range(395)])
        plain.rows = {name: row for name, row in plain.rows.items() if int(name) >= 395}
    same()


def test_an_interrupted_addition_has_no_effect(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    library.add(photos(0, 5), unit(5, 0))
    with monkeypatch.context() as patch:
        patch.setattr("dolglab.library.catalogue.Change.put", killed)
        with pytest.raises(KeyboardInterrupt):
            library.add(photos(5, 9), unit(9, 1))
    (answers,) = library.search(unit(9, 1)[8:], 9)
    assert len(answers) == len(library) == 5
    with library.writing():
        library.add(photos(5, 2), unit(2, 1))
    assert [len(found) for found in library.search(unit(9, 1), 20)] == [7] * 9
    assert library.forget_damaged() == 0


def test_descriptors_are_returned_unchanged(library: Library) -> None:
    given = unit(7, 3)
    library.add(photos(0, 7), given)
    rows = np.array([5, 0, 2])
    np.testing.assert_allclose(library.store.rows(1, rows), given[rows], atol=1e-7)


def test_a_library_keeps_its_store(library: Library, tmp_path: Path) -> None:
    kept = library.catalogue.about("store")
    other = "milvus" if kept["kind"] != "milvus" else "flat"
    library.close()
    with pytest.raises(UserError, match=f"not {other}"):
        Library.open(tmp_path / "library", IDENTITY, other)
    with pytest.raises(UserError, match=r"--store .*elastic"):
        Library.open(tmp_path / "another", IDENTITY, "elastic")
    assert not (tmp_path / "another").exists()


def files(library: Library) -> set[str]:
    return {path.name.split(".")[1] for path in (library.folder / "segments").iterdir()}


def names(answers: list[Answer]) -> list[str]:
    return [answer.photo.name for answer in answers]


def test_a_large_library_is_searched_by_codes_unless_exact(tmp_path: Path) -> None:
    library, query = Library.open(tmp_path / "library", IDENTITY, limits=CODED), unit(1, 9)
    library.add(photos(0, 290), unit(290, 0))
    assert all(answer.exact for answer in library.search(query, 2)[0])
    library.add(photos(290, 400), unit(400, 1))
    assert [segment.kind for segment in library.contents().segments.values()] == ["flat", "rabitq"]
    plain = Plain()
    plain.add(photos(0, 690), np.concatenate([unit(290, 0), unit(400, 1)]))
    for count, half, exact in ((2, None, False), (2, "1", False), (2, None, True), (100, None, False)):
        answers = library.search(query, count, None if half is None else {"half": half}, exact)[0]
        assert names(answers) == [name for name, _ in plain.best(query[0], count, half)]
        # A hundred answers would need two thousand candidates.
        assert {answer.exact for answer in answers} == {exact or count == 100}


def test_candidates_are_chosen_over_all_segments(tmp_path: Path) -> None:
    """The nearest photos are all in one segment."""
    library, query = Library.open(tmp_path / "library", IDENTITY, limits=CODED), unit(1, 9)
    rows = np.concatenate([unit(300, seed) for seed in range(5)])
    rows = rows[np.argsort(rows @ query[0])]
    for part in range(5):
        library.add(photos(300 * part, 300), rows[300 * part : 300 * part + 300])
    (answers,) = library.search(query, 30)
    assert names(answers) == [f"{n:04d}" for n in range(1499, 1469, -1)]
    assert not any(answer.exact for answer in answers)


@pytest.mark.parametrize("kind", REPLACED)
def test_a_library_with_a_former_index_is_read_and_gets_codes(kind: str, tmp_path: Path) -> None:
    library, query = Library.open(tmp_path / "library", IDENTITY, limits=CODED), unit(3, 9)
    library.add(photos(0, 400), unit(400, 0))
    wanted = [names(answers) for answers in library.search(query, 5, exact=True)]
    # As written by that version: no codes, but a file of its own.
    with library.change() as change:
        change.set_kind(1, kind)
        change.set_about("store", {"kind": kind})
    for path in (library.folder / "segments").glob("*rabitq*"):
        path.rename(path.with_name(path.name.replace("rabitq_codes", kind)))
    library.close()
    for _ in range(2):
        # Reading changes nothing, and does not need the other file.
        library = Library(library.folder, limits=CODED)
        assert [names(answers) for answers in library.search(query, 5)] == wanted
        assert library.search(query, 1)[0][0].exact
        assert kind in files(library)
        library.close()
    library = Library.open(library.folder, IDENTITY, limits=CODED)
    with library.writing():
        library.add(photos(400, 1), unit(1, 1))
    assert files(library) == {"flat", "rabitq_codes", "rabitq_fast_scan"}
    assert library.contents().segments[1].kind == "rabitq"
    assert not library.search(query, 1)[0][0].exact
    with pytest.raises(UserError, match=kind):
        Library.open(tmp_path / "another", IDENTITY, kind)


def test_damaged_codes_are_rebuilt_without_describing_photos(tmp_path: Path) -> None:
    library, query = Library.open(tmp_path / "library", IDENTITY, limits=CODED), unit(1, 9)
    library.add(photos(0, 400), unit(400, 0))
    wanted = names(library.search(query, 2)[0])
    for change in (lambda path: path.write_bytes(b""), lambda path: path.unlink()):
        library.close()
        for path in (library.folder / "segments").glob("*.rabitq_*"):
            change(path)
        library = Library(library.folder, limits=CODED)
        with pytest.raises(UserError, match="embed"):
            library.search(query, 2)
        assert names(library.search(query, 2, exact=True)[0]) == wanted
        with library.writing():
            assert library.forget_damaged() == 0
        assert names(library.search(query, 2)[0]) == wanted


def test_equal_descriptors_are_all_found(tmp_path: Path) -> None:
    """The query is their mean, for which faiss's fast scan finds nothing."""
    library = Library.open(tmp_path / "library", IDENTITY, limits=CODED)
    library.add(photos(0, 512), np.tile(np.eye(1, DIM, dtype=np.float32), (512, 1)))
    (answers,) = library.search(np.eye(1, DIM, dtype=np.float32), 2)
    assert [(answer.cosine, answer.exact) for answer in answers] == [(1, False)] * 2


def test_many_small_additions_become_few_segments(tmp_path: Path) -> None:
    library = Library.open(tmp_path / "library", IDENTITY, limits=SegmentLimits(tier=4))
    plain = Plain()
    with library.writing():
        for n in range(40):
            library.add(photos(n, 1), unit(1, n))
            plain.add(photos(n, 1), unit(1, n))
    assert len(library.contents().segments) <= 8
    assert len(list((library.folder / "segments").glob("*.flat"))) == len(library.contents().segments)
    query = unit(1, 99)
    found = [name for name, _ in plain.best(query[0], 40)]
    assert [a.photo.name for a in library.search(query, 40)[0]] == found
    library = Library(library.folder, limits=SegmentLimits(tier=4, merged_bytes=25 * 4 * DIM))
    with library.writing():
        library.compact()
    sizes = [segment.size for segment in library.contents().segments.values()]
    assert sum(sizes) == 40
    assert len(sizes) < 8
    assert [a.photo.name for a in library.search(query, 40)[0]] == found


def test_threads_never_see_a_partial_change(tmp_path: Path) -> None:
    """Answers are complete while another connection adds, removes and merges."""
    writer = Library.open(tmp_path / "library", IDENTITY)
    with writer.writing():
        writer.add(photos(0, 30), unit(30, 0))
    reader, query, done = Library(tmp_path / "library"), unit(1, 9), threading.Event()

    def search() -> int:
        count = 0
        while not done.is_set() or not count:
            assert len(reader.search(query, 5)[0]) == 5
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        searching = [pool.submit(search) for _ in range(3)]
        for number in range(40):
            with writer.writing():
                writer.add(photos(100 + number, 1), unit(1, number))
                writer.remove([f"{98 + number:04d}"])
                if number % 4 == 0:
                    writer.compact()
        done.set()
        assert all(future.result() for future in searching)


def elsewhere(program: str, *arguments: str) -> None:
    """Run a program in another process, with the functions of this module."""
    code = f"import sys\nfrom photo_library.test_stores import *\n{program}"
    paths = Path(dolglab.__file__).parents[1], Path(__file__).parents[1], Path(warm_python.__file__).parent
    done = warm_python.run_python(["-c", code, *arguments], PYTHONPATH=os.pathsep.join(map(str, paths)))
    assert done.returncode == 0, done.stderr


MAKE = """
library = Library.open(sys.argv[1], IDENTITY, sys.argv[2], CODED)
library.add(photos(0, 400), unit(400, 0))
"""
USE = """
library = Library(sys.argv[1], limits=CODED)
assert library.search(unit(400, 0)[7:8], 3)[0][0].photo.name == "0007"
np.testing.assert_allclose(library.descriptors(library.keys()[[7]]), unit(400, 0)[7:8], atol=1e-6)
with library.writing():
    library.add(photos(400, 1), unit(1, 1))
    library.remove(["0007"])
"""


@pytest.mark.process
@pytest.mark.parametrize("store", STORES)
def test_other_processes_search_read_and_add(store: str, tmp_path: Path) -> None:
    if store == "milvus":
        pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed")
    folder = tmp_path / "library"
    elsewhere(MAKE, str(folder), store)
    elsewhere(USE, str(folder))
    library = Library(folder)
    write_duplicates(library, tmp_path / "duplicates.csv", 0.999)
    found = library.search(np.concatenate([unit(400, 0)[7:9], unit(1, 1)]), 1)
    assert found[0][0].photo.name != "0007"
    assert [answers[0].photo.name for answers in found[1:]] == ["0008", "0400"]
    assert len(library) == 400
    library.close()


@pytest.mark.process
def test_milvus_lite_is_for_one_process(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed")
    library = Library.open(tmp_path / "library", IDENTITY, "milvus")
    library.add(photos(0, 3), unit(3, 0))
    code = f"from dolglab.library.library import Library; Library({str(library.folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    library.close()
    assert "milvus.db" in done.stderr.splitlines()[-1]
    again = Library(library.folder)
    assert len(again.search(unit(1, 0), 9)[0]) == 3
    again.close()
