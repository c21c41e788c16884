"""Adapting libraries: sources of labels, what is stored, and what other processes see."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dolglab.data.photos import photo_pixels
from dolglab.errors import UserError
from dolglab.library import adapter_learning, stores
from dolglab.library.adapting import adapt
from dolglab.library.contents import Photo
from dolglab.library.ingest import embed_places
from dolglab.library.library import Library
from dolglab.library.maintenance import merge, print_info
from dolglab.library.search_engine import SearchEngine
from dolglab.retrieval.adapter import Adapter, read_adapter, write_adapter
from dolglab.sharing.loading import LoadedExtractor, load_extractor
from photo_library.conftest import describe
from photo_library.made import identity, unit
from photo_library.planted import planted

pytestmark = pytest.mark.usefixtures("_quick")
NAMES = ("arch", "bridge", "castle")


def photos_of(labels: np.ndarray, root: str = "/photos") -> list[Photo]:
    return [
        Photo(f"{root}/{NAMES[label]}/{row:02}.jpg", 1, 1, (1, 1), metadata={"landmark": NAMES[label]})
        for row, label in enumerate(labels.tolist())
    ]


@pytest.fixture
def _quick(monkeypatch) -> None:
    """Train layers only briefly, because these tests do not depend on the map."""
    monkeypatch.setattr(adapter_learning, "STEPS", 3)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library of three landmarks with twelve photos each, in two segments, and a photo of no landmark."""
    rows, labels = planted(landmarks=3)
    with closing(Library.open(tmp_path / "library", identity(16))) as library:
        for part in np.array_split(np.random.default_rng(0).permutation(len(rows)), 2):
            library.add([photos_of(labels)[place] for place in part], rows[part])
        library.add([Photo("/photos/other.jpg", 1, 1, (1, 1))], unit(1, 16))
    return tmp_path / "library"


def state(folder: Path) -> tuple[list[tuple[Photo, bytes]], dict]:
    """Photos with their descriptors, and the identity."""
    with closing(Library(folder)) as library:
        entries = sorted((e for page in library.catalogue.pages() for e in page), key=lambda entry: entry[0].name)
        rows = library.descriptors(np.array([key for _, key in entries], np.int64))
        return [(photo, row.tobytes()) for (photo, _), row in zip(entries, rows, strict=True)], library.identity


