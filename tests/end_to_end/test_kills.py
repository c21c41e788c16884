"""Commands that are killed, or whose disk fills up, and run again: they end like an uninterrupted one.

`KILLS` and `KILL_SEED` in the environment are how many kills each command gets, and what their moments are drawn from:
see experiments/kills.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from dolglab.io import sha256_of
from dolglab.library.contents import Photo
from dolglab.library.library import Library
from dolglab.models.checkpoint import read_checkpoint
from end_to_end.runs import NARROW, SMALL, metrics
from photo_library.made import identity, unit
from photo_library.planted import planted
from warm_python import started

KILLS, SEED = int(os.environ.get("KILLS", "2")), int(os.environ.get("KILL_SEED", "0"))
pytestmark = [pytest.mark.process, pytest.mark.timeout(150 * KILLS)]

# Kills of a command before it may finish.
IN_A_ROW = 2
# The smallest limit of a file on a full disk, which leaves room for a command's output.
ROOM = 2048
# Columns of a training's log that are measured times.
HOW_FAST = re.compile("second|wait|memory")


# Results that must be equal in the end, and numbers that must be approximately equal.
Result = tuple[Any, np.ndarray]


class Ended(NamedTuple):
    """The end of a command: exit code (negative for a signal) and errors; its changes and seconds if complete."""

    code: int
    errors: str
    changes: int
    seconds: float


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """The initial state for a command."""
    (tmp_path / "start" / "tmp").mkdir(parents=True)
    return tmp_path / "start"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The folder of each command, whose name some of them store: a copy of `start`."""
    return tmp_path / "here"


def test_embed(photos: Path, trained: tuple[Path, float], tmp_path: Path, start: Path, here: Path) -> None:
    # More than are committed at a time.
    for number in range(9):
        shutil.copytree(photos, tmp_path / "photos" / str(number))
    rows = [f"{number}/landmark {number % 6}/0{number}.jpg,{number}" for number in range(9)]
    (start / "years.csv").write_text("\n".join(["file,year", *rows, ""]))
    words = embedding(tmp_path / "photos", here, trained[0])
    check(start, here, [*words, "--metadata", str(here / "years.csv")], library_of)


def test_convert(photos: Path, trained: tuple[Path, float], start: Path, here: Path) -> None:
    """A library with a former index, each of whose segments gets codes."""
    words = embedding(photos, here, trained[0])
    anew(start, here)
    assert run(here, words).code == 0
    library, count = Library(here / "library"), 21_000
    for part, rows in enumerate(np.array_split(unit(count, library.identity["dim"]), 3)):
        library.add([Photo(f"s3://photos/{part}/{row}.jpg", 1, 1, (1, 1)) for row in range(len(rows))], rows)
    with library.change() as change:
        for number in library.contents().segments:
            change.set_kind(number, "ivf_pq")
            (library.folder / "segments" / f"{number:08d}.ivf_pq").write_bytes(b"an index")
        change.set_about("store", {"kind": "ivf_pq"})
    for path in (library.folder / "segments").glob("*.rabitq_*"):
        path.unlink()
    library.close()
    anew(here, start)
    check(start, here, words, library_of)


def test_remove(start: Path, here: Path) -> None:
    # So many files are missing that the rest of two segments is merged.
    (start / "photos").mkdir()
    library = Library.open(start / "library", identity(16))
    for part in np.array_split(np.arange(60), 3):
        photos = [Photo(str(here / "photos" / f"{row}"), 1, 1, (1, 1), metadata={"row": str(row)}) for row in part]
        library.add(photos, unit(60, 16)[part])
    library.close()
    for row in range(35, 60):
        (start / "photos" / f"{row}").touch()
    check(start, here, ["src.library", "remove", "--gone", "--library", str(here / "library")], library_of)


def test_merge(start: Path, here: Path) -> None:
    """Merge libraries with codes, in several transactions, into a new one."""
    for seed, name in enumerate(("one", "two")):
        library = Library.open(start / name, identity(128))
        photos = [Photo(f"/{name}/{row}.jpg", 1, 1, (1, 1)) for row in range(5000)]
        library.add(photos, unit(5000, 128, seed))
        library.close()
    words = ["merge", str(here / "one"), str(here / "two"), "--library", str(here / "library")]
    check(start, here, ["src.library", *words], library_of)


def test_adapt(start: Path, here: Path) -> None:
    """Consistent after every kill, before anything else happens; the command is refused if it was complete."""
    rows, labels = planted(landmarks=3, photos=400, dim=128)
    library = Library.open(start / "library", identity(128))
    for part in np.array_split(np.arange(len(rows)), 3):
        library.add([Photo(f"/photos/{labels[row]}/{row}.jpg", 1, 1, (1, 1)) for row in part], rows[part])
    library.compact()
    library.close()
    words = ["src.library", "adapt", "--folder", "/photos", "--library", str(here / "library")]
    anew(start, here)
    before = library_of(here)
    unbroken = run(here, words)
    assert unbroken.code == 0, unbroken.errors
    after, files = library_of(here), names(here)
    chance, kills = random.Random(SEED), 0
    while kills < KILLS:
        anew(start, here)
        for number in range(IN_A_ROW):
            if (kills + number) % 2:
                ended = run(here, words, seconds=chance.uniform(0, unbroken.seconds))
            else:
                ended = run(here, words, step=chance.randint(1, unbroken.changes))
            kills += ended.code < 0
            assert any(same(library_of(here), state) for state in (before, after))
        ended = run(here, words, room=chance.randint(ROOM, 4 * rows.nbytes))
        assert ended.code in (0, 2), ended.errors
        assert any(same(library_of(here), state) for state in (before, after))
        adapted = same(library_of(here), after)
        ended = run(here, words)
        assert ended.code == (2 if adapted else 0), ended.errors
        assert same(library_of(here), after)
        assert names(here) == files


