"""One-bit codes: what they propose, what they take in, and files that lie."""

from __future__ import annotations

import json
from pathlib import Path

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
def test_codes_propose_the_nearest_and_estimate_their_cosines(kind: type[RaBitQCodes], gallery: Table) -> None:
    codes = kind()
    codes.build(gallery)
    queries = gallery[:40]
    cosines, order = stable_sort(gallery, queries)
    estimates, proposed = codes.search(queries, 100)
    assert recall(proposed, order, 10) < 1
    assert all(set(nearest[:10]) <= set(own) for nearest, own in zip(order, proposed, strict=True))
    np.testing.assert_allclose(estimates, np.take_along_axis(cosines, proposed, 1), atol=0.3)
    assert codes.bytes_per_vector == pytest.approx(DIM / 8 + 8, abs=0.5)


def test_packed_codes_are_those_that_were_packed(gallery: Table) -> None:
    codes, packed = RaBitQCodes(), FastScanCodes()
    codes.build(gallery)
    packed.build(gallery)
    for ours, theirs in zip(
        FastScanCodes.pack(codes).search(gallery[:9], 50), packed.search(gallery[:9], 50), strict=True
    ):
        assert (ours == theirs).all()
    assert np.intersect1d(codes.search(gallery[:1], 50)[1], packed.search(gallery[:1], 50)[1]).size >= 45


def test_a_selection_is_searched_by_plain_codes_alone(gallery: Table) -> None:
    codes, allowed = RaBitQCodes(), np.arange(len(gallery)) % 3 == 1
    codes.build(gallery)
    scores, positions = codes.search(gallery[:5], 1200, allowed)
    assert (np.sort(positions, axis=1)[:, 200:] == np.flatnonzero(allowed)).all()
    assert np.isneginf(scores[:, 1000:]).all()
    with pytest.raises(UserError, match="rabitq_fast_scan"):
        FastScanCodes.pack(codes).search(gallery[:5], 10, allowed)


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("count", [1, 2, 31, 33])
def test_few_and_equal_descriptors_are_coded(kind: type[RaBitQCodes], count: int) -> None:
    equal = np.tile(rows(np.random.default_rng(0).standard_normal((1, DIM))), (count, 1))
    codes = kind()
    codes.build(equal)
    scores, positions = codes.search(equal[:1], count + 1)
    assert (np.sort(positions[0]) == np.arange(-1, count)).all()
    assert np.isfinite(scores[positions >= 0]).all()


def test_the_answers_are_the_same_from_its_file(gallery: Table, tmp_path: Path) -> None:
    index, again = RaBitQIndex(shortlist=200), RaBitQIndex(shortlist=200)
    index.build(gallery)
    index.save(tmp_path / "index")
    again.load(tmp_path / "index")
    expected = index.search(gallery[:20], 10)
    for ours, theirs in zip(again.search(gallery[:20], 10), expected, strict=True):
        assert (ours == theirs).all()
    assert recall(expected[1], stable_sort(gallery, gallery[:20])[1], 10) == 1
    assert again.bytes_per_vector == pytest.approx(4 * DIM + DIM / 8 + 8, abs=0.5)


@pytest.mark.parametrize("kind", CODES)
def test_codes_of_other_sizes_than_they_say_are_refused(
    kind: type[RaBitQCodes], gallery: Table, tmp_path: Path
) -> None:
    """faiss would read beyond what it has: every byte of the sizes is turned, and a file of fewer codes is given."""
    codes, path = kind(), tmp_path / "codes"
    codes.build(gallery)
    codes.save(path)
    good, beside = path.read_bytes(), path.with_name("codes.json")
    # Behind the kind, and the two fields that faiss fills in and does not read: sizes and the mean's length.
    for place in [*range(16), *range(32, 64)]:
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x41]) + good[place + 1 :])
        with pytest.raises(UserError, match="damaged"):
            kind().load(path, mmap=True)
    fewer = kind()
    fewer.build(gallery[:2000])
    fewer.save(tmp_path / "fewer")
    short = (tmp_path / "fewer").read_bytes()
    path.write_bytes(short[:8] + good[8:16] + short[16:])
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"bytes": len(short)}))
    with pytest.raises(UserError, match="damaged"):
        kind().load(path, mmap=True)
