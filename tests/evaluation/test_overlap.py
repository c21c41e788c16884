"""The audit's parts compared with plain loops, its lists read by the training, and its sheets inspected."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from dolglab.commands.build_evaluation import network
from dolglab.contracts import Benchmark, GroundTruth, LocalFeatures, TrainingSet
from dolglab.data.folder import folder_benchmark
from dolglab.data.gldv2 import select
from dolglab.data.sources import GLDv2Source
from dolglab.errors import UserError
from dolglab.evaluation.evaluator import make_feature_extractor
from dolglab.evaluation.overlap import (
    Pairs,
    Rule,
    as_benchmark,
    find_overlap,
    nearest_pairs,
    probes_of,
    training_images,
    verify_pairs,
)
from dolglab.evaluation.overlap_files import (
    COLUMNS,
    ROWS,
    ROWS_PER_LANDMARK,
    SIDE,
    Audit,
    Overlap,
    best_per_image,
    contact_sheets,
    image_list,
    landmark_list,
    overlap_table,
    sheet_rows,
    write_audit,
)
from dolglab.extraction.rootsift import RootSIFT
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import GlobalDescriptor
from dolglab.results.pictures import COLOURS
from dolglab.retrieval.rerank.spatial import Spatial

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture(scope="module")
def benchmark(photos: Path) -> Benchmark:
    """Five photos as gallery, and two queries, one of which is cropped."""
    found = folder_benchmark(photos)
    truth = GroundTruth(
        easy=(np.array([3]), np.array([0, 3])), hard=(np.array([1]), np.empty(0, np.int64)), junk=(np.array([4]),) * 2
    )
    boxes = np.array([[5.0, 5.0, 40.0, 30.0], [np.nan] * 4])
    return replace(
        found, name="bench", num_gallery=5, queries=np.array([5, 6]), boxes=boxes, ground_truth=truth, crop="pil"
    )


@pytest.fixture(scope="module")
def training(photos: Path) -> TrainingSet:
    return training_images(photos, None)


def audit_of(training: TrainingSet, benchmark: Benchmark, *overlaps: tuple[int, int, int], images: int = 1) -> Audit:
    """An audit of (probe, image, inliers)."""
    found = tuple(Overlap(0, probe, image, 0.5, inliers) for probe, image, inliers in overlaps)
    return Audit(training, as_benchmark(training), (benchmark,), found, images)


def as_gldv2(training: TrainingSet) -> TrainingSet:
    """The same, as if it had come from GLDv2: landmarks are numbers, images have ids of 16 digits."""
    source = GLDv2Source("nowhere", "train", training.ids)
    return replace(training, source=source, classes=np.arange(100, 100 + len(training.classes)).astype(np.str_))


def test_probes_are_queries_and_positives_without_junk(benchmark: Benchmark) -> None:
    assert probes_of(benchmark, ["queries", "positives"]).tolist() == [0, 1, 3, 5, 6]
    assert probes_of(benchmark, ["queries"]).tolist() == [5, 6]
    assert probes_of(benchmark, ["positives"]).tolist() == [0, 1, 3]
    # If the gallery is the training set, the positives are training images.
    assert probes_of(replace(benchmark, gallery_is_training=True), ["queries", "positives"]).tolist() == [5, 6]


def test_a_folder_is_a_training_set_of_its_sub_folders(photos: Path, training: TrainingSet) -> None:
    files = sorted(file.relative_to(photos).as_posix() for file in photos.glob("*/*"))
    assert [training.source.name(row) for row in range(len(training))] == files
    assert [str(training.classes[label]) for label in training.labels] == [name.split("/")[0] for name in files]


def test_the_training_digest_covers_ids_and_sizes(training: TrainingSet) -> None:
    plain = as_benchmark(training).digest
    other = replace(training, ids=training.ids + np.uint64(1))
    relabelled = replace(training, labels=training.labels[::-1].copy())

    class Longer:
        def __len__(self) -> int:
            return len(training)

        def name(self, position: int) -> str:
            return training.source.name(position)

        def size(self, position: int) -> int:
            return training.source.size(position) + (position == 7)

        def read(self, position: int) -> bytes:
            return training.source.read(position)

    assert as_benchmark(other).digest != plain
    assert as_benchmark(replace(training, source=Longer())).digest != plain
    assert as_benchmark(relabelled).digest == plain
    assert len(as_benchmark(training).queries) == 0


def test_candidates_are_the_nearest_above_the_threshold() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((50, 8)).astype(np.float32)
    rows[[3, 31]] = rows[7]  # ties
    gallery = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    queries, probes = gallery[[7, 20, 40]], np.array([70, 2, 9])
    known = rng.random(50) > 0.2
    known[[3, 7, 31]] = True
    rule = Rule(candidates=6, threshold=0.3)
    expected = []
    for probe, query in zip(probes.tolist(), queries, strict=True):
        cosines = gallery.astype(np.float64) @ query.astype(np.float64)
        order = [i for i in np.argsort(-cosines.round(6), kind="stable").tolist() if known[i]]
        expected += [(probe, i, cosines[i]) for i in order[:6] if cosines[i] >= 0.3]
    found = nearest_pairs(gallery, known, queries, probes, rule)
    assert list(zip(found.probes.tolist(), found.images.tolist(), strict=True)) == [row[:2] for row in expected]
    assert found.images[:3].tolist() == [3, 7, 31]
    np.testing.assert_allclose(found.cosines, [row[2] for row in expected], atol=1e-6)
    assert len(nearest_pairs(gallery, known & False, queries, probes, rule).probes) == 0
    assert len(nearest_pairs(gallery, known, queries[:0], probes[:0], rule).probes) == 0


def local(points: np.ndarray, descriptors: np.ndarray) -> LocalFeatures:
    ones = np.ones(len(points), np.float32)
    return LocalFeatures(points.astype(np.float32), ones, ones, descriptors.astype(np.float16), (100, 100))


def test_overlaps_are_pairs_with_enough_matches_on_one_geometry() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, 32))
    descriptors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    points = rng.uniform(0, 100, (40, 2))
    moved = points @ np.array([[0.8, 0.3], [-0.3, 0.8]]) + 20
    scattered = rng.uniform(0, 100, (40, 2))
    images = {
        1: local(moved, descriptors),
        2: local(np.where(np.arange(40)[:, None] < 25, moved, scattered), descriptors),
        3: local(scattered, descriptors),
        4: local(np.empty((0, 2)), np.empty((0, 32))),
    }
    pairs = Pairs(np.full(4, 9), np.array([4, 3, 2, 1]), np.array([0.9, 0.8, 0.7, 0.6], np.float32))
    spatial = Spatial(kind="affine", residual=1.0, ratio=0.9)
    probe = {9: local(points, descriptors)}
    found = verify_pairs(pairs, probe.__getitem__, images.__getitem__, spatial, 25, benchmark=1)
    assert [(o.benchmark, o.probe, o.image, o.inliers) for o in found] == [(1, 9, 2, 25), (1, 9, 1, 40)]
    assert verify_pairs(pairs, probe.__getitem__, images.__getitem__, spatial, 26)[0].image == 1


def test_table_and_lists_are_sorted_best_first(training: TrainingSet, benchmark: Benchmark) -> None:
    labels = training.labels
    first, second = np.flatnonzero(labels == 0)[:2], np.flatnonzero(labels == 1)[:2]
    audit = audit_of(
        training, benchmark, (0, first[0], 21), (3, first[0], 30), (5, second[1], 90), (1, first[1], 30), images=2
    )
    rows = list(csv.DictReader(io.StringIO(overlap_table(audit))))
    assert [int(row["inliers"]) for row in rows] == [90, 30, 30, 21]
    assert [row["probe"] for row in rows[1:3]] == [benchmark.source.name(1), benchmark.source.name(3)]
    assert rows[0]["training_image"] == training.source.name(int(second[1]))
    assert rows[0]["landmark"] == training.classes[1]
    assert list(best_per_image(audit.overlaps)) == [second[1], first[1], first[0]]
    # One image is not enough for the second landmark to be listed; its image is.
    assert [line.split("  #")[0] for line in landmark_list(audit).splitlines()] == [training.classes[0]]
    assert [line.split("  #")[0] for line in image_list(audit).splitlines()] == [
        training.source.name(int(row)) for row in (second[1], first[1], first[0])
    ]


def test_training_accepts_the_lists(training: TrainingSet, benchmark: Benchmark, tmp_path: Path) -> None:
    published = as_gldv2(training)
    gone = np.flatnonzero(published.labels == 2)[1:3]
    audit = audit_of(published, benchmark, *((5, int(row), 25) for row in gone))
    write_audit(tmp_path, audit, {})
    left = select(published, exclude_landmarks=tmp_path / "exclude_landmarks.txt")
    assert left.ids.tolist() == published.ids[published.labels != 2].tolist()
    assert "102" not in left.classes
    left = select(published, exclude_images=tmp_path / "exclude_images.txt")
    assert left.ids.tolist() == np.delete(published.ids, gone).tolist()


def test_without_overlaps_lists_are_empty_and_there_is_no_sheet(
    training: TrainingSet, benchmark: Benchmark, tmp_path: Path
) -> None:
    published = as_gldv2(training)
    (tmp_path / "contact_sheet_2.jpg").write_bytes(b"of an earlier audit")
    write_audit(tmp_path, audit_of(published, benchmark), {"made": 1})
    assert not list(tmp_path.glob("*.jpg"))
    assert len(select(published, exclude_landmarks=tmp_path / "exclude_landmarks.txt")) == len(published)
    assert (tmp_path / "overlap.csv").read_text().count("\n") == 1
    assert "made" in (tmp_path / "about.json").read_text()


def test_images_are_shown_beside_a_probe_that_they_match(training: TrainingSet, benchmark: Benchmark) -> None:
    of_one = np.flatnonzero(training.labels == 0)
    pairs = [(0, of_one[0], 99), (5, of_one[1], 40), (5, of_one[2], 50), (5, of_one[0], 30), (1, of_one[3], 20)]
    rows = sheet_rows(audit_of(training, benchmark, *pairs))
    assert [row.probe.position for row in rows] == [5, 1]
    assert [[picture.position for picture in row.images] for row in rows] == [
        [of_one[2], of_one[1], of_one[0]],
        [of_one[3]],
    ]
    assert [picture.label for picture in rows[0].images] == ["50 inliers", "40 inliers", "30 inliers"]
    assert rows[0].probe.box == (5, 5, 40, 30)
    assert (rows[0].probe.label, rows[1].probe.label, rows[1].probe.box) == ("query", "positive", None)
    assert rows[0].notes == ("bench", f"4 of {len(of_one)} match")


def test_rows_per_landmark_are_limited(training: TrainingSet, benchmark: Benchmark) -> None:
    one = replace(training, labels=np.zeros_like(training.labels), classes=np.array(["all"]))
    rows = sheet_rows(audit_of(one, benchmark, *((5, row, 20 + row) for row in range(len(one)))))
    shown = [picture.position for row in rows for picture in row.images]
    assert shown == list(reversed(range(len(one))))[: ROWS_PER_LANDMARK * COLUMNS]
    assert [len(row.notes) for row in rows] == [2, 2, 3]
    assert rows[-1].notes[-1] == f"{len(one) - ROWS_PER_LANDMARK * COLUMNS} of them not shown"


def test_sheets_are_pages_of_framed_pictures(training: TrainingSet, benchmark: Benchmark) -> None:
    overlaps = [(5, int(row), 20 + int(row)) for row in range(len(training))]
    rows = sheet_rows(audit_of(training, benchmark, *overlaps))
    rows = (rows * ROWS)[: ROWS + 1]
    pages = contact_sheets(rows, "heading")
    assert len(pages) == 2
    assert all(len(page) <= 600_000 for page in pages)
    first, second = (np.asarray(Image.open(io.BytesIO(page)).convert("RGB")).astype(int) for page in pages)
    assert first.shape[0] > second.shape[0]
    # A frame's upper edge is as long as it is wide, in blue for the probe and in green for what matches it.
    for kind in ("query", "positive"):
        colour = [int(COLOURS[kind][i : i + 2], 16) for i in (1, 3, 5)]
        near = (np.abs(second - colour) < 24).all(-1)
        assert near.sum(1).max() >= SIDE * (1 if kind == "query" else len(rows[-1].images))
    assert contact_sheets([], "heading") == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"probes": []}, r"^probes.* \[\]$"),
        ({"probes": "queries"}, "^probes.* queries$"),
        ({"probes": ["junk"]}, r"^probes.* \['junk'\]$"),
        ({"candidates": 0}, "^candidates.* 0$"),
        ({"inliers": 1.5}, r"^inliers.* 1\.5$"),
        ({"images": 0}, "^images.* 0$"),
        ({"threshold": 1.1}, r"^threshold.* 1\.1$"),
        ({"threshold": None}, "^threshold.* None$"),
    ],
)
def test_invalid_rules_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Rule(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_side": 0}, "max_side.* 0$"),
        ({"on_error": "stop"}, "on_error.* stop$"),
        ({"workers": -1}, "workers.* -1$"),
        ({"orientation": "up"}, "orientation.* up$"),
        ({"scales": []}, r"scales.* \[\]$"),
    ],
)
def test_invalid_readings_are_refused(wrong: dict, message: str, tmp_path: Path) -> None:
    model = GlobalDescriptor(Backbone("resnet18.tv_in1k", pretrained=False), dim=4)
    with pytest.raises(UserError, match=message):
        make_feature_extractor(None, model, RootSIFT(), tmp_path, **wrong)


def test_no_network_no_benchmark_and_no_probe_are_refused(
    training: TrainingSet, benchmark: Benchmark, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="checkpoint=FILE"):
        network(None, None)
    with pytest.raises(UserError, match=r"gone\.ckpt"):
        network(tmp_path / "gone.ckpt", None)
    with pytest.raises(UserError, match="benchmark=NAME"):
        find_overlap(training, [None, None], None, Spatial(), Rule(), tmp_path)
    empty = replace(benchmark, ground_truth=GroundTruth((), (), ()), queries=np.empty(0, np.int64))
    with pytest.raises(UserError, match=r"^bench .*positives"):
        find_overlap(training, [lambda: empty], None, Spatial(), Rule(probes=["positives"]), tmp_path)
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        training_images(tmp_path, None)
    with pytest.raises(UserError, match=r"train_clean\.csv"):
        training_images(tmp_path)


def test_a_checkpoint_downloads_no_other_weights(tmp_path: Path) -> None:
    """With a checkpoint the configured model is not built, which would fail here."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(
            "prepare", overrides=["task=overlap", f"checkpoint={tmp_path / 'gone.ckpt'}", "backbone.name=none"]
        )
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert cfg.call.benchmarks[1] is None
    with pytest.raises(Exception, match="gone") as stop:
        instantiate(cfg.call.extractor)
    assert isinstance(stop.value.__cause__, UserError)
