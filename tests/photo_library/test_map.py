"""The map of a library, compared with NumPy's singular value decomposition of all descriptors."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from dolglab.errors import UserError
from dolglab.library import map_making
from dolglab.library.contents import Photo
from dolglab.library.library import Library
from dolglab.library.map_making import make_map, principal_axes
from dolglab.library.photo_map import FILE, PhotoMap, read_map, write_map
from dolglab.retrieval.adapter import Adapter
from photo_library.made import library_of, unit


def spread(count: int, dim: int) -> np.ndarray:
    """L2-normalised descriptors with decreasing variance of their dimensions."""
    rows = np.random.default_rng(3).normal(size=(count, dim)) * 0.9 ** np.arange(dim) + 0.3
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def photos(count: int, changed: int = 1) -> list[Photo]:
    return [Photo(f"/folder/{row:04d}.jpg", 1, changed) for row in range(count)]


def by_svd(descriptors: np.ndarray, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates on the first principal axes, and the share of the variance that each explains."""
    centred = descriptors.astype(np.float64) - descriptors.mean(0, dtype=np.float64)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:count]
    axes *= np.sign(axes[np.arange(count), np.abs(axes).argmax(1)])[:, None]
    return centred @ axes.T, (singular**2 / (singular**2).sum())[:count]


def made(library: Library) -> PhotoMap:
    found = read_map(library.folder)
    assert found is not None
    return found


def ids_of(library: Library, names: list[str]) -> list[int | None]:
    return [entry[0].id for name in names if (entry := library.catalogue.named(name)) is not None]


# Blocks of all rows and of three rows; one and five segments.
@pytest.mark.parametrize(("block_bytes", "segments"), [(1 << 20, 1), (3 * 4 * 12, 1), (3 * 4 * 12, 5)])
def test_pca_agrees_with_a_decomposition(tmp_path: Path, capsys, block_bytes: int, segments: int) -> None:
    descriptors = spread(100, 12)
    library = library_of(tmp_path / "library", photos(100), descriptors, segments)
    make_map(library, block_bytes=block_bytes)
    wanted, explained = by_svd(descriptors)
    found = made(library)
    assert found.ids.tolist() == ids_of(library, [photo.name for photo in photos(100)])
    np.testing.assert_allclose(found.coordinates, wanted, atol=1e-6)
    np.testing.assert_allclose(found.explained, explained, rtol=1e-6)
    assert f"{100 * explained[0]:.1f} % and {100 * explained[1]:.1f} %" in capsys.readouterr().out


def test_subspace_iteration_finds_the_same_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_making, "WHOLE_DIM", 100)
    monkeypatch.setattr(map_making, "SUBSPACE", 8)
    descriptors = spread(300, 120)
    axes = principal_axes(lambda _: iter(np.array_split(descriptors, 7)), 120, 2)
    wanted, explained = by_svd(descriptors)
    np.testing.assert_allclose(axes.explained, explained, rtol=1e-6)
    np.testing.assert_allclose(axes.project(descriptors), wanted, atol=1e-4)


@pytest.mark.parametrize("descriptors", [unit(1, 8), unit(1, 8).repeat(5, 0), np.ones((3, 1), np.float32)])
def test_photos_without_variance_are_in_the_middle(tmp_path: Path, descriptors: np.ndarray) -> None:
    library = library_of(tmp_path / "library", photos(len(descriptors)), descriptors)
    make_map(library)
    assert made(library).coordinates.tolist() == [[0, 0]] * len(descriptors)
    assert made(library).explained == (0, 0)


def test_descriptors_of_one_value_have_one_axis(tmp_path: Path) -> None:
    library = library_of(tmp_path / "library", photos(4), np.array([[1], [-1], [-1], [-1]], np.float32))
    make_map(library)
    assert made(library).coordinates.tolist() == [[1.5, 0], [-0.5, 0], [-0.5, 0], [-0.5, 0]]
    assert made(library).explained == (1, 0)


def test_deleted_photos_are_not_on_the_map(tmp_path: Path) -> None:
    descriptors = spread(60, 6)
    library = library_of(tmp_path / "library", photos(60), descriptors, segments=3)
    library.remove([photo.name for photo in photos(60)[10:35]])
    make_map(library)
    kept = [*range(10), *range(35, 60)]
    assert made(library).ids.tolist() == ids_of(library, [photos(60)[row].name for row in kept])
    np.testing.assert_allclose(made(library).coordinates, by_svd(descriptors[kept])[0], atol=1e-6)