def test_pack(world: Path, start: Path, here: Path) -> None:
    shutil.copytree(world, start / "world")
    words = ["src.prepare", "task=pack", f"root={here / 'world'}", "size=64", "workers=1", "+call.chunk_size=5"]
    check(start, here, words, lambda folder: files_of(folder / "world" / "packed"))


def test_scan(world: Path, start: Path, here: Path) -> None:
    shutil.copytree(world, start / "world")
    broken = sorted((start / "world" / "train").rglob("*.jpg"))[::4]
    for path in broken:
        path.write_bytes(path.read_bytes()[:-300])
    words = ["src.prepare", "task=scan", f"root={here / 'world'}", "workers=1", "+call.chunk_size=5"]
    check(start, here, words, lambda folder: files_of(folder / "world" / "train"))


def test_export(trained: tuple[Path, float], start: Path, here: Path) -> None:
    words = ["src.export", "--checkpoint", str(trained[0] / "checkpoints" / "best.ckpt"), "--out", str(here / "model")]
    check(start, here, words, lambda folder: files_of(folder / "model"), here / "model")


def test_checkpoints(world: Path, start: Path, here: Path) -> None:
    options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, "test=false", "checkpoint_steps=2", "resume=auto"]
    words = ["src.train", *options, f"hydra.run.dir={here / 'run'}"]
    check(start, here, words, lambda folder: run_of(folder / "run"))


def check(
    start: Path, here: Path, words: list[str], result: Callable[[Path], Result], once: Path | None = None
) -> None:
    """Whether a repeatedly interrupted command gives the result of an uninterrupted one, and no other files.

    What it makes `once` is not made again.
    """
    chance, kills = random.Random(SEED), 0
    anew(start, here)
    unbroken = run(here, words)
    assert unbroken.code == 0, unbroken.errors
    (expected, descriptors), files = result(here), names(here)
    largest = max(path.stat().st_size for path in here.rglob("*") if path.is_file())
    while kills < KILLS:
        anew(start, here)
        # The last time on a full disk.
        for full in [False] * IN_A_ROW + [True]:
            if full:
                ended = run(here, words, room=chance.randint(ROOM, max(ROOM, largest)))
                assert ended.code in (0, 2), ended.errors
            # By number of changes, which also hits short work, or by time, which also hits code outside Python.
            elif kills % 2:
                ended = run(here, words, seconds=chance.uniform(0, unbroken.seconds))
            else:
                ended = run(here, words, step=chance.randint(1, unbroken.changes))
            kills += ended.code < 0
            if ended.code == 0 or (once is not None and once.exists()):
                break
        else:
            ended = run(here, words)
            assert ended.code == 0, ended.errors
        found, near = result(here)
        assert found == expected
        np.testing.assert_allclose(near, descriptors, atol=1e-5)
        assert names(here) == files


def same(found: Result, expected: Result) -> bool:
    """Whether two results are approximately equal."""
    shapes = found[1].shape == expected[1].shape
    return found[0] == expected[0] and shapes and np.allclose(found[1], expected[1], atol=1e-5)


def anew(start: Path, here: Path) -> None:
    """Make one folder a copy of another."""
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(start, here)


def run(here: Path, words: list[str], step: int = 0, room: int = 0, seconds: float = 120) -> Ended:
    """Run a command that is killed at a change or after some seconds, or whose files have limited space."""
    arguments = ["-m", "end_to_end.broken_off", str(here), str(step), str(room), *words]
    with started(arguments, PYTHONPATH="tests", TMPDIR=str(here / "tmp")) as process:
        try:
            out, errors = process.communicate(seconds)
        except subprocess.TimeoutExpired:
            return Ended(-signal.SIGKILL, "", 0, 0)
    # Measured separately: the first process of a session waits for the imports shared by all forks.
    changes, took = out.split()[-2:] if process.returncode == 0 else (0, 0)
    return Ended(process.returncode or 0, errors, int(changes), float(took))


def embedding(photos: Path, here: Path, trained: Path) -> list[str]:
    model = ["--model", str(trained / "checkpoints" / "best.ckpt"), "--max-side", "64", "--threads", "1"]
    return ["src.embed", str(photos), "--library", str(here / "library"), *model]


def names(here: Path) -> set[str]:
    """The files in a folder, with numbers of segments removed."""
    return {re.sub(r"/\d{8}\.", "/", str(path.relative_to(here))) for path in here.rglob("*")}


def files_of(folder: Path) -> Result:
    """Every file, bit by bit."""
    files = {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}
    return files, np.empty(0)


def library_of(folder: Path) -> Result:
    """Photos by name without their numbers, with their columns, and their descriptors, which may differ slightly."""
    with closing(Library(folder / "library")) as library:
        entries = sorted(
            (entry for page in library.catalogue.pages() for entry in page), key=lambda entry: entry[0].name
        )
        rows = library.descriptors(np.array([key for _, key in entries], np.int64))
        photos = [replace(photo, id=None) for photo, _ in entries]
        kinds = {segment.size: segment.kind for segment in library.contents().segments.values()}
        return (photos, kinds, library.catalogue.about("store"), library.identity), rows


def run_of(run: Path) -> Result:
    """The contents of a training's checkpoints and log, bit by bit, without measured times."""
    checkpoints = {path.name: read_checkpoint(path)["state_dict"] for path in (run / "checkpoints").iterdir()}
    weights = {
        (file, name): value.numpy().tobytes() for file, state in checkpoints.items() for name, value in state.items()
    }
    rows = [{key: value for key, value in row.items() if not HOW_FAST.search(key)} for row in metrics(run)]
    return (weights, rows), np.empty(0)
