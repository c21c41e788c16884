"""Local features that a library keeps: their accuracy, and their use instead of opening photos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dolglab.contracts import LocalFeatures
from dolglab.data.photos import photo_pixels
from dolglab.errors import UserError
from dolglab.extraction import xfeat
from dolglab.library.contents import Answer, Photo
from dolglab.library.ingest import embed_places
from dolglab.library.library import Library
from dolglab.library.listing import find_photos
from dolglab.library.local_engine import describe_files
from dolglab.library.maintenance import merge, print_info, remove
from dolglab.library.packing import pack, packed_bytes, unpack
from dolglab.library.ray_worker import Settings, Worker
from dolglab.library.search_engine import SearchEngine
from dolglab.library.verifier import SpatialVerifier
from dolglab.sharing.loading import LoadedExtractor
from photo_library.conftest import save

OPTIONS = {"model": "efficientnet_lite0", "max_side": 64, "threads": 1}


def embed(folder: Path, library: Path, **options) -> Library:
    embed_places([str(folder)], str(library), **OPTIONS, **options)
    return Library(library)


def values_each() -> int:
    """Length of a local feature's descriptor, which depends on whether XFeat's weights are installed."""
    return SpatialVerifier(64).method.extractor.dim


def kept(library: Library) -> dict[str, bytes]:
    """Packed features by the photo's name."""
    photos = {photo.id: photo.name for page in library.catalogue.pages() for photo, _ in page}
    return {photos[number]: data for number, data in library.catalogue.kept(photos).items()}


def features(count: int, dim: int = 64) -> LocalFeatures:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    places = rng.uniform(0, (640, 480), (count, 2)).astype(np.float32)
    zeros = np.zeros(count, np.float32)
    return LocalFeatures(places, zeros, zeros, rows.astype(np.float16), (480, 640))


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_packing_preserves_features_approximately(count: int) -> None:
    given = features(count)
    data = pack(given)
    found = unpack(data, 64)
    assert len(data) == packed_bytes(count, 64)
    assert found.shape == given.shape
    np.testing.assert_allclose(found.keypoints, given.keypoints, atol=0.01)
    cosines = (found.descriptors * given.descriptors).sum(1) / np.linalg.norm(found.descriptors, axis=1)
    np.testing.assert_allclose(cosines, 1, atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data[:10],
        lambda data: b"\xff" * len(data),
        lambda data: pack(features(5, 32)),
    ],
)
def test_damaged_features_are_refused(change) -> None:
    with pytest.raises(UserError, match="damaged"):
        unpack(change(pack(features(5))), 64)


def test_features_are_added_and_removed_with_their_photos(folder: Path, tmp_path: Path, capsys) -> None:
    library = embed(folder, tmp_path / "library", keep_local=True)
    before = kept(library)
    assert len(before) == 6
    assert f"{packed_bytes(1000, values_each()):,} bytes" in capsys.readouterr().out
    print_info(library)
    assert "of 6 photos" in capsys.readouterr().out
    one, other = sorted(before)[:2]
    save(Path(one), 77)
    remove(library, [other])
    # The library goes on as it began.
    after = kept(embed(folder / "b c", tmp_path / "library"))
    assert other not in after
    assert len(after) == 5
    after = kept(embed(folder, tmp_path / "library"))
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] != before[name]} == {one}
    again = Library(tmp_path / "library")
    again.compact()
    assert kept(again) == after


def test_an_unreadable_photo_loses_its_features(folder: Path, tmp_path: Path) -> None:
    name = next(iter(kept(embed(folder, tmp_path / "library", keep_local=True))))
    Path(name).write_text("text")
    assert name not in kept(embed(folder, tmp_path / "library"))


def test_features_are_added_as_photos_are_described(folder: Path, tmp_path: Path) -> None:
    library = embed(folder, tmp_path / "library")
    assert kept(library) == {}
    save(folder / "new.jpg", 50)
    assert set(kept(embed(folder, tmp_path / "library", keep_local=True))) == {str(folder / "new.jpg")}
    assert len(kept(embed(folder, tmp_path / "library", again=True))) == 7


def test_verification_uses_kept_features_and_opens_no_photo(folder: Path, tmp_path: Path) -> None:
    whole = folder / "whole.jpg"
    save(whole, 50, cell=40)
    embed(folder, tmp_path / "plain")
    embed(folder, tmp_path / "kept", keep_local=True)
    query = photo_pixels(str(whole), 64)
    plain, packed = (SearchEngine(tmp_path / name).search([query], 7, verify=True)[0] for name in ("plain", "kept"))
    for path in folder.rglob("*.jpg"):
        path.unlink()
    gone = SearchEngine(tmp_path / "kept").search([query], 7, verify=True)[0]
    assert [answer.photo.name for answer in gone] == [answer.photo.name for answer in packed]
    assert [answer.inliers for answer in gone] == [answer.inliers for answer in packed]
    assert packed[0].photo.name == plain[0].photo.name == str(whole)
    for answers in (plain, packed):
        assert None not in [answer.inliers for answer in answers]


