"""Small benchmarks in the official layouts: their images, how these are read, and their figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.benchmarks import layouts
from data.benchmarks.layouts import figures_of, lines, put
from dolglab.data.benchmarks.disc21 import disc21_benchmark
from dolglab.data.benchmarks.holidays import holidays_benchmark
from dolglab.data.benchmarks.ilias import ilias_benchmark
from dolglab.data.benchmarks.instre import instre_benchmark
from dolglab.data.benchmarks.met import met_benchmark
from dolglab.data.benchmarks.places import msls_benchmark, nordland_benchmark, places_benchmark
from dolglab.data.benchmarks.products import products_benchmark
from dolglab.data.datasets import BenchmarkImages


@pytest.mark.parametrize(("variant", "distractors"), [("core", 0), ("mini", 4), ("full", 6)])
def test_ilias_is_read(tmp_path: Path, variant: str, distractors: int) -> None:
    benchmark = ilias_benchmark(layouts.ilias(tmp_path), variant, counts=[5 + distractors, 4])
    assert benchmark.name == f"ilias_{variant}"
    assert (benchmark.num_gallery, len(benchmark.queries)) == (5 + distractors, 4)
    assert [own.tolist() for own in benchmark.ground_truth.easy] == [[0, 1], [0, 1], [2], [3, 4]]
    assert figures_of(benchmark)[0] == {"all": 1.0}


def test_the_groups_of_ilias_equal_its_report(tmp_path: Path) -> None:
    values, figures = figures_of(ilias_benchmark(layouts.ilias(tmp_path), groups=True))
    assert {"product", "art", "product-food", "art-sculpture", "scale 0-0.0688", "clutter 53-inf"} < values.keys()
    # Scales are 0.05, 0.1, ... in the order of the positives.
    counted = {name: int(np.isfinite(figures.evaluation[name]["ap"]).sum()) for name in values if "scale" in name}
    assert list(counted.values()) == [2, 2, 2, 0]
    assert np.isnan(values["scale 0.273-inf"])


def test_missing_distractors_of_ilias_can_be_left_out(tmp_path: Path) -> None:
    root = layouts.ilias(tmp_path)
    next((root / "yfcc100m" / "yfcc100m_0001").iterdir()).unlink()
    whole = ilias_benchmark(root, subset=True, counts=[9, 4])
    assert whole.num_gallery == 8
    assert whole.notes == ("subset: 3 of 4 distractors",)


def test_distractors_of_ilias_are_not_turned(tmp_path: Path) -> None:
    root = layouts.ilias(tmp_path)
    for file in (
        root / "yfcc100m" / "yfcc100m_0000" / "0000000000.jpg",
        root / "ilias_core/ash_bud_000/pos/P000_00.jpg",
    ):
        file.write_bytes(layouts.jpeg(layouts.pattern(0), orientation=6))
    benchmark = ilias_benchmark(root)
    core, distractor = BenchmarkImages(benchmark).__getitems__([0, 5]).images
    assert core.shape[:2] == (40, 32)
    assert distractor.shape[:2] == (32, 40)


def test_places_are_read(tmp_path: Path) -> None:
    root = layouts.places(tmp_path)
    benchmark = places_benchmark(root, "small", counts=[5, 3])
    assert [own.tolist() for own in benchmark.ground_truth.easy] == [[0, 1], [4], []]
    assert figures_of(benchmark)[0] == {f"recall@{k}": pytest.approx(2 / 3) for k in (1, 5, 10, 20)}
    assert "25 m" in benchmark.protocol["measure"]
    # A list replaces the content of the folder.
    names = sorted(path.name for path in (root / "images/test/database").iterdir())
    lines(root / "images/test/database_images_paths.txt", names[1:])
    assert [own.tolist() for own in places_benchmark(root, "small").ground_truth.easy] == [[0], [3], []]


def test_positions_are_read_from_a_table(tmp_path: Path) -> None:
    for side, rows in (("database", ["b.jpg,500000,20", "a.jpg,500000,0"]), ("queries", ["c.jpg,500025,0"])):
        lines(tmp_path / f"{side}.csv", ["image,utm_east,utm_north", *rows])
        for row in rows:
            put(tmp_path / side / row[:5], ord(row[0]) - ord("a"))
    benchmark = places_benchmark(tmp_path, "mine", split=".", positions=True)
    assert benchmark.source.name(0) == "database/a.jpg"
    assert len(benchmark.notes) == len(places_benchmark(tmp_path, "mine", ".", True, counts=[2, None]).notes) + 1
    assert [own.tolist() for own in benchmark.ground_truth.easy] == [[0]]


def test_nordland_is_matched_by_frames(tmp_path: Path) -> None:
    benchmark = nordland_benchmark(layouts.nordland(tmp_path), "nordland_3", every=10, tolerance=1)
    assert [own.tolist() for own in benchmark.ground_truth.easy] == [[0, 1], [9, 10, 11], [19, 20]]
    assert benchmark.source.name(10) == "ref/images-11.jpg"
    assert figures_of(benchmark)[0]["recall@1"] == 1
    strict = nordland_benchmark(tmp_path, "nordland_3", every=10, tolerance=0)
    assert figures_of(strict)[0]["recall@1"] == pytest.approx(1 / 3)


def test_msls_is_read_as_published(tmp_path: Path) -> None:
    """Panoramas, images without a subtask and queries with nothing near are left out."""
    benchmark = msls_benchmark(layouts.msls(tmp_path), "msls_val_2", counts=[6, 2])
    names = [Path(benchmark.source.name(position)).stem for position in range(8)]
    assert names[:6] == [f"{city}database{row}" for city in ("cph", "sf") for row in range(3)]
    assert names[6:] == ["cphquery0", "sfquery0"]
    assert [own.tolist() for own in benchmark.ground_truth.easy] == [[0, 1], [3, 4]]
    values, _ = figures_of(benchmark)
    assert values["recall@1"] == values["mAP@1"] == 1
    assert list(values)[4:] == ["mAP@1", "mAP@5", "mAP@10", "mAP@20"]


def test_queries_of_instre_are_cropped(tmp_path: Path) -> None:
    benchmark = instre_benchmark(layouts.instre(tmp_path), counts=[6, 3])
    assert benchmark.boxes.tolist() == [[60, 32, 100, 64]] * 3
    assert [own.tolist() for own in benchmark.ground_truth.easy] == [[0, 1], [2, 3], [4, 5]]
    assert figures_of(benchmark)[0] == dict.fromkeys(("all", "INSTRE-S1", "INSTRE-S2", "INSTRE-M"), 1.0)
    whole = instre_benchmark(tmp_path, crop="none")
    assert whole.name == "instre_uncropped"
    assert figures_of(whole)[0]["all"] < 0.8


def test_holidays_are_turned_in_three_ways(tmp_path: Path) -> None:
    root = layouts.holidays(tmp_path)
    figures = {}
    for turned in ("stored", "exif", "upright"):
        benchmark = holidays_benchmark(root, turned, counts=[7, 3])
        assert benchmark.name == f"holidays_{turned}"
        assert [own.tolist() for own in benchmark.ground_truth.easy] == [[1], [3, 4], [6]]
        figures[turned] = figures_of(benchmark)[0]["all"]
    assert figures["upright"] == 1
    assert max(figures["stored"], figures["exif"]) < 1
    assert len({holidays_benchmark(root, turned).digest for turned in figures}) == 3


@pytest.mark.parametrize("variant", ["full", "mini"])
def test_met_is_read(tmp_path: Path, variant: str) -> None:
    root = layouts.met(tmp_path)
    benchmark = met_benchmark(root, variant, counts=[6 if variant == "full" else 4, 4])
    assert len(benchmark.queries) == 6
    values, figures = figures_of(benchmark)
    assert values["ACC"] == pytest.approx(2 / 3)
    assert values["GAP-"] == pytest.approx(2 / 3)
    assert values["GAP"] <= values["GAP-"]
    assert len(figures.answers) == 4
    assert "2 validation photographs" in figures.notes[0]
    alone = met_benchmark(root, variant, neighbours=[1], temperatures=[10.0])
    assert len(alone.queries) == 4
    assert figures_of(alone)[1].notes == ("K 1, temperature 10",)


def test_disc21_is_read(tmp_path: Path) -> None:
    benchmark = disc21_benchmark(layouts.disc21(tmp_path), counts=[4, 3])
    assert [own.tolist() for own in benchmark.ground_truth.easy] == [[0], [2], []]
    assert figures_of(benchmark)[0] == dict.fromkeys(("uAP", "recall@P90", "recall@1", "recall@10"), 1.0)


def test_products_are_read(tmp_path: Path) -> None:
    benchmark = products_benchmark(layouts.products(tmp_path), counts=[6, 6])
    assert [own.tolist() for own in benchmark.ground_truth.easy] == [[1], [0], [3, 4], [2, 4], [2, 3], []]
    assert figures_of(benchmark)[0] == {f"recall@{k}": pytest.approx(5 / 6) for k in (1, 10, 100, 1000)}
