from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dolglab.contracts import Benchmark
from dolglab.data.revisited import load_ground_truth, revisited_benchmark
from dolglab.errors import UserError

SHARED = Path(__file__).resolve().parents[3] / "shared"
REAL = SHARED / "parity" / "revisited"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="../shared/parity/revisited is not here")

Encode = Callable[..., bytes]
Photo = Callable[..., NDArray[np.uint8]]


def entry(**changes: Any) -> dict[str, Any]:
    return {"bbx": [1.5, 2.0, 30.0, 40.0], "easy": [0], "hard": [1], "junk": [2], **changes}


def raw(**changes: Any) -> dict[str, Any]:
    return {"imlist": ["a", "b", "c", "d e"], "qimlist": ["q"], "gnd": [entry()], **changes}


def write(folder: Path, content: Any, name: str = "gnd_test.pkl") -> Path:
    file = folder / name
    file.write_bytes(pickle.dumps(content))
    return file


def write_benchmark(folder: Path, jpeg: bytes, **changes: Any) -> Path:
    content = raw(**changes)
    (folder / "jpg").mkdir()
    for name in (*content["imlist"], *content["qimlist"]):
        (folder / "jpg" / f"{name}.jpg").write_bytes(jpeg)
    write(folder, content)
    return folder


@needs_real
@pytest.mark.parametrize(
    ("name", "gallery", "fractional", "without_easy", "without_junk"),
    [("roxford5k", 4993, 23, [11, 66], 0), ("rparis6k", 6322, 10, [], 5)],
)
def test_the_real_ground_truth_is_read_unchanged(
    name: str, gallery: int, fractional: int, without_easy: list[int], without_junk: int
) -> None:
    file = REAL / f"gnd_{name}.pkl"
    lists = load_ground_truth(file)
    with file.open("rb") as stream:
        plain = pickle.load(stream, encoding="latin1")
    assert list(lists.gallery) == plain["imlist"]
    assert list(lists.queries) == plain["qimlist"]
    assert (len(lists.gallery), len(lists.queries)) == (gallery, 70)
    assert lists.boxes.tolist() == [list(query["bbx"]) for query in plain["gnd"]]
    assert int((lists.boxes % 1).any(1).sum()) == fractional
    truth = lists.ground_truth
    for kind in ("easy", "hard", "junk"):
        for part, query in zip(getattr(truth, kind), plain["gnd"], strict=True):
            assert part.dtype == np.int64
            assert part.tolist() == list(query[kind])
    assert [query for query, part in enumerate(truth.easy) if not len(part)] == without_easy
    assert sum(not len(part) for part in truth.junk) == without_junk


