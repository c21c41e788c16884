"""The data path at GLDv2's size: indexing, first batch, memory, and reading from archives or in two other ways.

    PYTHONPATH=. python experiments/benchmarks/gldv2_scale.py [--root DIR] [--images N] [--archives N] [--landmarks N]

Synthetic data in the real format: 1,580,470 small JPEGs in 500 archives, with a `train_clean.csv` of 81,313
landmarks. It is written once below `--root` (about 4 GB, a minute) and reused. Prints the time of `src.prepare
mode=index`; the time from `python -m src.train` to the first batch with the index present; the memory of the main
process and of a loader worker over 100,000 samples; and images per second of `TarSource`, of unpacked files, and of
reading archives sequentially, each with and without the system's file cache.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from dolglab.contracts import ImageSource
from dolglab.data.archive_source import INDEX_FOLDER, TarSource
from dolglab.data.module import LandmarkDataModule
from dolglab.data.sources import GLDv2Source, gldv2_name

SEED = 0
POOL = 512
PREPARE = (sys.executable, "-m", "src.prepare", "task=gldv2", "mode=index")
ROUNDS = 3
READ = 20_000
SAMPLES = 100_000
TRAIN = (sys.executable, "-W", "ignore", "-m", "src.train", "data.source=tar", "backbone=r18", "model.dim=64")
SMALL = (
    "backbone.pretrained=false",
    "data.image_size=64",
    "local=attention",
    "data.workers=2",
    "trainer=cpu",
    "trainer.max_steps=1",
)
NO_TEST = ("~data.test.roxford5k", "~data.test.rparis6k", "logger=none")


def main() -> None:
    """Make missing data, measure, and print."""
    parser = argparse.ArgumentParser(description="The data path at GLDv2's cardinality.")
    parser.add_argument("--root", type=Path, default=Path("data/gldv2_scale"))
    parser.add_argument("--images", type=int, default=1_580_470)
    parser.add_argument("--archives", type=int, default=500)
    parser.add_argument("--landmarks", type=int, default=81_313)
    options = parser.parse_args()
    ids = image_ids(options.images)
    if not (options.root / "train_clean.csv").exists():
        make(options.root, ids, options.archives, options.landmarks)
    print(f"{options.images:,} images, {options.landmarks:,} landmarks, {options.archives} archives in {options.root}")
    index_time(options.root)
    first_batch(options.root)
    memory(options.root)
    reading(options.root, ids, options.archives)


def image_ids(count: int) -> NDArray[np.uint64]:
    """Ascending ids, spread over the whole range."""
    drawn = np.random.default_rng(SEED).integers(0, 2**64, int(count * 1.01), np.uint64)
    return np.unique(drawn)[:count]


def make(root: Path, ids: NDArray[np.uint64], archives: int, landmarks: int) -> None:
    """Archives and csv in the published form; each image is one of a few hundred small synthetic ones."""
    start = time.perf_counter()
    rng = np.random.default_rng(SEED)
    pool = [_picture(rng) for _ in range(POOL)]
    (root / "train").mkdir(parents=True, exist_ok=True)
    order = rng.permutation(len(ids))
    for number, rows in enumerate(np.array_split(order, archives)):
        with (root / "train" / f"images_{number:03}.tar").open("wb", 1 << 20) as file:
            for row in rows.tolist():
                data = pool[row % POOL]
                member = tarfile.TarInfo(gldv2_name("", int(ids[row]))[1:])
                member.size = len(data)
                file.write(member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
            file.write(bytes(-file.tell() % 10240 or 10240))
    labels = np.concatenate([np.arange(landmarks), rng.integers(0, landmarks, len(ids) - landmarks)])
    lists: list[list[str]] = [[] for _ in range(landmarks)]
    for name, label in zip(map("{:016x}".format, ids.tolist()), rng.permutation(labels).tolist(), strict=True):
        lists[label].append(name)
    rows = (f"{2 * label + 1},{' '.join(names)}\n" for label, names in enumerate(lists))
    (root / "train_clean.csv").write_text("landmark_id,images\n" + "".join(rows))
    print(f"made in {time.perf_counter() - start:.0f} s")


def _picture(rng: np.random.Generator) -> bytes:
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)), quality=85)


def index_time(root: Path) -> None:
    """Index everything, and then again without changes."""
    shutil.rmtree(root / "train" / INDEX_FOLDER, ignore_errors=True)
    for what in ("index", "index again, nothing changed"):
        start = time.perf_counter()
        subprocess.run([*PREPARE, f"root={root}", "parallel=2"], check=True, stdout=subprocess.DEVNULL)
        print(f"{what}: {time.perf_counter() - start:.1f} s")


def first_batch(root: Path) -> None:
    """Time until the first batch of a training: imports, csv, split, benchmark, network, loader."""
    command = [*TRAIN, *SMALL, *NO_TEST, f"data.root={root}", "data.batch_size=8", "data.validation={}"]
    command += ["trainer._target_=experiments.benchmarks.gldv2_scale.stopping_trainer"]
    for what, holdout in [("all images", 0), ("a fifth held out, 4,000 of it checked", 0.2)]:
        times = []
        for number in range(ROUNDS):
            run = root / "runs" / f"{number}-{holdout}"
            shutil.rmtree(run, ignore_errors=True)
            start = time.perf_counter()
            done = subprocess.run([*command, f"data.holdout={holdout}", f"hydra.run.dir={run}"], capture_output=True)
            times.append(time.perf_counter() - start)
            if b"first batch" not in done.stderr:
                raise SystemExit(done.stderr.decode())
        print(f"python -m src.train to its first batch, {what}: {statistics.median(times):.1f} s")


def stopping_trainer(**options: object):
    """A trainer that ends the process when it gets its first batch."""
    import lightning as L
    from lightning.pytorch.callbacks import Callback

    class Stop(Callback):
        def on_train_batch_start(
            self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
        ) -> None:
            print("first batch", file=sys.stderr, flush=True)
            os._exit(0)

    return L.Trainer(**{**options, "callbacks": [*options["callbacks"], Stop()]})  # pyright: ignore


def memory(root: Path) -> None:
    """Private memory of the main process and of each worker at the start and after many samples."""
    data = LandmarkDataModule.from_gldv2(root, source="tar", holdout=0, image_size=32, batch_size=100, workers=2)
    loader = data.train_dataloader()
    batches, before = iter(loader), {}
    for number in range(1, (SAMPLES // 10 + SAMPLES) // data.batch_size + 1):
        next(batches)
        if number * data.batch_size == SAMPLES // 10:
            before = private_memory()
    after = private_memory()
    for place, process in enumerate(sorted(before)):
        name = "main process" if place == 0 else f"worker {place}"
        grown = after[process] - before[process]
        print(f"{name}: {before[process]:.0f} MB of its own, {grown:+.1f} MB after {SAMPLES:,} samples")


def private_memory() -> dict[int, float]:
    """Private megabytes of this process and of each of its children."""
    own = os.getpid()
    children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
    return {process: _private(process) for process in (own, *map(int, children))}


def _private(process: int) -> float:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def reading(root: Path, ids: NDArray[np.uint64], archives: int) -> None:
    """Images per second: at random from all archives, at random from files, and archive by archive."""
    few = max(1, archives // 20)
    paths = [root / "train" / f"images_{number:03}.tar" for number in range(few)]
    unpacked = root / "unpacked"
    names = _unpack(paths, unpacked)
    chosen = np.sort(np.array([int(Path(name).stem, 16) for name in names], np.uint64))
    rng = np.random.default_rng(SEED)
    ways: dict[str, tuple[Callable[[], int], list[Path]]] = {
        "TarSource, at random": (_random(TarSource(root, "train", chosen), rng), paths),
        "unpacked files, at random": (_random(GLDv2Source(unpacked, "train", chosen), rng), [unpacked]),
        "archives sequentially (tarfile)": (lambda: sum(1 for _ in _sequential(paths)), paths),
    }
    print(f"images/s, one process, of {len(chosen):,} images in {few} archives (median of {ROUNDS})")
    for cached in (True, False):
        for what, (read, places) in ways.items():
            if cached:
                _remember(places)
            speeds = []
            for _ in range(ROUNDS):
                if not cached:
                    _forget(places)
                start = time.perf_counter()
                speeds.append(read() / (time.perf_counter() - start))
            print(f"  {'cached' if cached else 'not cached':<11} {what:<36} {statistics.median(speeds):>9,.0f}")


def _random(source: ImageSource, rng: np.random.Generator) -> Callable[[], int]:
    def read() -> int:
        rows = rng.permutation(len(source))[:READ].tolist()
        return sum(1 for row in rows if source.read(row))

    return read


def _sequential(paths: list[Path]) -> Iterator[bytes]:
    for path in paths:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                yield file.read()


def _unpack(paths: list[Path], home: Path) -> list[str]:
    """The images' names; unpacked once."""
    names: list[str] = []
    for path in paths:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                names.append(member.name)
                place = home / "train" / member.name
                if not place.exists():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    file = tar.extractfile(member)
                    assert file is not None
                    place.write_bytes(file.read())
    return names


def _remember(places: list[Path]) -> None:
    """Read these files into the system's cache."""
    for file in _files(places):
        file.read_bytes()


def _forget(places: list[Path]) -> None:
    """Remove these files from the system's cache."""
    for file in _files(places):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def _files(places: list[Path]) -> Iterator[Path]:
    for place in places:
        yield from (file for file in (place.rglob("*") if place.is_dir() else [place]) if file.is_file())


if __name__ == "__main__":
    main()