def test_it_shows_adapted_descriptors(tmp_path: Path) -> None:
    descriptors = spread(50, 6)
    library = library_of(tmp_path / "library", photos(50), descriptors)
    make_map(library)
    weight = np.random.default_rng(5).normal(size=(3, 6)).astype(np.float32)
    adapter = Adapter(weight, np.zeros(3, np.float32), library.identity["model"])
    assert made(library).is_current(library)
    library.adapt(adapter)
    assert not made(library).is_current(library)
    make_map(library)
    assert made(library).is_current(library)
    np.testing.assert_allclose(made(library).coordinates, by_svd(adapter(descriptors))[0], atol=1e-6)


def test_an_older_map_shows_unchanged_photos(tmp_path: Path) -> None:
    library = library_of(tmp_path / "library", photos(20), spread(20, 6))
    make_map(library)
    old = made(library)
    library.remove([photos(20)[3].name])
    library.add(photos(20, changed=2)[7:8], spread(1, 6))
    library.add([Photo("/folder/new.jpg", 1, 1)], spread(1, 6))
    library.compact()
    described = library.catalogue.described()
    assert len(described.ids) == 20
    names = [photo.name for row, photo in enumerate(photos(20)) if row not in (3, 7)]
    assert old.ids[old.shown(described)].tolist() == ids_of(library, names)


def test_a_failed_map_leaves_the_previous_one(tmp_path: Path) -> None:
    library = library_of(tmp_path / "library", photos(20), spread(20, 6))
    make_map(library)
    before = (library.folder / FILE).read_bytes()
    library.add(photos(30)[20:], spread(10, 6))
    for path in library.folder.rglob("*.flat"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="repairs"):
        make_map(Library(library.folder))
    assert (library.folder / FILE).read_bytes() == before


def test_the_same_library_gives_the_same_file(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    for folder, segments in zip(folders, (1, 1), strict=True):
        make_map(library_of(folder, photos(40), spread(40, 6), segments))
    one, other = ((folder / FILE).read_bytes() for folder in folders)
    assert one == other


def test_invalid_maps_are_refused(tmp_path: Path) -> None:
    library = library_of(tmp_path / "library", photos(3), spread(3, 6))
    assert read_map(library.folder) is None
    make_map(library)
    good = made(library)
    (library.folder / FILE).write_bytes((library.folder / FILE).read_bytes()[:-5])
    with pytest.raises(UserError, match="damaged"):
        read_map(library.folder)
    for change in (
        {"ids": good.ids[::-1]},
        {"ids": good.ids - 1},
        {"coordinates": good.coordinates[:2]},
        {"coordinates": np.full((3, 2), np.nan)},
    ):
        write_map(library.folder, PhotoMap(**{**vars(good), **change}))
        with pytest.raises(UserError, match="damaged"):
            read_map(library.folder)
    with pytest.raises(UserError, match=str(2**32)):
        write_map(library.folder, PhotoMap(**{**vars(good), "ids": np.array([1, 2, 2**32])}))


def test_an_empty_library_and_unknown_methods_are_refused(tmp_path: Path) -> None:
    library = library_of(tmp_path / "library", [], np.empty((0, 6), np.float32))
    with pytest.raises(UserError, match="0 photos"):
        make_map(library)
    with pytest.raises(UserError, match="--method must be pca or umap, not tsne"):
        make_map(library, "tsne")


@pytest.mark.skipif(importlib.util.find_spec("umap") is not None, reason="umap-learn is installed")
def test_missing_umap_is_reported(tmp_path: Path) -> None:
    library = library_of(tmp_path / "library", photos(3), spread(3, 6))
    with pytest.raises(UserError, match=r"dolglab\[umap\]"):
        make_map(library, "umap")


@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="umap-learn is not installed")
@pytest.mark.filterwarnings("default")
def test_umap_separates_groups_reproducibly(tmp_path: Path) -> None:
    groups = np.repeat(np.eye(2, 80), 40, axis=0) + 0.02 * np.random.default_rng(1).normal(size=(80, 80))
    descriptors = (groups / np.linalg.norm(groups, axis=1, keepdims=True)).astype(np.float32)
    library = library_of(tmp_path / "library", photos(80), descriptors)
    make_map(library, "umap")
    first = made(library)
    make_map(library, "umap")
    np.testing.assert_array_equal(made(library).coordinates, first.coordinates)
    assert (first.method, first.explained) == ("umap", ())
    near = np.linalg.norm(first.coordinates[:, None] - first.coordinates[None], axis=-1) + np.diag([np.inf] * 80)
    assert (near.argmin(1) // 40 == np.arange(80) // 40).all()
