"""GLDv2's official tasks, read from lists and solutions in the published format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dolglab.contracts import Benchmark
from dolglab.data.gldv2_benchmarks import gldv2_recognition, gldv2_retrieval
from dolglab.data.preparation.pack import pack_gldv2
from dolglab.errors import UserError

INDEX = [f"{number:016x}" for number in (0xA0 << 56, 0xB1 << 56, 0xC2 << 56, 0xD3 << 56)]
TEST = [f"{number:016x}" for number in (5, 9, 0x77 << 50, 0xFF << 56)]


def store(root: Path, split: str, ids: list[str]) -> None:
    for name in ids:
        file = root / split / name[0] / name[1] / name[2] / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())


@pytest.fixture
def published(gldv2: Path) -> Path:
    """Training images of landmarks 7, 30 and 200, four index images, four test images, and both solutions."""
    store(gldv2, "index", INDEX)
    store(gldv2, "test", TEST)
    (gldv2 / "index.csv").write_text("id\n" + "".join(f"{name}\n" for name in reversed(INDEX)))
    (gldv2 / "retrieval_solution_v2.1.csv").write_text(
        "id,images,Usage\n"
        f"{TEST[2]},{INDEX[3]} {INDEX[0]},Private\n"
        f"{TEST[0]},None,Ignored\n"
        f"{TEST[1]},{INDEX[1]},Public\n"
    )
    (gldv2 / "recognition_solution_v2.1.csv").write_text(
        "id,landmarks,Usage\n"
        f"{TEST[0]},,Public\n{TEST[1]},30 9999,Public\n{TEST[3]},7 200,Private\n{TEST[2]},,Ignored\n"
    )
    return gldv2


def test_retrieval_has_the_index_as_gallery_and_counted_test_images_as_queries(published: Path) -> None:
    benchmark = gldv2_retrieval(published)
    names = [Path(benchmark.source.name(position)).stem for position in range(len(benchmark.source))]
    assert names == [*INDEX, TEST[1], TEST[2]]
    assert [benchmark.source.read(position).decode() for position in range(6)] == names
    assert benchmark.source.size(5) == 16
    assert benchmark.num_gallery == 4
    assert benchmark.queries.tolist() == [4, 5]
    assert benchmark.measure.usages.tolist() == ["public", "private"]
    assert [part.tolist() for part in benchmark.ground_truth.easy] == [[1], [0, 3]]
    assert benchmark.difficulties == ("public", "private")
    assert benchmark.measure.name == "mAP@100"


def test_a_submission_may_include_ignored_queries(published: Path) -> None:
    benchmark = gldv2_retrieval(published, ignored=True)
    assert benchmark.measure.usages.tolist() == ["ignored", "public", "private"]
    assert benchmark.difficulties == ("public", "private")
    assert benchmark.digest != gldv2_retrieval(published).digest


def test_recognition_has_the_training_images_with_their_landmarks_as_gallery(published: Path) -> None:
    benchmark = gldv2_recognition(published, neighbours=3)
    assert benchmark.gallery_is_training
    assert benchmark.num_gallery == len(benchmark.measure.landmarks) == 30
    assert np.bincount(benchmark.measure.landmarks)[[7, 30, 200]].tolist() == [10, 10, 10]
    assert benchmark.measure.usages.tolist() == ["public", "public", "private"]
    assert benchmark.measure.shown == (frozenset(), frozenset({30, 9999}), frozenset({7, 200}))
    positives = [sorted(set(benchmark.measure.landmarks[part].tolist())) for part in benchmark.ground_truth.easy]
    assert positives == [[], [30], [7, 200]]
    assert benchmark.measure.name == "GAP"
    assert benchmark.measure.depth == 3


def test_errors_in_the_lists_are_reported(published: Path) -> None:
    retrieval, recognition = (published / f"{task}_solution_v2.1.csv" for task in ("retrieval", "recognition"))
    whole = retrieval.read_text()
    for text, message in [
        (whole.replace(INDEX[1], "0" * 16), "0000000000000000"),
        (whole.replace(INDEX[1], "None"), TEST[1]),
        (whole.replace(INDEX[1], "nonsense"), "'nonsense'"),
        (whole.replace(TEST[1], "123"), "'123'"),
        ("id,images,Usage\n" + f"{TEST[0]},None,Ignored\n", "no Public or Private query"),
    ]:
        retrieval.write_text(text)
        with pytest.raises(UserError, match=message):
            gldv2_retrieval(published)
    with pytest.raises(UserError, match=r"benchmark\.neighbours.* 0"):
        gldv2_recognition(published, neighbours=0)
    for path, call in [(retrieval, gldv2_retrieval), (recognition, gldv2_recognition)]:
        path.unlink()
        with pytest.raises(UserError, match=r"solution_v2\.1\.csv .*split=test"):
            call(published)


def test_late_failures_are_refused_in_advance(published: Path) -> None:
    for build in (gldv2_retrieval, gldv2_recognition):
        with pytest.raises(UserError, match=r"benchmark\.source=packed"):
            build(published, source="packed") if build is gldv2_retrieval else _packed_recognition(published)
    solution = published / "recognition_solution_v2.1.csv"
    solution.write_text(solution.read_text().replace("7 200", ""))
    with pytest.raises(UserError, match="private"):
        gldv2_recognition(published)
    solution.write_text(f"id,landmarks,Usage\n{TEST[0]},7,Ignored\n")
    with pytest.raises(UserError, match="no Public or Private query"):
        gldv2_recognition(published, ignored=True)


def _packed_recognition(root: Path) -> Benchmark:
    pack_gldv2(root, workers=1)
    return gldv2_recognition(root, source="packed")


def test_the_digest_covers_answers_that_the_gallery_does_not_show(published: Path) -> None:
    before = gldv2_recognition(published).digest
    solution = published / "recognition_solution_v2.1.csv"
    solution.write_text(solution.read_text().replace("30 9999", "30 9998"))
    assert gldv2_recognition(published).digest != before