def test_features_of_another_kind_are_not_used(folder: Path, tmp_path: Path) -> None:
    library = embed(folder, tmp_path / "library", keep_local=True)
    config = library.catalogue.local()
    assert config is not None
    numbers = [photo.id for page in library.catalogue.pages() for photo, _ in page]
    assert len(library.kept_features(numbers, config, values_each())) == 6
    assert library.kept_features(numbers, {**config, "max_features": 7}, values_each()) == {}
    with library.change() as change:
        change.keep_local({**config, "max_features": 7})
    assert kept(library) == {}


def hide_xfeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xfeat, "WEIGHTS", "package:dolglab_not_there/xfeat.pt")


def test_rootsift_verifies_without_xfeats_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_xfeat(monkeypatch)
    photos = []
    for seed in range(3):
        path = tmp_path / f"{seed}.jpg"
        save(path, seed, cell=40)
        photos.append(Photo(str(path), path.stat().st_size, path.stat().st_mtime_ns, id=seed + 1))
    verifier = SpatialVerifier(200)
    assert (verifier.method.title, verifier.config()["features"], verifier.side) == ("RootSIFT", "rootsift", 200)
    query = photos[2].pixels(200)
    answers = [Answer(photo, cosine) for photo, cosine in zip(photos, (0.9, 0.8, 0.7), strict=True)]
    first, *others = verifier(query, answers)
    assert first == replace(answers[2], inliers=first.inliers)
    assert first.inliers is not None
    assert first.inliers >= verifier.method.min_inliers
    # Those that few features speak for stay in the order of their cosines.
    assert [answer.photo for answer in others] == photos[:2]
    Path(photos[2].name).unlink()
    (kept_one,) = SpatialVerifier(200)(query, answers[2:], {3: unpack(verifier.packed(query), 128)})
    assert kept_one == first


def test_features_of_another_method_stay_until_new_ones_are_requested(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    before = kept(embed(folder, tmp_path / "library", keep_local=True))
    if SpatialVerifier(64).method.title != "XFeat":
        pytest.skip("XFeat's weights are not installed")
    hide_xfeat(monkeypatch)
    save(folder / "new.jpg", 50)
    capsys.readouterr()
    assert kept(embed(folder, tmp_path / "library")) == before
    assert "RootSIFT" in capsys.readouterr().out
    library = embed(folder, tmp_path / "library", keep_local=True, again=True)
    after = kept(library)
    assert after.keys() == {*before, str(folder / "new.jpg")}
    assert not {*after.values()} & {*before.values()}
    assert (library.catalogue.local() or {})["features"] == "rootsift"


def test_damaged_features_are_reported_with_the_library(folder: Path, tmp_path: Path) -> None:
    library = embed(folder, tmp_path / "library", keep_local=True)
    (photo, _), *_ = next(library.catalogue.pages())
    with library.change() as change:
        change.put([photo], [None], [b"damaged"])
    with pytest.raises(UserError, match=r"library: .* damaged: .*--again"):
        library.kept_features([photo.id], library.catalogue.local() or {}, values_each())


def test_merging_copies_kept_features(folder: Path, tmp_path: Path) -> None:
    parts = [embed(folder / name, tmp_path / name, keep_local=True) for name in ("a", "b c")]
    merge([str(part.folder) for part in parts], str(tmp_path / "both"))
    both = Library(tmp_path / "both")
    assert kept(both) == kept(parts[0]) | kept(parts[1])
    assert both.catalogue.local() == parts[0].catalogue.local()


def test_a_plan_counts_kept_features(folder: Path, tmp_path: Path, capsys) -> None:
    sizes = []
    for keep in (False, True):
        embed_places([str(folder)], str(tmp_path / "library"), **OPTIONS, plan=True, keep_local=keep)
        sizes.append(float(capsys.readouterr().out.split(" MB in")[0].rsplit(" ", 1)[1]))
    expected = 6 * packed_bytes(1000, values_each()) / 1e6
    assert sizes[1] - sizes[0] == pytest.approx(expected, abs=0.1)


def test_a_cluster_node_computes_the_same_features_or_reports_why_not(loaded: LoadedExtractor, folder: Path) -> None:
    files = list(find_photos([str(folder)]))
    local = SpatialVerifier(64).config()
    answer = Worker(Settings(loaded.identity, "onnx", 1, False, "", local)).answer(files)
    assert answer.mistake is None
    described = describe_files(loaded, files, 1, False, SpatialVerifier(64).packed)
    expected = {each.photo.name: each.local for each in described}
    assert {each.photo.name: each.local for each in answer.described} == expected
    assert None not in expected.values()
    other = Worker(Settings(loaded.identity, "onnx", 1, False, "", {**local, "features": "other"})).answer(files)
    assert other.described == []
    assert "other" in (other.mistake or "")
