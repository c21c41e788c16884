"""One-bit codes: the candidates they select, additions, and inconsistent files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from dolglab.errors import UserError
from dolglab.retrieval.index import recall
from dolglab.retrieval.rabitq import FastScanCodes, RaBitQCodes, RaBitQIndex
from retrieval.indexes import Table, rows, stable_sort

DIM = 256
CODES = (RaBitQCodes, FastScanCodes)


@pytest.fixture(scope="module")
def gallery() -> Table:
    """3,000 descriptors around 150 centres."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((150, DIM))
    return rows(centres[np.arange(3000) % 150] + 0.7 * rng.standard_normal((3000, DIM)))


@pytest.mark.parametrize("kind", CODES)
def test_codes_select_the_nearest_and_estimate_their_cosines(kind: type[RaBitQCodes], gallery: Table) -> None:
    codes = kind()
    codes.build(gallery)
    queries = gallery[:40]
    cosines, order = stable_sort(gallery, queries)
    estimates, proposed = codes.search(queries, 100)
    assert recall(proposed, order, 10) < 1
    assert all(set(nearest[:10]) <= set(own) for nearest, own in zip(order, proposed, strict=True))
    np.testing.assert_allclose(estimates, np.take_along_axis(cosines, proposed, 1), atol=0.3)
    assert codes.bytes_per_vector == pytest.approx(DIM / 8 + 8 + 4 * DIM * DIM / 3000, abs=0.5)


def test_packed_codes_give_the_same_answers(gallery: Table) -> None:
    codes, packed = RaBitQCodes(), FastScanCodes()
    codes.build(gallery)
    packed.build(gallery)
    for ours, theirs in zip(
        FastScanCodes.pack(codes).search(gallery[:9], 50), packed.search(gallery[:9], 50), strict=True
    ):
        assert (ours == theirs).all()
    assert np.intersect1d(codes.search(gallery[:1], 50)[1], packed.search(gallery[:1], 50)[1]).size >= 45


def test_a_selection_is_searched_by_plain_codes(gallery: Table) -> None:
    codes, allowed = RaBitQCodes(), np.arange(len(gallery)) % 3 == 1
    codes.build(gallery)
    scores, positions = codes.search(gallery[:5], 1200, allowed)
    assert (np.sort(positions, axis=1)[:, 200:] == np.flatnonzero(allowed)).all()
    assert np.isneginf(scores[:, 1000:]).all()
    with pytest.raises(UserError, match="rabitq_fast_scan"):
        FastScanCodes.pack(codes).search(gallery[:5], 10, allowed)


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("count", [1, 2, 31, 33])
def test_few_and_equal_descriptors_can_be_coded(kind: type[RaBitQCodes], count: int) -> None:
    equal = np.tile(rows(np.random.default_rng(0).standard_normal((1, DIM))), (count, 1))
    codes = kind()
    codes.build(equal)
    scores, positions = codes.search(equal[:1], count + 1)
    assert (np.sort(positions[0]) == np.arange(-1, count)).all()
    assert np.isfinite(scores[positions >= 0]).all()


def test_a_saved_index_gives_the_same_answers(gallery: Table, tmp_path: Path) -> None:
    index, again = RaBitQIndex(shortlist=200), RaBitQIndex(shortlist=200)
    index.build(gallery)
    index.save(tmp_path / "index")
    again.load(tmp_path / "index")
    expected = index.search(gallery[:20], 10)
    for ours, theirs in zip(again.search(gallery[:20], 10), expected, strict=True):
        assert (ours == theirs).all()
    assert recall(expected[1], stable_sort(gallery, gallery[:20])[1], 10) == 1
    assert again.bytes_per_vector == index.bytes_per_vector


def test_descriptors_that_vary_in_few_directions_are_found_too() -> None:
    """faiss's codes without a rotation."""
    rng = np.random.default_rng(0)
    strengths = (1 + np.arange(DIM)) ** -1.0
    gallery = rows(rng.standard_normal((20_000, DIM)) * strengths)
    queries = rows(gallery[:50] + 0.3 * rows(rng.standard_normal((50, DIM)) * strengths))
    codes, plain = RaBitQCodes(), faiss.IndexRaBitQ(DIM, faiss.METRIC_INNER_PRODUCT)
    codes.build(gallery)
    plain.train(gallery)
    plain.add(gallery)
    cosines = queries @ gallery.T
    (ours, places), (theirs, others) = codes.search(queries, 200), plain.search(queries, 200)
    off, without = (
        np.abs(found - np.take_along_axis(cosines, at, 1)).mean() for found, at in ((ours, places), (theirs, others))
    )
    assert off < 0.03 < 3 * off < without


def shorter(index: Any) -> None:
    index.index.ntotal += 100
    index.ntotal += 100


def twice_turned(index: Any) -> None:
    turned: Any = faiss.RandomRotationMatrix(DIM, DIM)
    turned.init(1)
    # An index that was read owns its parts.
    turned.this.disown()
    index.prepend_transform(turned)


def other_length(index: Any) -> None:
    faiss.downcast_VectorTransform(index.chain.at(0)).A.resize(DIM * (DIM - 8))


@pytest.mark.parametrize("change", [shorter, twice_turned, other_length])
@pytest.mark.parametrize("kind", CODES)
def test_codes_of_wrong_size_are_refused(
    kind: type[RaBitQCodes], change: Callable[[Any], None], gallery: Table, tmp_path: Path
) -> None:
    """faiss would read out of bounds."""
    codes, path = kind(), tmp_path / "codes"
    codes.build(gallery)
    codes.save(path)
    index = faiss.read_index(str(path))
    change(index)
    faiss.write_index(index, str(path))
    beside = path.with_name("codes.json")
    about = {"bytes": path.stat().st_size, "count": index.ntotal}
    beside.write_text(json.dumps(json.loads(beside.read_text()) | about))
    with pytest.raises(UserError, match="damaged"):
        kind().load(path, mmap=True)


def test_codes_of_the_other_form_are_refused(gallery: Table, tmp_path: Path) -> None:
    codes, path = RaBitQCodes(), tmp_path / "codes"
    codes.build(gallery)
    codes.save(path)
    beside = path.with_name("codes.json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"kind": FastScanCodes.kind}))
    with pytest.raises(UserError, match="damaged"):
        FastScanCodes().load(path)
