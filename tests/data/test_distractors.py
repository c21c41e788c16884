from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dolglab.contracts import Benchmark
from dolglab.data.revisited import load_distractors, read_list, revisited_benchmark
from dolglab.data.sources import STAT_BATCH, encode_names, file_sizes
from dolglab.errors import UserError

NAMES = ["1/b.jpg", "0/ü.png", "1/a.JPG"]
# The note of a benchmark with that many distractors, since it is not the published list.
SHORT = "a list of 3 distractors, not the published one"


def write_distractors(root: Path, names: list[str] = NAMES) -> Path:
    """The bytes of each image are its name."""
    for name in names:
        (root / "jpg" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "jpg" / name).write_text(name)
    (root / "revisitop1m.txt").write_text("".join(f"{name}\n" for name in names))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A gallery of three images and two queries; the bytes of each image are its name."""
    truth = [{"bbx": [0, 0, 9, 9], "easy": [2], "hard": [0], "junk": []}, {"easy": [1], "hard": [], "junk": [0]}]
    folder = tmp_path / "small"
    (folder / "jpg").mkdir(parents=True)
    for name in ("a", "b", "c", "p", "q"):
        (folder / "jpg" / f"{name}.jpg").write_text(name)
    content = {"imlist": ["a", "b", "c"], "qimlist": ["p", "q"], "gnd": truth}
    (folder / "gnd_small.pkl").write_bytes(pickle.dumps(content))
    return folder


def contents(benchmark: Benchmark) -> list[str]:
    return [benchmark.source.read(row).decode() for row in range(len(benchmark.source))]


def test_distractors_are_between_gallery_and_queries(root: Path, tmp_path: Path) -> None:
    plain = revisited_benchmark(root)
    benchmark = revisited_benchmark(root, distractors=write_distractors(tmp_path / "further"))
    assert contents(benchmark) == ["a", "b", "c", *NAMES, "p", "q"]
    assert (benchmark.num_gallery, benchmark.queries.tolist()) == (6, [6, 7])
    names = [benchmark.source.name(row) for row in range(8)]
    assert names[2:5] == ["jpg/c.jpg", "further/jpg/1/b.jpg", "further/jpg/0/ü.png"]
    assert names[7] == "jpg/q.jpg"
    np.testing.assert_array_equal(benchmark.boxes, plain.boxes)
    assert benchmark.ground_truth is not plain.ground_truth
    for kind in ("easy", "hard", "junk"):
        before, after = ([part.tolist() for part in getattr(one.ground_truth, kind)] for one in (plain, benchmark))
        assert before == after
    assert (plain.notes, benchmark.notes) == ((), (SHORT,))


def test_a_distractor_may_have_the_name_of_a_gallery_image(root: Path, tmp_path: Path) -> None:
    benchmark = revisited_benchmark(root, distractors=write_distractors(tmp_path / "others", ["a.jpg", "q.jpg"]))
    names = [benchmark.source.name(row) for row in range(7)]
    assert len(set(names)) == 7
    assert contents(benchmark) == ["a", "b", "c", "a.jpg", "q.jpg", "p", "q"]


def test_the_benchmarks_name_has_the_number_or_1m_for_the_published_list(root: Path, tmp_path: Path) -> None:
    others = write_distractors(tmp_path / "others")
    assert revisited_benchmark(root, distractors=others).name == "small+3"
    assert revisited_benchmark(root, name="mine", distractors=others).name == "mine"
    published = replace(load_distractors(others), listed=1_001_001)
    assert (published.published, published.suffix) == (True, "+1M")


def test_the_digest_depends_on_both_sets_and_not_on_their_place(root: Path, tmp_path: Path) -> None:
    others = write_distractors(tmp_path / "others")
    digests = [revisited_benchmark(root).digest, revisited_benchmark(root, distractors=others).digest]
    assert revisited_benchmark(root, distractors=others.rename(tmp_path / "moved")).digest == digests[1]
    (tmp_path / "moved/jpg/1/b.jpg").write_text("longer")
    digests.append(revisited_benchmark(root, distractors=tmp_path / "moved").digest)
    write_distractors(tmp_path / "moved", NAMES[::-1])
    digests.append(revisited_benchmark(root, distractors=tmp_path / "moved").digest)
    (root / "jpg/a.jpg").write_text("another")
    digests.append(revisited_benchmark(root, distractors=tmp_path / "moved").digest)
    assert len(set(digests)) == 5


def test_missing_distractors_are_counted_and_named_or_left_out(root: Path, tmp_path: Path) -> None:
    others = write_distractors(tmp_path / "others")
    for name in NAMES[:2]:
        (others / "jpg" / name).unlink()
    with pytest.raises(UserError, match=r"2 of 3 .*others/jpg: 1/b\.jpg, 0/ü\.png .*task=revisitop1m.*subset=true"):
        revisited_benchmark(root, distractors=others)
    benchmark = revisited_benchmark(root, distractors=others, subset=True)
    assert contents(benchmark) == ["a", "b", "c", "1/a.JPG", "p", "q"]
    subset = "subset: 3 of 3 gallery images, 1 of 3 distractors, 2 of 2 queries"
    assert benchmark.notes == (subset, SHORT)


def test_a_subset_without_distractors_is_noted(root: Path, tmp_path: Path) -> None:
    others = write_distractors(tmp_path / "others")
    for name in NAMES:
        (others / "jpg" / name).unlink()
    benchmark = revisited_benchmark(root, distractors=others, subset=True)
    assert contents(benchmark) == ["a", "b", "c", "p", "q"]
    assert benchmark.name == "small+3"
    assert benchmark.notes[0] == "subset: 3 of 3 gallery images, 0 of 3 distractors, 2 of 2 queries"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, r"revisitop1m\.txt \(No such file .*task=revisitop1m"),
        ("", r"revisitop1m\.txt .*task=revisitop1m root="),
        (" \n\n", r"revisitop1m\.txt "),
        ("a.jpg\nb.jpg\na.jpg\nb.jpg\nc.jpg\n", r"revisitop1m\.txt .*: a\.jpg, b\.jpg$"),
    ],
)
def test_a_wrong_list_gives_one_clear_line(tmp_path: Path, text: str | None, why: str) -> None:
    if text is not None:
        (tmp_path / "revisitop1m.txt").write_text(text)
    with pytest.raises(UserError, match=why) as error:
        load_distractors(tmp_path)
    assert "\n" not in str(error.value)


def test_lists_from_any_system_are_read(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(
        "1/a.jpg\r\n\r\n  2/été à.jpg \r\n3/\udcff.jpg".encode(errors="surrogateescape")
    )
    names = read_list(tmp_path / "list.txt", "")
    assert names.dtype.kind == "S"
    assert names.tolist() == [b"1/a.jpg", "2/été à.jpg".encode(), b"3/\xff.jpg"]


def test_sizes_of_many_files_are_in_order(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(2 * STAT_BATCH + 5)]
    sizes = np.full(len(names), -1)
    for number in range(0, len(names), 997):
        (tmp_path / names[number]).write_bytes(b"x" * (number % 71))
        sizes[number] = number % 71
    np.testing.assert_array_equal(file_sizes(tmp_path, encode_names(names)), sizes)
    assert file_sizes(tmp_path, encode_names([])).tolist() == []
