"""Describing photos with a Ray cluster of two nodes on this machine, with one worker each."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dolglab
from dolglab.data.photos import PhotoFile
from dolglab.errors import UserError
from dolglab.library.contents import Photo
from dolglab.library.ingest import embed_places
from dolglab.library.library import Library
from dolglab.library.listing import find_photos
from dolglab.library.ray_engine import BATCH_PHOTOS, check_address, describe_files
from dolglab.sharing.loading import LoadedExtractor
from photo_library.conftest import describe, save
from warm_python import run_python

pytestmark = [
    pytest.mark.process,
    # From Ray Data, about its own settings.
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning"),
]

pytest.importorskip("ray", reason="Ray is not installed: pip install 'dolglab[ray-data]'")

MODEL, MAX_SIDE = "efficientnet_lite0", 64
# Runs until its input ends.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
store = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={**store, "include_dashboard": False})
cluster.add_node(**store)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
# Exits when the first batch of photos is stored.
KILLED = f"""
import os, signal, sys
from dolglab.library import ingest
ingest.COMMIT_PHOTOS = {BATCH_PHOTOS}
class Intake(ingest.Intake):
    def commit(self):
        super().commit()
        if self.added:
            os.kill(os.getpid(), signal.SIGKILL)
ingest.Intake = Intake
photos, library, address = sys.argv[1:]
ingest.embed_places([photos], library, model="{MODEL}", max_side={MAX_SIDE}, threads=1, engine="ray", address=address)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, int]]:
    """The address of the cluster, and the session of its processes."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(dolglab.__file__).parents[1]),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process.pid


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """More photos than workers get at a time."""
    root = tmp_path / "many"
    for number in range(6 * BATCH_PHOTOS):
        save(root / f"{number:03d}.jpg", number)
    return root


def workers(session: int) -> list[int]:
    """The cluster's processes that describe photos."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == session and b"ray::MapWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def contents(folder: str) -> tuple[list[Photo], np.ndarray]:
    """All photos by name, without their numbers, and descriptors of those that could be read."""
    with closing(Library(folder)) as library:
        entries = sorted(
            (entry for page in library.catalogue.pages() for entry in page), key=lambda entry: entry[0].name
        )
        keys = np.array([key for _, key in entries if key is not None], np.int64)
        return [replace(photo, id=None) for photo, _ in entries], library.descriptors(keys)


def test_a_cluster_makes_the_same_library_as_this_machine(
    cluster: tuple[str, int], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a" / "broken.jpg").write_text("text")
    (folder / "b c" / "cut.jpg").write_bytes((folder / "a" / "0.jpg").read_bytes()[:500])

    def embed(name: str, **engine: str) -> tuple[list[str], list[Photo], np.ndarray]:
        library = str(tmp_path / name)
        embed_places([str(folder)], library, model=MODEL, max_side=MAX_SIDE, threads=1, **engine)
        return sorted(capsys.readouterr().out.replace(library, "LIBRARY").splitlines()), *contents(library)

    wanted, photos, rows = embed("here")
    found, found_photos, found_rows = embed("there", engine="ray", address=cluster[0])
    assert found == wanted
    assert found_photos == photos
    np.testing.assert_allclose(found_rows, rows, atol=1e-5)
    for path in folder.rglob("*.jpg"):
        path.chmod(0o600)
    assert embed("there", engine="ray", address=cluster[0])[1:2] == embed("here")[1:2]


def test_the_work_of_a_lost_worker_is_repeated(cluster: tuple[str, int], loaded: LoadedExtractor, many: Path) -> None:
    files = find_photos([str(many)])
    described = describe_files(loaded, files, 1, address=cluster[0])
    found = [next(described)]
    os.kill(workers(cluster[1])[0], signal.SIGKILL)
    found += described
    assert sorted(each.photo.name for each in found) == [file.name for file in files]
    last = max(found, key=lambda each: each.photo.name)
    assert last.descriptor is not None
    np.testing.assert_allclose(last.descriptor, describe(loaded, last.photo.name)[0], atol=1e-5)


def test_a_killed_command_continues(
    cluster: tuple[str, int], many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = str(tmp_path / "library")
    killed = run_python(["-c", KILLED, str(many), library, cluster[0]], PYTHONPATH="src")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = len(contents(library)[1])
    assert 0 < kept < 6 * BATCH_PHOTOS
    embed_places([str(many)], library, threads=1, max_side=MAX_SIDE, engine="ray", address=cluster[0])
    assert f"{6 * BATCH_PHOTOS - kept} photos described, {kept} already there" in capsys.readouterr().out
    assert len(contents(library)[1]) == 6 * BATCH_PHOTOS


def test_missing_requirements_of_a_node_are_reported(
    cluster: tuple[str, int], loaded: LoadedExtractor, folder: Path
) -> None:
    files = find_photos([str(folder / "a" / "0.jpg")])
    elsewhere = replace(loaded, identity={**loaded.identity, "source": "/gone/model"})
    other = replace(loaded, identity={**loaded.identity, "model": "another"})
    opened = os.open(folder / "a", os.O_RDONLY)
    # A path that only exists for this process.
    mine = PhotoFile(f"/proc/self/fd/{opened}/0.jpg", 1, 1)
    for network, photo, named in (
        (elsewhere, files[0], "/gone/model"),
        (other, files[0], MODEL),
        (loaded, mine, mine.name),
    ):
        with pytest.raises(UserError, match=f"{re.escape(socket.gethostname())}.*{named}"):
            list(describe_files(network, [photo], 1, address=cluster[0]))
    os.close(opened)
    gone = PhotoFile(str(folder / "gone.jpg"), 1, 1)
    (described,) = describe_files(loaded, [gone], 1, address=cluster[0])
    assert described.vanished
    assert described.descriptor is None


def test_this_machines_cores_can_be_the_cluster(folder: Path, tmp_path: Path) -> None:
    words = ["src.embed", str(folder), "--library", str(tmp_path / "library"), "--model", MODEL, "--engine", "ray"]
    done = run_python(["-m", *words])
    assert done.returncode == 0, done.stderr
    assert "6 photos described" in done.stdout
    assert done.stderr.strip().count("\n") == 0


def test_an_address_without_ray_is_reported(folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = f"127.0.0.1:{server.getsockname()[1]}"
        refusing = f"127.0.0.1:{unused_port()}"
        for address in (refusing, "nowhere", "ray://127.0.0.1:10001", "127.0.0.1:99999"):
            with pytest.raises(UserError, match=address):
                check_address(address)
        # Also by RAY_ADDRESS, which auto uses first, because this machine may be a node of another cluster.
        for address in (silent, "auto"):
            words = ["--library", str(tmp_path / "library"), "--model", MODEL, "--engine", "ray", "--address", address]
            done = run_python(["-m", "src.embed", str(folder), *words], RAY_ADDRESS=silent)
            assert done.returncode == 2
            assert done.stderr.splitlines()[-1].startswith("error: ")
            assert address in done.stderr.splitlines()[-1]
            assert not (tmp_path / "library").exists()


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize("options", [{"engine": "ray", "shard": "1/2"}, {"address": "auto"}])
def test_conflicting_options_are_refused(options: dict[str, str], folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--engine ray"):
        embed_places([str(folder)], str(tmp_path / "library"), **options)
    assert not (tmp_path / "library").exists()
