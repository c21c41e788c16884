"""A library of photos: speed of adding, searching and changing, and the effect of re-ranking.

Adding: ours (threads that read, batches by shape, batch norms folded) and a plain version (one image at a time, the
network unchanged), on photos written for this purpose. Searching and changing: for each store, with random
descriptors of 512 values around 1,000 centres, through the library's own calls, including names. With `--photos
FOLDER` (one sub-folder per landmark): for how many photos the first answer shows the same landmark, before and after
re-ranking.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from dolglab.data.image_reading import decode, shrink
from dolglab.data.photos import PhotoFile, photo_pixels
from dolglab.library.contents import Photo
from dolglab.library.ingest import embed
from dolglab.library.library import Library
from dolglab.library.listing import find_photos
from dolglab.library.local_engine import describe_files
from dolglab.library.search_engine import SearchEngine
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import GlobalDescriptor
from dolglab.models.pooling import GeM
from dolglab.sharing.loading import LoadedExtractor, load_extractor
from dolglab.sharing.networks import PRETRAINED

DIM, CENTRES, BLOCK, QUERIES, TOP = 512, 1000, 10_000, 200, 20
IDENTITY = {"model": "random", "title": "random", "source": "random", "dim": DIM, "scales": [1.0], "max_side": 1}
IDENTITY |= {"colour": "srgb", "decoding": "full"}


def filling(folder: Path, count: int, rounds: int) -> None:
    """Photos per second of the plain version and ours, in turn."""
    rng = np.random.default_rng(0)
    for number in range(count):
        shape = (480, 640, 3) if number % 3 else (640, 480, 3)
        pixels = rng.integers(0, 256, (shape[0] // 16, shape[1] // 16, 3), np.uint8).repeat(16, 0).repeat(16, 1)
        Image.fromarray(pixels).save(folder / f"{number:04d}.jpg")
    files = find_photos([str(folder)])
    loaded = {
        name: load_extractor("efficientnet_lite0", max_side=640, backend=name, threads=1) for name in ("torch", "onnx")
    }
    backbone, _ = PRETRAINED["efficientnet_lite0"]
    model = GlobalDescriptor(Backbone(**backbone), GeM, dim=None).eval()
    seconds: dict[str, list[float]] = {"plain": [], "torch": [], "onnx": []}
    for number in range(rounds):
        seconds["plain"].append(timed(lambda: plain(model, files)))
        for name, made in loaded.items():
            place = folder.parent / f"{name}{number}"
            seconds[name].append(timed(lambda place=place, made=made: ours(place, made, files)))
    slow, fast, onnx = (statistics.median(seconds[name]) for name in seconds)
    print(
        f"filling: plain {count / slow:.1f} photos/s, ours {count / fast:.1f} (ratio {slow / fast:.2f}), with "
        f"--backend onnx {count / onnx:.1f} (ratio {slow / onnx:.2f})"
    )


def plain(model: GlobalDescriptor, files: list[PhotoFile]) -> None:
    with torch.inference_mode():
        for file in files:
            pixels = torch.from_numpy(shrink(decode(file.read()), 640)).permute(2, 0, 1)[None].float()
            F.normalize(model(model.backbone.normalise(pixels)))


def ours(folder: Path, loaded: LoadedExtractor, files: list[PhotoFile]) -> None:
    with closing(Library.open(folder, loaded.identity)) as library, library.writing():
        embed(library, describe_files(loaded, files))


def searching(folder: Path, store: str, size: int) -> None:
    """Measure a library of this many photos."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CENTRES, DIM)).astype(np.float32)

    def some(count: int) -> np.ndarray:
        rows = centres[rng.integers(CENTRES, size=count)] + rng.normal(size=(count, DIM)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    library = Library.open(folder, IDENTITY, store)
    with library.writing():
        start = time.perf_counter()
        for first in range(0, size, BLOCK):
            photos = [Photo(f"/photos/{n:08d}.jpg", 1, 1, (3, 4)) for n in range(first, min(size, first + BLOCK))]
            library.add(photos, some(len(photos)))
        library.compact()
        added = size / (time.perf_counter() - start)
        removed = timed(lambda: library.remove([f"/photos/{n:08d}.jpg" for n in range(1000)]))
        single = timed(lambda: library.add([Photo("/photos/new.jpg", 1, 1, (3, 4))], some(1)))
    library.close()

    start = time.perf_counter()
    library = Library(folder)
    queries = some(QUERIES)
    library.search(queries[:1], TOP)
    opened = time.perf_counter() - start
    each = np.array([timed(lambda row=row: library.search(queries[row : row + 1], TOP)) for row in range(QUERIES)])
    together = QUERIES / timed(lambda: library.search(queries, TOP))
    library.close()
    print(
        f"| `{store}` | {size:,} | {1e3 * opened:.0f} | {1e3 * np.percentile(each, 50):.1f} | "
        f"{1e3 * np.percentile(each, 95):.1f} | {1 / each.mean():.0f} | {together:.0f} | {added:,.0f} | "
        f"{1000 / removed:,.0f} | {1e3 * single:.0f} | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} |"
    )


def first_hits(folder: Path, photos: str) -> None:
    """The share of photos whose first other answer is of their landmark, before and after re-ranking."""
    loaded = load_extractor("efficientnet_lite0")
    files = find_photos([photos])
    with closing(Library.open(folder, loaded.identity)) as library, library.writing():
        embed(library, describe_files(loaded, files))
    engine = SearchEngine(folder)
    hits = {False: 0, True: 0}
    for file in files:
        query = photo_pixels(file.name, engine.max_side)
        for verify in hits:
            (answers,) = engine.search([query], 2, verify=verify)
            other = next(answer for answer in answers if answer.photo.name != file.name)
            hits[verify] += Path(other.photo.name).parent.name == Path(file.name).parent.name
    before, after = (f"{hits[verify]} of {len(files)} ({hits[verify] / len(files):.2%})" for verify in hits)
    print(f"first other answer of the same landmark: {before}, re-ranked {after}")


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", help="a folder with one sub-folder per landmark")
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "photos").mkdir()
        filling(Path(folder) / "photos", options.count, options.rounds)
        print(
            "| store | photos | open and first, ms | p50, ms | p95, ms | one by one/s | together/s | added/s | "
            "removed/s | one more, ms | peak GB |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
        )
        for size in options.sizes:
            for store in ("flat", "milvus") if size == 100_000 else ("flat",):
                searching(Path(folder) / f"{store}-{size}", store, size)
        if options.photos:
            first_hits(Path(folder) / "landmarks", options.photos)


if __name__ == "__main__":
    main()
