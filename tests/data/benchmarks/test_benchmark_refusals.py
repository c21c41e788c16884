"""Errors in a benchmark's files give one line with the file and what to do."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.benchmarks import layouts
from data.benchmarks.layouts import lines, put
from dolglab.contracts import Benchmark
from dolglab.data.benchmarks.disc21 import disc21_benchmark
from dolglab.data.benchmarks.holidays import holidays_benchmark
from dolglab.data.benchmarks.ilias import ilias_benchmark
from dolglab.data.benchmarks.instre import instre_benchmark
from dolglab.data.benchmarks.met import met_benchmark
from dolglab.data.benchmarks.places import msls_benchmark, nordland_benchmark, places_benchmark
from dolglab.data.benchmarks.products import products_benchmark
from dolglab.errors import UserError


def nordland(root: Path, **options: Any) -> Benchmark:
    return nordland_benchmark(root, "nordland", **{"every": 10, "tolerance": 1, **options})


def places(root: Path, **options: Any) -> Benchmark:
    return places_benchmark(root, "places", **options)


def msls(root: Path, **options: Any) -> Benchmark:
    return msls_benchmark(root, "msls", **options)


MADE: dict[str, tuple[Callable[[Path], Path], Callable[..., Benchmark]]] = {
    "ilias": (layouts.ilias, ilias_benchmark),
    "places": (layouts.places, places),
    "nordland": (layouts.nordland, nordland),
    "msls": (layouts.msls, msls),
    "instre": (layouts.instre, instre_benchmark),
    "holidays": (layouts.holidays, holidays_benchmark),
    "met": (layouts.met, met_benchmark),
    "disc21": (layouts.disc21, disc21_benchmark),
    "products": (layouts.products, products_benchmark),
}
# For each benchmark, a file in its list.
IMAGES = {
    "ilias": "ilias_core/ash_bud_000/pos/P000_00.jpg",
    "msls": "train_val/cph/query/images/cphquery0.jpg",
    "instre": "INSTRE-M/02_x/1.jpg",
    "holidays": "jpg/100001.jpg",
    "met": "images/test_other/2.jpg",
    "disc21": "images/references/R000001.jpg",
    "products": "chair_final/3.JPG",
}


def refusal(make: Callable[..., Benchmark], root: Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        make(root, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", MADE)
def test_unexpected_numbers_of_images_are_refused(name: str, tmp_path: Path) -> None:
    write, make = MADE[name]
    message = refusal(make, write(tmp_path), counts=[10_000, 6816])
    assert "10,000 and 6,816" in message
    assert "another version" in message


@pytest.mark.parametrize("name", MADE)
def test_missing_data_names_its_source(name: str, tmp_path: Path) -> None:
    message = refusal(MADE[name][1], tmp_path / "none")
    assert "none" in message
    assert "task=" in message or "docs/benchmarks.md" in message


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_that_is_missing_is_named(name: str, tmp_path: Path) -> None:
    write, make = MADE[name]
    root = write(tmp_path)
    (root / IMAGES[name]).unlink()
    message = refusal(make, root)
    assert message.startswith("1 of ")
    assert Path(IMAGES[name]).name in message


@pytest.mark.parametrize(
    ("name", "file", "row"),
    [
        ("ilias", "image_ids/positive_ids.txt", "ash_bud_000/pos/P000_00.jpg,0.5,3"),
        ("ilias", "image_ids/image_query_ids.txt", "ash_bud_000/query/Q000_00.jpg,0.5"),
        ("holidays", "holidays_images.dat", "100001.jpg"),
        ("disc21", "list_files/subset_1_references", "R000001"),
        ("products", "Ebay_test.txt", "7 101 1 chair_final/3.JPG"),
    ],
)
def test_an_image_that_is_listed_twice_is_named(name: str, file: str, row: str, tmp_path: Path) -> None:
    write, make = MADE[name]
    path = write(tmp_path) / file
    path.write_text(path.read_text() + row + "\n")
    message = refusal(make, tmp_path)
    assert "more than once" in message
    assert row.split(",")[0].split()[-1].split("/")[-1] in message


@pytest.mark.parametrize(
    ("name", "file", "text", "said"),
    [
        ("ilias", "image_ids/positive_ids.txt", "ash_bud_000/pos/P000_00.jpg\n", "not id,scale,clutter"),
        ("ilias", "image_ids/positive_ids.txt", "ash_bud_000/pos/P000_00.jpg,a,3\n", "'a' is not a number"),
        ("ilias", "image_ids/mini_ilias_yfcc100m_ids.txt", "0000000000\nelsewhere\n", "1 of the 2 images"),
        ("ilias", "image_ids/image_query_ids.txt", "gum_hop_009/query/Q009_00.jpg,1\n", "images are not in"),
        ("holidays", "holidays_images.dat", "ukbench00001.jpg\n", "another data set"),
        ("holidays", "holidays_images.dat", "100000.jpg\n100100.jpg\n100101.jpg\n", "without another photograph"),
        ("holidays", "holidays-rotate.yaml", "100101.jpg: 45\n", "not a list of NAME"),
        ("holidays", "holidays-rotate.yaml", "999901.jpg: 90\n", "versions differ"),
        ("met", "ground_truth/testset.json", '{"path": 1}', "not a list of photographs"),
        ("met", "ground_truth/MET_database.json", '[{"path": "MET/70/0.jpg"}]', "has no id"),
        ("met", "ground_truth/MET_database.json", '[{"id": "x", "path": "MET/70/0.jpg"}]', "not a whole number"),
        ("met", "ground_truth/MET_database.json", "[", "not JSON"),
        ("met", "ground_truth/testset.json", '[{"path": "test_met/0.jpg"}]', "no test photograph"),
        ("met", "ground_truth/valset.json", '[{"path": "test_met/4.jpg"}]', "no validation photograph"),
        ("disc21", "list_files/subset_1_ground_truth.csv", "query,reference\n", "needs the columns"),
        ("disc21", "list_files/subset_1_ground_truth.csv", "query_id,reference_id\nQ00000,R9\n", "different versions"),
        ("products", "Ebay_test.txt", "image_id class_id path\n1 2 a.JPG\n", "needs the columns"),
        ("products", "Ebay_test.txt", "image_id class_id super_class_id path\n1 2\n", "line 2"),
        ("msls", "train_val/sf/query/raw.csv", ",key,pano\n0,other,False\n", "different versions"),
        ("msls", "train_val/sf/query/subtask_index.csv", ",key,s2w\n0,sfquery0,True\n", "needs the columns"),
        ("instre", "gnd_instre.mat", "no MATLAB", "not a MATLAB file"),
        ("ilias", "taxonomy.json", "[]", "not a taxonomy"),
        ("ilias", "taxonomy.json", json.dumps({"a": {"b": {"c": ["ash_bud_000"]}}}), "does not have cat_dew_001"),
    ],
)
def test_a_list_of_another_format_is_named(name: str, file: str, text: str, said: str, tmp_path: Path) -> None:
    write, make = MADE[name]
    (write(tmp_path) / file).write_text(text)
    message = refusal(make, tmp_path, **({"groups": True} if file == "taxonomy.json" else {}))
    assert said in message


def test_invalid_ids_of_distractors_are_named(tmp_path: Path) -> None:
    path = layouts.ilias(tmp_path) / "image_ids" / "distractor_ids.txt.gz"
    path.write_bytes(gzip.compress(b"00a06beb2c\n"))
    assert "SHARD.tar/KEY" in refusal(ilias_benchmark, tmp_path, variant="full")
    path.write_bytes(path.read_bytes()[:-9])
    assert "cannot be read" in refusal(ilias_benchmark, tmp_path)


def test_boxes_of_instre_given_as_widths_are_refused(tmp_path: Path) -> None:
    assert "not x1 y1 x2 y2" in refusal(instre_benchmark, layouts.instre(tmp_path, form="sizes"))


@pytest.mark.parametrize("heading", ["image,x,y", "image,lat,lon", "image,easting,northing"])
def test_positions_without_a_datum_are_refused(heading: str, tmp_path: Path) -> None:
    lines(tmp_path / "database.csv", [heading, "a.jpg,1,2"])
    message = refusal(places, tmp_path, split=".", positions=True)
    assert heading in message
    assert "utm_east" in message


def test_names_without_positions_are_refused(tmp_path: Path) -> None:
    put(layouts.places(tmp_path) / "images" / "test" / "database" / "000001.jpg", 0)
    message = refusal(places, tmp_path)
    assert "database/000001.jpg" in message
    assert "positions=true" in message


def test_repeated_and_wrong_names_in_a_list_of_places_are_refused(tmp_path: Path) -> None:
    root = layouts.places(tmp_path)
    listed = root / "images" / "test" / "queries_images_paths.txt"
    name = "@0500001.00@4000000.00@10@S@@@@@@@@@@@.jpg"
    lines(listed, [name, name])
    assert "more than once" in refusal(places, root)
    lines(listed, [name, name.replace("1.00", "9.00")])
    assert refusal(places, root).startswith("1 of ")


def test_more_queries_than_frames_are_refused(tmp_path: Path) -> None:
    assert "another variant" in refusal(nordland, layouts.nordland(tmp_path), every=20)


def test_a_benchmark_without_positives_is_refused(tmp_path: Path) -> None:
    assert "no query has a positive" in refusal(places, layouts.places(tmp_path), radius=0.5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ilias", {"variant": "maxi"}),
        ("holidays", {"turned": "left"}),
        ("instre", {"crop": "box"}),
        ("met", {"variant": "maxi"}),
        ("met", {"neighbours": []}),
        ("met", {"temperatures": [0.0]}),
        ("places", {"radius": 0}),
        ("nordland", {"every": 0}),
        ("nordland", {"tolerance": -1}),
        ("products", {"counts": [1]}),
    ],
)
def test_invalid_options_are_refused(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    write, make = MADE[name]
    assert f"benchmark.{next(iter(options))}" in refusal(make, write(tmp_path), **options)