@needs_real
def test_the_small_real_benchmark_is_read_with_its_images() -> None:
    root = SHARED / "data" / "rparis6k-mini"
    if not root.is_dir():
        pytest.skip("../shared/data/rparis6k-mini is not here")
    benchmark = revisited_benchmark(root)
    assert (benchmark.name, benchmark.num_gallery, benchmark.queries.tolist()) == ("rparis6k-mini", 39, [39])
    assert all(benchmark.source.read(row)[:2] == b"\xff\xd8" for row in range(40))


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_with_code_is_refused_and_the_code_not_run(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "ran"
    file = tmp_path / "gnd_evil.pkl"
    file.write_bytes(pickle.dumps(raw(imlist=["a", Malicious(target)]), protocol=protocol))
    with pytest.raises(UserError, match=r"gnd_evil\.pkl .*\(.*system\)") as error:
        load_ground_truth(file)
    assert not target.exists()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("positions", [np.array([0]), [np.int64(0)]])
def test_arrays_in_a_pickle_are_refused_with_the_remedy(tmp_path: Path, positions: Any) -> None:
    with pytest.raises(UserError, match=r"\(numpy.*\.tolist\(\)$"):
        load_ground_truth(write(tmp_path, raw(gnd=[entry(easy=positions)])))


def test_protocol_2_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    file = tmp_path / "gnd_old.pkl"
    file.write_bytes(pickle.dumps(raw(), protocol=2))
    assert load_ground_truth(file).gallery == ("a", "b", "c", "d e")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (raw(gnd=[entry(easy=[4])]), "query 0 .*easy position 4, "),
        (raw(gnd=[entry(junk=[-1])]), "query 0 .*junk position -1, "),
        (raw(gnd=[entry(hard=[0])]), r"query 0 \(q\) "),
        (raw(gnd=[entry(easy=[0, 0])]), r"query 0 \(q\) "),
        (raw(gnd=[entry(easy=[0.5])]), "query 0 .*easy .*float64"),
        (raw(gnd=[entry(easy=[0.0, 3.0])]), "query 0 .*easy .*float64"),
        (raw(gnd=[entry(junk=[True])]), "junk .*bool"),
        (raw(gnd=[entry(junk=None)]), "junk .*object"),
        (raw(gnd=[entry(easy=["a"])]), "easy .*<U1"),
        (raw(gnd=[entry(easy=[2**70])]), "easy .*object"),
        (raw(gnd=[entry(bbx=[1, 2, 3])]), r"\[1, 2, 3\]"),
        (raw(gnd=[entry(bbx=[[1, 2], [3, 4], [5, 6], [7, 8]])]), r"\[\[1, 2\]"),
        (raw(gnd=[entry(bbx="1 2 3 4")]), "1 2 3 4"),
        (raw(gnd=[entry(bbx=[30, 2, 3, 40])]), r"query 0 \(q\) .*30"),
        (raw(gnd=[entry(bbx=[0, 0, float("inf"), 40])]), "inf"),
        (raw(gnd=[entry(bbx=[float("nan"), 0, 30, 40])]), "nan"),
        (raw(gnd=[["easy"]]), r"query 0 \(q\) .*list"),
        (raw(gnd=3), "."),
        (raw(gnd=[]), "4 gallery images, 1 queries, 0 ground truths"),
        (raw(imlist=[], gnd=[entry()]), "0 gallery images"),
        (raw(imlist=["a", "b", "a", "c"]), "imlist .*: a$"),
        (raw(qimlist=["q", "q"], gnd=[entry(), entry()]), "qimlist .*: q$"),
        (raw(imlist=["a", "b", 3, "c"]), "imlist"),
        (raw(qimlist="q"), "qimlist"),
        ({"imlist": ["a"], "gnd": []}, "'qimlist'"),
        (raw(gnd=[{"easy": [], "hard": []}]), "'junk'"),
        (["not", "a", "dict"], "list.* imlist, qimlist and gnd"),
        (3, "int"),
    ],
)
def test_wrong_ground_truth_gives_one_clear_line(tmp_path: Path, content: Any, why: str) -> None:
    file = write(tmp_path, content)
    with pytest.raises(UserError, match=why) as error:
        load_ground_truth(file)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{file} ")


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps(raw())[:40], b"\x80\x09."])
def test_a_file_that_is_not_a_pickle_gives_one_clear_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "gnd_x.pkl").write_bytes(data)
    with pytest.raises(UserError, match=r"gnd_x\.pkl") as error:
        load_ground_truth(tmp_path / "gnd_x.pkl")
    assert "\n" not in str(error.value)


def test_a_missing_ground_truth_file_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gnd_none\.pkl .*benchmark\.ground_truth=FILE"):
        load_ground_truth(tmp_path / "gnd_none.pkl")


def test_a_query_without_a_box_is_not_cropped(tmp_path: Path) -> None:
    without = {key: value for key, value in entry().items() if key != "bbx"}
    assert np.isnan(load_ground_truth(write(tmp_path, raw(gnd=[without]))).boxes).all()


def test_a_benchmark_has_its_queries_after_the_gallery(tmp_path: Path, photo: Photo, encode: Encode) -> None:
    benchmark = revisited_benchmark(write_benchmark(tmp_path, encode(photo(60, 60))), crop="trunc")
    assert (benchmark.name, benchmark.crop, benchmark.num_gallery) == ("test", "trunc", 4)
    assert benchmark.queries.tolist() == [4]
    assert [benchmark.source.name(row) for row in (3, 4)] == ["jpg/d e.jpg", "jpg/q.jpg"]
    assert benchmark.boxes.tolist() == [[1.5, 2.0, 30.0, 40.0]]


