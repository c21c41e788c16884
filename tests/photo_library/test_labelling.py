"""Names by neighbours, beside a loop over all photos."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from dolglab.errors import UserError
from dolglab.library.contents import Photo
from dolglab.library.labelled import by_column
from dolglab.library.labelling import NamedPhotos, label, vote
from dolglab.library.library import Library
from photo_library.made import library_of, table, unit

DIM, NAMES = 6, "abcd"


def scattered() -> np.ndarray:
    """Eighty descriptors around four centres, whose neighbourhoods touch."""
    rows = unit(4, DIM, seed=3)[np.arange(80) % 4] + np.random.default_rng(4).normal(scale=0.4, size=(80, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """The first sixty photos have a name, the others have none, an empty one or other columns."""
    photos = [Photo(f"/{row}", 1, 1, (1, 1), metadata={"place": NAMES[row % 4]}) for row in range(60)]
    photos += [Photo(f"/{row}", 1, 1, (1, 1), metadata={"place": "", "year": "1900"}) for row in range(60, 80)]
    return library_of(tmp_path / "library", photos, scattered(), segments=3)


def by_loop(descriptors: np.ndarray, one: int, others: list[int], neighbours: int) -> tuple[str, float, int]:
    """The name of a photo by its neighbours, its score and the nearest photo of that name."""
    near = sorted(others, key=lambda other: -float(descriptors[one] @ descriptors[other]))[:neighbours]
    votes = defaultdict(float)
    for other in near:
        votes[NAMES[other % 4]] += max(0.0, float(descriptors[one] @ descriptors[other]))
    name = max(votes, key=lambda name: votes[name])
    nearest = next(other for other in near if NAMES[other % 4] == name)
    return name, float(descriptors[one] @ descriptors[nearest]), nearest


def test_unnamed_photos_get_the_name_of_their_neighbours(library: Library, tmp_path: Path, capsys) -> None:
    label(library, tmp_path / "l.csv", column="place", neighbours=5, min_cosine=0.9)
    descriptors = scattered()
    rows = table(tmp_path / "l.csv")
    assert [row["photo"] for row in rows] == [f"/{place}" for place in range(60, 80)]
    for place, row in enumerate(rows, 60):
        name, score, nearest = by_loop(descriptors, place, list(range(60)), 5)
        assert (row["label"], row["nearest"]) == (name if score >= 0.9 else "unknown", f"/{nearest}")
        assert float(row["score"]) == pytest.approx(score, abs=6e-5)
    unknown = sum(row["label"] == "unknown" for row in rows)
    assert 0 < unknown < 20
    assert f"{20 - unknown} photos named, {unknown} unknown" in capsys.readouterr().out
    assert library.catalogue.columns() == ["place", "year"]


def test_accuracy_is_measured_on_known_names(library: Library) -> None:
    descriptors, named = scattered(), NamedPhotos(library, by_column(library, "place"), 3)
    right, scores = named.leave_one_out()
    alone = [by_loop(descriptors, one, [o for o in range(60) if o != one], 3) for one in range(60)]
    assert right.tolist() == [name == NAMES[one % 4] for one, (name, _, _) in enumerate(alone)]
    np.testing.assert_allclose(scores, [score for _, score, _ in alone], atol=1e-5)
    as_if = [by_loop(descriptors, one, [o for o in range(60) if o % 4 != one % 4], 3)[1] for one in range(60)]
    np.testing.assert_allclose(np.sort(named.stranger_scores()), np.sort(as_if), atol=1e-5)


def test_the_default_threshold_names_few_other_photos(library: Library, tmp_path: Path, capsys) -> None:
    label(library, tmp_path / "l.csv", column="place")
    said = capsys.readouterr().out
    least = float(said.split("--least ")[1].split(" on ")[0])
    strangers = NamedPhotos(library, by_column(library, "place"), 5).stranger_scores()
    assert 0 < (strangers >= least).mean() <= 0.05
    assert f"{100 * (strangers >= least).mean():.1f} % wrongly" in said


def test_names_given_by_neighbours_do_not_vote_and_are_replaced(library: Library, tmp_path: Path) -> None:
    label(library, tmp_path / "first.csv", column="place", min_cosine=0.9, write=True)
    given = {row["photo"]: row["label"] for row in table(tmp_path / "first.csv") if row["label"] != "unknown"}
    kept = {photo.name: photo.metadata for page in library.catalogue.pages() for photo, _ in page}
    assert {name for name, columns in kept.items() if "place score" in columns} == set(given)
    assert {name: kept[name]["place"] for name in given} == given
    assert kept["/60"]["year"] == "1900"
    label(library, tmp_path / "second.csv", column="place", min_cosine=0.9, write=True)
    assert table(tmp_path / "second.csv") == table(tmp_path / "first.csv")
    label(library, tmp_path / "third.csv", column="place", min_cosine=1.0, write=True)
    assert "place score" not in library.catalogue.columns()


def test_the_nearest_photo_breaks_ties() -> None:
    votes = vote(np.array([[0.9, 0.9, 0.1]], np.float32), np.array([[7, 8, 9]]), np.array([[2, 1, 3]]))
    assert [values.tolist() for values in votes] == [[2], [pytest.approx(0.9)], [7]]


def test_a_single_name_needs_a_threshold_and_no_name_is_refused(tmp_path: Path) -> None:
    photos = [Photo("/a", 1, 1, (1, 1), metadata={"place": "x"}), Photo("/b", 1, 1, (1, 1))]
    library = library_of(tmp_path / "library", photos, unit(2, 4))
    with pytest.raises(UserError, match=r"colour.*place"):
        label(library, tmp_path / "l.csv", column="colour")
    with pytest.raises(UserError, match="--least"):
        label(library, tmp_path / "l.csv", column="place")
    with pytest.raises(UserError, match="--neighbours"):
        label(library, tmp_path / "l.csv", column="place", neighbours=0)
    label(library, tmp_path / "l.csv", column="place", min_cosine=-1.0)
    assert [row["label"] for row in table(tmp_path / "l.csv")] == ["x"]


def test_a_folder_names_the_photos_below_its_sub_folders(tmp_path: Path) -> None:
    photos = [Photo(f"/photos/{NAMES[row % 4]}/{row}", 1, 1, (1, 1)) for row in range(60)]
    photos += [Photo(f"/photos/{row}", 1, 1, (1, 1), metadata={"place": "a"}) for row in range(60, 80)]
    by_folder = library_of(tmp_path / "folder", photos, scattered(), segments=3)
    names = [{"place": NAMES[row % 4]} if row < 60 else {} for row in range(80)]
    columns = [Photo(photo.name, 1, 1, (1, 1), metadata=own) for photo, own in zip(photos, names, strict=True)]
    by_column = library_of(tmp_path / "column", columns, scattered(), segments=3)
    label(by_folder, tmp_path / "folder.csv", labelled="/photos/", min_cosine=0.9)
    label(by_column, tmp_path / "column.csv", column="place", min_cosine=0.9)
    assert len(table(tmp_path / "folder.csv")) == 20
    assert table(tmp_path / "folder.csv") == table(tmp_path / "column.csv")


def test_exactly_one_source_of_names_is_required(library: Library, tmp_path: Path) -> None:
    for given in ({}, {"column": "place", "labelled": "/"}):
        with pytest.raises(UserError, match="--column NAME, --folder FOLDER"):
            label(library, tmp_path / "l.csv", **given)
    with pytest.raises(UserError, match="--write"):
        label(library, tmp_path / "l.csv", labelled="/", write=True)
    with pytest.raises(UserError, match="/elsewhere"):
        label(library, tmp_path / "l.csv", labelled="/elsewhere")
    with pytest.raises(UserError, match=r"nothing.*place.*--metadata.*--folder"):
        label(library, tmp_path / "l.csv", column="nothing")
    assert not (tmp_path / "l.csv").exists()


def test_a_name_from_a_table_replaces_one_by_neighbours(library: Library, tmp_path: Path) -> None:
    label(library, tmp_path / "l.csv", column="place", min_cosine=-1.0, write=True)
    with library.change() as change:
        change.add_metadata("/60", {"place": "b"})
        change.add_metadata("/61", {"place": ""})
        change.add_metadata("/62", {"year": "1901"})
    label(library, tmp_path / "l.csv", column="place", min_cosine=-1.0)
    assert [row["photo"] for row in table(tmp_path / "l.csv")] == [f"/{row}" for row in range(61, 80)]
    kept = {photo.name: dict(photo.metadata) for page in library.catalogue.pages() for photo, _ in page}
    assert kept["/60"] == {"place": "b", "year": "1900"}
    assert kept["/61"] == {"year": "1900"}
    assert set(kept["/62"]) == {"place", "place score", "year"}
