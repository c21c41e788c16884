"""Small benchmarks in the official layouts: each object is a pattern of colours, which plain colours identify."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from dolglab.contracts import Benchmark, Figures, Ranked
from dolglab.data.datasets import BenchmarkImages
from dolglab.retrieval.ranking import exact_ranking

NOISE = 3


def pattern(kind: int, width: int = 40, height: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    """Four quarters with one colour each and a little noise; no rotation makes it another object."""
    colours = np.random.default_rng([7, kind]).integers(0, 256, (2, 2, 3))
    pixels = colours.repeat(height // 2, 0).repeat(width // 2, 1)
    noise = np.random.default_rng([kind, seed]).integers(-NOISE, NOISE + 1, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8], orientation: int | None = None) -> bytes:
    """Its JPEG, with an EXIF orientation if one is given."""
    image, file = Image.fromarray(pixels), io.BytesIO()
    exif = image.getexif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


def put(path: Path, kind: int, seed: int = 0) -> None:
    """Write an object's photograph."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(pattern(kind, seed=seed)))


def lines(path: Path, rows: Sequence[str]) -> None:
    """Write a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


def figures_of(benchmark: Benchmark) -> tuple[dict[str, float], Figures]:
    """The figures of a benchmark, with images read as in an evaluation and described by 4 x 4 colours."""
    images = BenchmarkImages(benchmark).__getitems__(range(len(benchmark.source))).images
    cells = [np.asarray(Image.fromarray(image.numpy()).resize((4, 4), Image.Resampling.BOX)) for image in images]
    descriptors = np.array([cell.ravel() for cell in cells], np.float32) - 128
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    truth, measure = benchmark.ground_truth, benchmark.measure
    gallery = descriptors[: benchmark.num_gallery]
    depth = min(len(gallery), measure.depth)
    ranked: Ranked = exact_ranking(gallery, descriptors[benchmark.queries], measure.ground_truth_ids(truth), depth)
    figures = measure.figures(truth, dict.fromkeys(benchmark.difficulties, ranked))
    assert list(figures.evaluation) == list(benchmark.difficulties)
    assert set(benchmark.protocol) == {"measure", "images", "ties", "left out"}
    return {name: scores["map"] for name, scores in figures.evaluation.items()}, figures


def ilias(root: Path) -> Path:
    """Three objects with four queries, five positives, six distractors in two shards, four of them in mini."""
    queries = ["ash_bud_000/query/Q000_00.jpg", "ash_bud_000/query/Q000_01.jpg", "cat_dew_001/query/Q001_00.jpg"]
    queries.append("elm_fig_002/query/Q002_00.jpg")
    positives = ["ash_bud_000/pos/P000_00.jpg", "ash_bud_000/pos/P000_01.jpg", "cat_dew_001/pos/P001_00.jpg"]
    positives += ["elm_fig_002/pos/P002_00.jpg", "elm_fig_002/pos/P002_01.jpg"]
    for seed, name in enumerate([*queries, *positives]):
        put(root / "ilias_core" / name, int(name[:11][-3:]), seed)
    keys = [f"yfcc100m_{number % 2:04}.tar/{number:010x}" for number in range(6)]
    for number, key in enumerate(keys):
        put(root / "yfcc100m" / f"{key.replace('.tar', '')}.jpg", 10 + number)
    lists = root / "image_ids"
    lines(lists / "image_query_ids.txt", [f"{name},0.5" for name in queries])
    lines(lists / "text_query_ids.txt", ["ash_bud_000/query/T000.txt"])
    lines(
        lists / "positive_ids.txt",
        [f"{name},{0.05 * (row + 1)},{10 * (row + 1)}" for row, name in enumerate(positives)],
    )
    (lists / "distractor_ids.txt.gz").write_bytes(gzip.compress("".join(f"{key}\n" for key in keys).encode()))
    lines(lists / "mini_ilias_yfcc100m_ids.txt", [key.split("/")[1] for key in keys[:4]])
    taxonomy = {
        "product": {"food": {"cake": ["ash_bud_000", "cat_dew_001"]}},
        "art": {"sculpture": {"3d": ["elm_fig_002"]}},
    }
    lines(root / "taxonomy.json", [json.dumps(taxonomy)])
    return root


def places(root: Path) -> Path:
    """Database images every 20 m to the north; queries 1 m and exactly 25 m from one, and far from all."""
    folder = root / "images" / "test"
    for number in range(5):
        put(folder / "database" / f"@0500000.00@{4_000_000 + 20 * number:010.2f}@10@S@@@@@@@@@@@.jpg", number)
    put(folder / "queries" / "@0500001.00@4000000.00@10@S@@@@@@@@@@@.jpg", 0, seed=1)
    put(folder / "queries" / "@0500025.00@4000080.00@10@S@@@@@@@@@@@.jpg", 4, seed=1)
    put(folder / "queries" / "@0500025.01@4000000.00@10@S@@@@@@@@@@@.jpg", 0, seed=2)
    return root


def nordland(root: Path, frames: int = 21, every: int = 10) -> Path:
    """Two seasons with unpadded frame numbers; a query shows the frame after its own."""
    for frame in range(frames):
        put(root / "ref" / f"images-{frame + 1}.jpg", frame)
    for number in range((frames - 1) // every + 1):
        put(root / "query" / f"images-{number + 1}.jpg", min(number * every + 1, frames - 1), seed=1)
    return root


def msls(root: Path) -> Path:
    """Two cities; each has a panorama, an image without a subtask, and a query with nothing near."""
    for city, zone in (("cph", 0), ("sf", 10)):
        for side, norths in (("database", [0, 10, 200, 0, 0]), ("query", [1, 9000, 2, 3])):
            home = root / "train_val" / city / side
            keys = [f"{city}{side}{row}" for row in range(len(norths))]
            for row, key in enumerate(keys):
                put(home / "images" / f"{key}.jpg", zone + row, seed=side == "query")
            rows = [
                f"{row},{key},{zone * 1e5 + 5},{north},{row},False,Forward"
                for row, (key, north) in enumerate(zip(keys, norths, strict=True))
            ]
            lines(home / "postprocessed.csv", [",key,easting,northing,unique_cluster,night,view_direction", *rows])
            last = len(keys) - 1
            panorama, subtask = [row == last for row in range(len(keys))], [row != last - 1 for row in range(len(keys))]
            lines(
                home / "raw.csv", [",key,lon,lat,pano", *(f"{r},{k},1.0,2.0,{panorama[r]}" for r, k in enumerate(keys))]
            )
            lines(home / "subtask_index.csv", [",key,all", *(f"{r},{k},{subtask[r]}" for r, k in enumerate(keys))])
    return root


def instre(root: Path, form: str = "corners") -> Path:
    """Six gallery images; queries show their object in a box inside another object. Boxes are uint16, as published."""
    gallery = [
        f"INSTRE-{part}/0{kind}_x/{number}.jpg" for kind, part in enumerate(("S1", "S2", "M")) for number in (1, 2)
    ]
    for seed, name in enumerate(gallery):
        put(root / name, int(name.split("/0")[1][0]), seed)
    queries = [f"INSTRE-{part}/0{kind}_x/9.jpg" for kind, part in enumerate(("S1", "S2", "M"))]
    for kind, name in enumerate(queries):
        pixels = pattern((kind + 1) % 3, 120, 96)
        pixels[32:64, 60:100] = pattern(kind)
        (root / name).write_bytes(jpeg(pixels))
    box = [60, 32, 100, 64] if form == "corners" else [60, 32, 40, 32]
    truth = np.zeros((1, 3), dtype=[("ok", object), ("bbx", object)])
    for kind in range(3):
        truth[0, kind] = np.array([[2 * kind + 1], [2 * kind + 2]], np.uint16), np.array([box], np.uint16)
    names = {
        key: np.array([[name] for name in own], object) for key, own in (("imlist", gallery), ("qimlist", queries))
    }
    scipy.io.savemat(root / "gnd_instre.mat", {**names, "gnd": truth})
    return root


def holidays(root: Path) -> Path:
    """Three groups; one photograph lies on its side, with a correct list and a wrong EXIF."""
    names = ["100000.jpg", "100001.jpg", "100100.jpg", "100101.jpg", "100102.jpg", "100200.jpg", "100201.jpg"]
    for seed, name in enumerate(names):
        put(root / "jpg" / name, int(name[3]), seed)
    # A clockwise quarter turn makes it upright.
    sideways = np.rot90(pattern(1, seed=9))
    (root / "jpg" / "100101.jpg").write_bytes(jpeg(np.ascontiguousarray(sideways), orientation=3))
    lines(root / "holidays_images.dat", names)
    lines(root / "holidays-rotate.yaml", ["{", '"100101.jpg": 90,', "}"])
    return root


def met(root: Path) -> Path:
    """Three exhibits; one test photograph shows an exhibit that is not in the database, and one shows none."""
    database = [{"id": 70 + kind, "path": f"MET/{70 + kind}/{number}.jpg"} for kind in range(3) for number in range(2)]
    test = [
        {"path": "test_met/0.jpg", "MET_id": 70},
        {"path": "test_met/1.jpg", "MET_id": 99},
        {"path": "test_other/2.jpg"},
        {"path": "test_met/3.jpg", "MET_id": 71},
    ]
    validation = [{"path": "test_met/4.jpg", "MET_id": 72}, {"path": "test_noart/5.jpg"}]
    for seed, row in enumerate(database):
        put(root / "images" / row["path"], row["id"] - 70, seed)
    for seed, (row, kind) in enumerate(zip([*test, *validation], (0, 20, 21, 1, 2, 22), strict=True)):
        put(root / "images" / row["path"], kind, 50 + seed)
    for name, rows in (
        ("MET_database", database),
        ("mini_MET_database", database[:4]),
        ("testset", test),
        ("valset", validation),
    ):
        lines(root / "ground_truth" / f"{name}.json", [json.dumps(rows)])
    return root


def disc21(root: Path) -> Path:
    """Three queries, one of them without a match, and four references."""
    for kind in range(4):
        put(root / "images" / "references" / f"R00000{kind}.jpg", kind)
    for number, kind in enumerate((0, 2, 9)):
        put(root / "images" / "queries" / f"Q0000{number}.jpg", kind, seed=1)
    lists = root / "list_files"
    lines(lists / "subset_1_references", [f"R00000{kind}" for kind in range(4)])
    lines(lists / "subset_1_queries", [f"Q0000{number}" for number in range(3)])
    rows = ["Q00000,R000000", "Q00001,R000002", "Q00002,"]
    lines(lists / "subset_1_ground_truth.csv", ["query_id,reference_id", *rows])
    return root


def products(root: Path) -> Path:
    """Products with two, three and one photographs."""
    kinds = [0, 0, 1, 1, 1, 2]
    for number, kind in enumerate(kinds):
        put(root / "chair_final" / f"{number}.JPG", kind, seed=number)
    rows = [f"{number + 1} {100 + kind} 1 chair_final/{number}.JPG" for number, kind in enumerate(kinds)]
    lines(root / "Ebay_test.txt", ["image_id class_id super_class_id path", *rows])
    return root
