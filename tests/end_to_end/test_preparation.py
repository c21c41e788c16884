"""GLDv2 by the public commands: fetched from a server that fails, indexed, trained on out of its archives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from archives import tar
from end_to_end.runs import NARROW, SMALL, command, run_command
from web_server import Server


def publish(server: Server, world: Path, archives: int = 2) -> None:
    """A demo world's training set as the published GLDv2: csv files, archives, md5 sums."""
    for table in ("train_clean", "train", "train_label_to_category", "train_label_to_hierarchical"):
        server.add(f"/metadata/{table}.csv", (world / "train_clean.csv").read_bytes())
    files = sorted((world / "train").glob("?/?/?/*.jpg"))
    for number in range(archives):
        data = tar({str(file.relative_to(world / "train")): file.read_bytes() for file in files[number::archives]})
        server.add(f"/train/images_{number:03}.tar", data, md5=f"/md5sum/train/md5.images_{number:03}.txt")


def prepare(*options: str) -> subprocess.CompletedProcess[str]:
    return run_command([sys.executable, "-W", "ignore", "-m", "src.prepare", "task=gldv2", *options])


def test_from_the_server_to_a_trained_network(server: Server, world: Path, tmp_path: Path) -> None:
    publish(server, world)
    root = tmp_path / "gldv2"
    where = [f"root={root}", "archives=0-1", f"base_url={server.url}"]
    server.faults["/train/images_000.tar"] += ["cut", 503, "cut"]
    server.faults["/train/images_001.tar"] += ["garbled", 404]
    failed = prepare(*where)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: 1 of 6 files could not be fetched")
    assert len(failed.stderr.splitlines()) == 1
    done = prepare(*where)
    assert done.returncode == 0, done.stderr
    assert "are indexed" in done.stdout
    assert prepare(*where, "mode=verify").returncode == 0
    options = [f"data.root={root}", *SMALL, *NARROW, "trainer.max_epochs=1"]
    options += ["data.validation.demo=null", "data.test.demo=null"]
    run = tmp_path / "run"
    options += [f"hydra.run.dir={run}", "data=demo", "+data.source=tar"]
    trained = run_command(command(*options))
    assert trained.returncode == 0, trained.stderr
    assert (run / "checkpoints" / "last.ckpt").exists()