def table(folder: Path, path: Path, *marks: tuple[int | None, str, str]) -> str:
    """A table of marks, as the page exports it, of the first photos of a landmark."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("file_in_zip", "photo", "photo_number", "mark"), ("a/q.jpg", "q.jpg", "", "query")]
        )
        csv.writer(file).writerows(("", name, number, mark) for number, name, mark in marks)
    return str(path)


def exported(folder: Path, out: Path) -> list[str]:
    """Marks of all photos of each landmark, those of the next one marked wrong."""
    with closing(Library(folder)) as library:
        photos = [photo for page in library.catalogue.pages() for photo, _ in page if photo.metadata]
    shown = {name: [photo for photo in photos if f"/{name}/" in photo.name] for name in NAMES}
    return [
        table(
            folder,
            out / f"{name}.csv",
            *[(photo.id, "/".join(photo.name.split("/")[-2:]), "right") for photo in shown[name]],
            *[(photo.id, "/".join(photo.name.split("/")[-2:]), "wrong") for photo in shown[NAMES[number - 1]]],
        )
        for number, name in enumerate(NAMES)
    ]


def test_column_folder_and_marks_give_one_adapter(library: Path, tmp_path: Path, capsys) -> None:
    before, was = state(library)
    merge([str(library)], str(tmp_path / "by folder"))
    merge([str(library)], str(tmp_path / "by marks"))
    adapt(str(library), column="landmark")
    said = capsys.readouterr().out
    after, now = state(library)
    adapter = read_adapter(library / "adapter.safetensors")
    assert now == {**was, "adapter": adapter.fingerprint, "dim": adapter.dim}
    assert [photo for photo, _ in after] == [photo for photo, _ in before]
    given = np.stack([np.frombuffer(row, np.float32) for _, row in before])
    found = np.stack([np.frombuffer(row, np.float32) for _, row in after])
    np.testing.assert_allclose(found, adapter(given), atol=1e-6)
    assert not (library.parent / "segments").exists()
    assert adapter.card["photos"] == 36
    assert adapter.card["landmarks"] == 3
    gain = adapter.card["seen"]
    assert (
        f"{100 * gain['gain']:+.2f} points (95 % interval {100 * gain['low']:+.2f} to {100 * gain['high']:+.2f}" in said
    )
    with closing(Library(library)) as opened:
        print_info(opened)
    assert adapter.card["kind"] in capsys.readouterr().out
    # Numbers of photos are those of this library.
    adapt(str(tmp_path / "by folder"), labelled="/photos/")
    adapt(str(tmp_path / "by marks"), marks=exported(tmp_path / "by marks", tmp_path / "tables"))
    for name in ("by folder", "by marks"):
        assert state(tmp_path / name)[1] == now


def test_exactly_one_source_of_labels_is_required(library: Path) -> None:
    for given in ({}, {"column": "landmark", "labelled": "/photos"}, {"labelled": "/photos", "marks": ["a.csv"]}):
        with pytest.raises(UserError, match="--column NAME, --folder FOLDER, --marks TABLE"):
            adapt(str(library), **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"column": "year"}, "no photo has a name in year.*landmark.*--metadata.*--folder"),
        ({"labelled": "/elsewhere"}, "no photo in a sub-folder of /elsewhere"),
        ({"labelled": "/photos/arch"}, "no photo in a sub-folder"),
        ({"labelled": "/"}, "3 landmarks"),
        ({"marks": ["gone.csv"]}, "gone.csv"),
    ],
)
def test_labels_without_photos_leave_the_library_unchanged(library: Path, given: dict, message: str) -> None:
    before = state(library)
    with pytest.raises(UserError, match=message):
        adapt(str(library), **given)
    assert state(library) == before


def test_marks_of_another_library_are_refused(library: Path, tmp_path: Path) -> None:
    tables = exported(library, tmp_path / "tables")
    with closing(Library(library)) as opened:
        first = next(opened.catalogue.pages())[0][0]
    own = "/".join(first.name.split("/")[-2:])
    number = first.id or 0
    strange = table(library, tmp_path / "a.csv", (number, "b/other.jpg", "right"))
    gone = table(library, tmp_path / "b.csv", (999, own, "right"))
    twice = table(library, tmp_path / "c.csv", (number, own, "right"))
    for marks, message in (
        ([strange], "a.csv is from another library"),
        ([gone], "b.csv is from another library"),
        ([*tables, twice], "marked right in .* and in c"),
    ):
        with pytest.raises(UserError, match=message):
            adapt(str(library), marks=marks)
    (tmp_path / "a.csv").write_text("file,label\na.jpg,arch\n")
    with pytest.raises(UserError, match="not a table of marks"):
        adapt(str(library), marks=[str(tmp_path / "a.csv")])


def test_an_adapter_without_a_gain_is_not_kept(tmp_path: Path) -> None:
    rows, labels = unit(60, 16), np.arange(60) % 3
    with closing(Library.open(tmp_path / "library", identity(16))) as library:
        library.add(photos_of(labels), rows)
    before = state(tmp_path / "library")
    with pytest.raises(UserError, match="nothing is changed"):
        adapt(str(tmp_path / "library"), column="landmark")
    assert state(tmp_path / "library") == before
    assert not (tmp_path / "library" / "adapter.safetensors").exists()


def test_names_given_by_neighbours_and_copies_are_not_learnt_from(library: Path) -> None:
    rows = unit(12, 16, seed=5)
    with closing(Library(library)) as opened:
        copies = [
            replace(photo, name=f"/photos/arch/copy{row}.jpg", id=None, digest=b"same", metadata={"landmark": "arch"})
            for row, photo in enumerate(photos_of(np.zeros(6, np.int64)))
        ]
        guessed = [
            Photo(f"/photos/{row}.jpg", 1, 1, (1, 1), metadata={"landmark": "arch", "landmark score": "0.9"})
            for row in range(6)
        ]
        opened.add([*copies, *guessed], rows)
    adapt(str(library), column="landmark")
    assert read_adapter(library / "adapter.safetensors").card["photos"] == 36 + 1


def small(model: str = "m", seed: int = 0) -> Adapter:
    return Adapter(unit(4, 16, seed), np.zeros(4, np.float32), model)


@pytest.fixture
def adapted(library: Path) -> Path:
    """A library adapted to fewer values."""
    with closing(Library(library)) as opened, opened.writing():
        opened.adapt(small())
    return library


def test_an_adapted_library_cannot_be_adapted_again(adapted: Path) -> None:
    before = state(adapted)
    with pytest.raises(UserError, match="adapted already"):
        adapt(str(adapted), column="landmark")
    assert state(adapted) == before


def test_adapters_of_other_descriptors_are_refused(library: Path) -> None:
    before = state(library)
    with closing(Library(library)) as opened:
        for adapter in (small("another"), Adapter(unit(4, 8), np.zeros(4, np.float32), "m")):
            with pytest.raises(UserError, match="another"):
                opened.adapt(adapter)
    assert state(library) == before


def test_an_adapted_library_has_a_format_that_earlier_versions_refuse(library: Path) -> None:
    """They check the number of the format first."""
    with closing(Library(library)) as opened, opened.writing():
        assert opened.catalogue.about("format") == 3
        opened.adapt(small())
        assert opened.catalogue.about("format") == 4
    with closing(Library(library)) as opened:
        opened.describe_anew([], {**opened.identity, "max_side": 80})
    with closing(Library(library)) as opened:
        assert opened.catalogue.about("format") == 4
        with opened.change() as change:
            change.set_about("format", 5)
    with pytest.raises(UserError, match="format 5, this version reads 3 and 4"):
        Library(library)


def test_processes_that_have_it_open_get_an_error(library: Path) -> None:
    reader = Library(library)
    unread = Library(library)
    reader.search(unit(1, 16))
    with closing(Library(library)) as writer, writer.writing():
        writer.adapt(small())
    acts: list[Callable[[Library], object]] = [
        lambda opened: opened.search(unit(1, 16)),
        len,
        lambda opened: opened.writing().__enter__(),
        lambda opened: Library(library, opened.identity),
    ]
    for opened in (reader, unread):
        for act in acts:
            with pytest.raises(UserError, match="adapted"):
                act(opened)
    assert (library / "adapter.safetensors").exists()
    assert len(Library(library)) == 37


def test_a_missing_or_different_adapter_is_refused(adapted: Path) -> None:
    path = adapted / "adapter.safetensors"
    write_adapter(path, small(seed=1))
    with pytest.raises(UserError, match="is not the adapter of"):
        Library(adapted).adapter()
    path.unlink()
    with pytest.raises(UserError, match="no adapter"):
        SearchEngine(adapted)


def test_leftovers_of_a_killed_process_are_removed(library: Path) -> None:
    before = sorted(library.rglob("*"))
    write_adapter(library / "adapter.safetensors", small())
    with closing(Library(library)) as opened, opened.writing():
        pass
    assert sorted(path for path in library.rglob("*") if path.name != ".lock") == before


def test_libraries_with_the_same_adapter_can_be_merged(adapted: Path, tmp_path: Path) -> None:
    merge([str(adapted)], str(tmp_path / "merged"))
    assert state(tmp_path / "merged") == state(adapted)
    merge([str(adapted)], str(tmp_path / "merged"))
    with closing(Library(tmp_path / "merged")) as merged:
        assert merged.adapter() is not None
        assert merged.catalogue.about("format") == 4
    with closing(Library.open(tmp_path / "plain", identity(4))), pytest.raises(UserError, match="adapter"):
        merge([str(adapted), str(tmp_path / "plain")], str(tmp_path / "both"))


def test_descriptors_in_another_store_are_not_adapted(tmp_path: Path) -> None:
    """This is the default of a store."""
    with pytest.raises(UserError, match="--store"):
        stores.Store.resized(stores.SegmentStore(tmp_path, 8, stores.LIMITS), 4)


def test_photos_are_described_and_searched_through_the_adapter(
    loaded: LoadedExtractor, folder: Path, tmp_path: Path, capsys
) -> None:
    library = str(tmp_path / "library")
    embed_places([str(folder / "a")], library, model="efficientnet_lite0", max_side=64, threads=1)
    dim = loaded.identity["dim"]
    adapter = Adapter(unit(12, dim), unit(1, 12)[0] / 10, loaded.identity["model"])
    with closing(Library(library)) as opened, opened.writing():
        opened.adapt(adapter)
    embed_places([str(folder)], library, threads=1)
    assert "adapted" in capsys.readouterr().out
    engine = SearchEngine(library)
    query = photo_pixels(str(folder / "a" / "1.jpg"), 64)
    for name in ("a/0", "b c/4"):
        ((answer,),) = engine.search([photo_pixels(str(folder / f"{name}.jpg"), 64)], 1)
        assert answer.photo.name == str(folder / f"{name}.jpg")
        assert answer.cosine == pytest.approx(1, abs=1e-5)
        terms = engine.explain(query, answer).terms
        assert terms is not None
        pair = [adapter(describe(loaded, str(folder / f"{each}.jpg")))[0] for each in ("a/1", name)]
        assert terms.local is None
        assert terms.global_ == pytest.approx(float(pair[0] @ pair[1]), abs=1e-4)
    with pytest.raises(UserError, match="another"):
        load_extractor("efficientnet_lite0", adapter=Adapter(adapter.weight, adapter.bias, "another"))


def test_an_untrusted_adapter_card_may_contain_anything() -> None:
    for card in ({}, {"seen": 3}, {"seen": {"gain": "x"}, "kind": 1}, json.loads('{"seen": null}')):
        assert "card" in replace(small(), card=card).summary()
