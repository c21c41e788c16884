"""Clusters of near-duplicates, compared with those of a loop over all pairs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from dolglab.errors import UserError
from dolglab.library.contents import Photo
from dolglab.library.duplicates import BlockSizes, cell_pairs, near_pairs, write_duplicates
from photo_library.made import library_of, table, unit


def near_copies() -> np.ndarray:
    """Ninety descriptors with many near pairs; some are only connected through a third."""
    seeds = unit(30, 4, seed=1)
    rows = np.repeat(seeds, 3, axis=0) + np.random.default_rng(2).normal(scale=0.08, size=(90, 4))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_pairs(descriptors: np.ndarray, least: float) -> set[frozenset[int]]:
    clusters = [{row} for row in range(len(descriptors))]
    for a in range(len(descriptors)):
        for b in range(a):
            if float(descriptors[a] @ descriptors[b]) >= least:
                one, other = (next(c for c in clusters if row in c) for row in (a, b))
                if one is not other:
                    clusters.remove(other)
                    one |= other
    return {frozenset(cluster) for cluster in clusters if len(cluster) > 1}


# Small blocks that split clusters, with repeated joins; then also within 9 cells.
@pytest.mark.parametrize("blocks", [BlockSizes(), BlockSizes(7, 16, 3), BlockSizes(7, 6, 3, cells_from=90)])
def test_clusters_equal_those_of_all_pairs(tmp_path: Path, capsys, blocks: BlockSizes) -> None:
    descriptors = near_copies()
    photos = [Photo(f"/{row}", 1, 1, (row % 5 + 1, 10)) for row in range(90)]
    library = library_of(tmp_path / "library", photos, descriptors, segments=4)
    write_duplicates(library, tmp_path / "out" / "d.csv", 0.99, blocks=blocks)
    rows = table(tmp_path / "out" / "d.csv")
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(row["cluster"], []).append(int(row["photo"][1:]))
    wanted = by_pairs(descriptors, 0.99)
    assert 5 < len(wanted) < 30
    assert {frozenset(cluster) for cluster in found.values()} == wanted
    assert re.findall(r"\d+", capsys.readouterr().out)[:3] == ["90", str(len(wanted)), str(len(rows))]
    for row in rows:
        first, *_ = found[row["cluster"]]
        assert photos[first].shape == max(photos[other].shape or (0, 0) for other in found[row["cluster"]])
        cosine = float(descriptors[first] @ descriptors[int(row["photo"][1:])])
        assert float(row["cosine"]) == pytest.approx(cosine, abs=6e-5)


def test_cells_find_the_same_pairs_with_fewer_comparisons(tmp_path: Path) -> None:
    """Copies of 300 of 3,000 photos around 60 centres, with cosines of at least 0.9."""
    rng = np.random.default_rng(0)
    places = rng.normal(size=(60, 64))
    rows = places[rng.integers(0, 60, 3000)] + 0.7 * rng.normal(size=(3000, 64))
    rows[:300] = rows[2700:] + 0.35 * np.linspace(0, 1, 300)[:, None] * rng.normal(size=(300, 64))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    library = library_of(tmp_path / "library", [Photo(f"/{row}", 1, 1) for row in range(3000)], rows)
    keys, blocks = library.keys(), BlockSizes()
    exact, cells = (
        {tuple(sorted(pair)) for pairs in find(library, keys, 0.9, blocks) for pair in pairs.tolist()}
        for find in (near_pairs, cell_pairs)
    )
    assert cells <= exact
    assert len(cells) >= 0.995 * len(exact) > 280


def test_equal_descriptors_are_one_cluster_with_cells_too(tmp_path: Path) -> None:
    rows = np.tile(np.eye(1, 8, dtype=np.float32), (500, 1))
    library = library_of(tmp_path / "library", [Photo(f"/{n}", 1, 1) for n in range(500)], rows)
    write_duplicates(library, tmp_path / "d.csv", 0.98, blocks=BlockSizes(cells_from=100))
    assert [row["cluster"] for row in table(tmp_path / "d.csv")] == ["1"] * 500


def kept(tmp_path: Path, photos: list[Photo], rows: np.ndarray, least: float = 0.98) -> tuple[list[str], list[str]]:
    """Names of the photos to keep, and of those on the list of the rest."""
    library = library_of(tmp_path / "library", photos, rows)
    write_duplicates(library, tmp_path / "d.csv", least, rest=tmp_path / "rest.txt")
    library.close()
    named = [row["photo"] for row in table(tmp_path / "d.csv") if row["keep"] == "yes"]
    return named, (tmp_path / "rest.txt").read_text().splitlines()


def files(tmp_path: Path, *names: str) -> list[str]:
    for name in names:
        (tmp_path / name).touch()
    return [str(tmp_path / name) for name in names]


SAME = np.repeat(unit(1, 8), 4, axis=0)


def test_the_photo_to_keep_has_most_pixels_then_bytes_then_age_then_name(tmp_path: Path) -> None:
    a, b, c, d = files(tmp_path, "a", "b", "c", "d")
    best = [
        Photo(a, 9, 1, (9, 9), stored=(30, 40)),
        Photo(b, 5, 3, (9, 9), stored=(50, 40)),
        Photo(c, 7, 4, (9, 9), stored=(40, 50)),
        Photo(d, 7, 3, (9, 9), stored=(40, 50)),
    ]
    assert kept(tmp_path / "1", best, SAME) == ([d], [c, b, a])
    assert kept(tmp_path / "2", [Photo(name, 1, 1, (9, 9), stored=(9, 9)) for name in (c, a, b)], SAME[:3]) == (
        [a],
        [b, c],
    )


def test_described_sizes_are_used_if_a_file_size_is_unknown(tmp_path: Path) -> None:
    a, b = files(tmp_path, "a", "b")
    photos = [Photo(a, 1, 1, (9, 9), stored=(9, 9)), Photo(b, 2, 1, (9, 9))]
    assert kept(tmp_path, photos, SAME[:2]) == ([b], [a])
    rows = table(tmp_path / "d.csv")
    assert [(row["width"], row["height"], row["bytes"]) for row in rows] == [("", "", "2"), ("9", "9", "1")]


def test_a_missing_photo_is_not_the_one_to_keep(tmp_path: Path) -> None:
    a, b = files(tmp_path, "a", "b")
    gone = str(tmp_path / "gone")
    photos = [Photo(gone, 99, 1, (99, 99), stored=(99, 99)), Photo(a, 1, 1, (1, 1)), Photo(b, 2, 1, (1, 1))]
    assert kept(tmp_path, photos, SAME[:3]) == ([b], [a])
    photos = [Photo(gone, 1, 1, (1, 1)), Photo(f"{gone} too", 2, 1, (1, 1))]
    assert kept(tmp_path / "none there", photos, SAME[:2]) == ([], [])


def test_the_ends_of_a_chain_are_both_kept(tmp_path: Path) -> None:
    """Of three photos in a row, only neighbours are similar."""
    angles = np.deg2rad([0, 8, 16])
    rows = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    a, b, c = files(tmp_path, "a", "b", "c")
    photos = [Photo(name, size, 1, (1, 1)) for name, size in ((a, 3), (b, 2), (c, 1))]
    assert kept(tmp_path, photos, rows) == ([a, c], [b])


def test_the_most_similar_clusters_come_first(tmp_path: Path) -> None:
    library = library_of(tmp_path / "library", [Photo(f"/{row}", 1, 1) for row in range(90)], near_copies())
    write_duplicates(library, tmp_path / "d.csv", 0.99)
    least: dict[int, float] = {}
    for row in table(tmp_path / "d.csv"):
        cluster = int(row["cluster"])
        least[cluster] = min(least.get(cluster, 1.0), float(row["cosine"]))
    assert list(least) == list(range(1, len(least) + 1))
    assert list(least.values()) == sorted(least.values(), reverse=True)


def test_names_keep_their_bytes_on_disk(tmp_path: Path) -> None:
    names = ['/a, "b"\n\udce9.jpg', "/🙂.jpg", "/other.jpg"]
    library = library_of(tmp_path / "library", [Photo(name, 1, 1, (1, 1)) for name in names], unit(3, 8)[[0, 0, 1]])
    write_duplicates(library, tmp_path / "d.csv", 1.0)
    assert [row["photo"] for row in table(tmp_path / "d.csv")] == names[:2]


def test_invalid_cosines_and_paths_are_refused(tmp_path: Path) -> None:
    library = library_of(tmp_path / "library", [Photo("/a", 1, 1, (1, 1))], unit(1, 4))
    with pytest.raises(UserError, match=r"--least.*1\.5"):
        write_duplicates(library, tmp_path / "d.csv", 1.5)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"d\.csv"):
        write_duplicates(library, tmp_path / "file" / "d.csv", 0.9)