def test_the_digest_changes_with_images_and_ground_truth(tmp_path: Path, photo: Photo, encode: Encode) -> None:
    root = write_benchmark(tmp_path, encode(photo(60, 60)))
    first = revisited_benchmark(root).digest
    assert revisited_benchmark(root, crop="none").digest == first
    write(root, raw(gnd=[entry(easy=[0, 3])]))
    second = revisited_benchmark(root).digest
    (root / "jpg" / "a.jpg").write_bytes(encode(photo(61, 60)))
    assert len({first, second, revisited_benchmark(root).digest}) == 3


def without(root: Path, *names: str) -> Path:
    for name in names:
        (root / "jpg" / f"{name}.jpg").unlink()
    return root


def test_missing_images_are_counted_and_the_first_named(tmp_path: Path, photo: Photo, encode: Encode) -> None:
    root = write_benchmark(tmp_path, encode(photo(60, 60)), imlist=list("abcdefg"))
    without(root, *"bcdefg", "q")
    first = r"jpg/b\.jpg, jpg/c\.jpg, jpg/d\.jpg, jpg/e\.jpg, jpg/f\.jpg and 2 more"
    with pytest.raises(UserError, match=rf"^7 of 8 .*: {first} \(subset=true ") as error:
        revisited_benchmark(root)
    assert "\n" not in str(error.value)


def test_a_subset_contains_existing_images(tmp_path: Path, photo: Photo, encode: Encode) -> None:
    """Compared by names: each list of each query has the same images, without the missing ones."""
    rng = np.random.default_rng(3)
    gallery, queries = [f"g{i}" for i in range(30)], [f"q{i}" for i in range(6)]
    shuffled = [rng.permutation(30)[:20].tolist() for _ in queries]
    truth = [entry(bbx=[i, 0, 9, 9], easy=rows[:6], hard=rows[6:13], junk=rows[13:]) for i, rows in enumerate(shuffled)]
    root = write_benchmark(tmp_path, encode(photo(60, 60)), imlist=gallery, qimlist=queries, gnd=truth)
    gone = {f"g{i}" for i in rng.permutation(30)[:17]} | {"q0", "q4"}
    without(root, *gone)
    benchmark = revisited_benchmark(root, subset=True)
    left = [Path(benchmark.source.name(row)).stem for row in range(len(benchmark.source))]
    assert left == [name for name in gallery + queries if name not in gone]
    assert (benchmark.num_gallery, benchmark.queries.tolist()) == (13, [13, 14, 15, 16])
    assert benchmark.boxes[:, 0].tolist() == [1, 2, 3, 5]
    for kind in ("easy", "hard", "junk"):
        for part, query in zip(getattr(benchmark.ground_truth, kind), (1, 2, 3, 5), strict=True):
            assert part.dtype == np.int64
            named = [gallery[row] for row in truth[query][kind]]
            assert [left[row] for row in part] == [name for name in named if name not in gone]
    assert benchmark.notes == ("subset: 13 of 30 gallery images, 4 of 6 queries",)
    assert benchmark.digest == digest_of_parts(benchmark)


def digest_of_parts(benchmark: Benchmark) -> str:
    """The digest of the first version: of the evaluated images, whatever was listed."""
    truth, source = benchmark.ground_truth, benchmark.source
    rows = range(len(source))
    lists = [[part.tolist() for part in kind] for kind in (truth.easy, truth.hard, truth.junk)]
    text = json.dumps([[source.name(row) for row in rows], [source.size(row) for row in rows], lists])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_complete_subset_equals_the_benchmark(tmp_path: Path, photo: Photo, encode: Encode) -> None:
    root = write_benchmark(tmp_path, encode(photo(60, 60)))
    whole, subset = revisited_benchmark(root), revisited_benchmark(root, subset=True)
    assert (whole.notes, subset.notes) == ((), ())
    assert whole.digest == subset.digest == digest_of_parts(whole)


def test_a_query_without_positives_stays_and_one_without_its_photo_is_removed(
    tmp_path: Path, photo: Photo, encode: Encode
) -> None:
    truth = [entry(easy=[0], hard=[]), entry(easy=[1], hard=[2], junk=[]), entry()]
    root = write_benchmark(tmp_path, encode(photo(60, 60)), qimlist=["p", "q", "r"], gnd=truth)
    without(root, "a", "r")
    benchmark = revisited_benchmark(root, subset=True)
    assert benchmark.notes == ("subset: 3 of 4 gallery images, 2 of 3 queries",)
    assert [part.tolist() for part in benchmark.ground_truth.easy] == [[], [0]]
    assert [part.tolist() for part in benchmark.ground_truth.hard] == [[], [1]]


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        (["q"], "4 of 4 gallery images, 0 of 1 queries"),
        (["a", "b", "c", "d e"], "0 of 4 gallery images, 1 of 1 queries"),
        (["a", "b"], "2 of 4 gallery images, 1 of 1 queries"),
    ],
)
def test_a_subset_without_positives_is_refused(
    tmp_path: Path, photo: Photo, encode: Encode, gone: list[str], left: str
) -> None:
    root = without(write_benchmark(tmp_path, encode(photo(60, 60))), *gone)
    with pytest.raises(UserError, match=rf"gnd_test\.pkl .* {left}$"):
        revisited_benchmark(root, subset=True)


def test_subset_must_be_true_or_false(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"subset .*no$"):
        revisited_benchmark(tmp_path, subset="no")  # pyright: ignore[reportArgumentType]


def test_queries_in_the_gallery_are_noted_unless_they_are_junk(tmp_path: Path, photo: Photo, encode: Encode) -> None:
    truth = [entry(easy=[1], hard=[], junk=[]), entry(easy=[0], hard=[3], junk=[1]), entry()]
    root = write_benchmark(tmp_path, encode(photo(60, 60)), qimlist=["a", "b", "q"], gnd=truth)
    noted = "1 of 3 queries are in the gallery, not marked as their own junk"
    assert revisited_benchmark(root).notes == (noted,)


@needs_real
def test_a_few_photos_of_the_real_benchmark_are_a_subset(shared_data: Path) -> None:
    """The small benchmark, a part of the large one made by others, has the same photos and lists."""
    small = revisited_benchmark(shared_data / "rparis6k-mini")
    subset = revisited_benchmark(shared_data / "rparis6k-mini", REAL / "gnd_rparis6k.pkl", crop="trunc", subset=True)
    assert subset.notes == ("subset: 39 of 6,322 gallery images, 1 of 70 queries",)
    assert (subset.name, subset.boxes.tolist()) == ("rparis6k", small.boxes.tolist())
    names = [[one.source.name(row) for row in range(40)] for one in (small, subset)]
    assert sorted(names[0]) == sorted(names[1])
    for kind in ("easy", "hard", "junk"):
        parts = [getattr(one.ground_truth, kind)[0] for one in (small, subset)]
        assert {names[0][row] for row in parts[0]} == {names[1][row] for row in parts[1]}


def test_a_folder_with_none_or_two_ground_truths_is_refused(tmp_path: Path, photo: Photo, encode: Encode) -> None:
    root = write_benchmark(tmp_path, encode(photo(60, 60)))
    other = write(root, raw(), "gnd_other.pkl")
    with pytest.raises(UserError, match=r"2 files gnd_\*\.pkl .*benchmark\.ground_truth=FILE"):
        revisited_benchmark(root)
    assert revisited_benchmark(root, ground_truth=other).name == "other"
    for file in root.glob("*.pkl"):
        file.unlink()
    with pytest.raises(UserError, match=r"no gnd_\*\.pkl in"):
        revisited_benchmark(root)


def test_a_missing_folder_and_an_unknown_crop_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none .*benchmark\.root"):
        revisited_benchmark(tmp_path / "none")
    with pytest.raises(UserError, match=r"crop .*pil, trunc, none.* round"):
        revisited_benchmark(tmp_path, crop="round")  # pyright: ignore[reportArgumentType]
