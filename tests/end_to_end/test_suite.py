"""A suite of models and benchmarks in real layouts, killed and resumed, up to the leaderboard."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from end_to_end.runs import ROOT, wait_until
from end_to_end.system import processes_in, wait_for
from warm_python import run_python, started

pytestmark = pytest.mark.process

MODELS = ["gem", "rootsift_asmk", "rootsift_asmk_sp"]
BENCHMARKS = ["demo", "roxford5k", "rparis6k"]
TINY = ["backbone=r18", "backbone.name=test_resnet.r160_in1k", "backbone.pretrained=false", "trainer=cpu", "workers=0"]


@pytest.fixture
def place(world: Path, tmp_path: Path) -> Path:
    """A folder whose data/ has the benchmarks: one is a copy of another, one has different images."""
    for name, split in zip(BENCHMARKS, ("test", "test", "validation"), strict=True):
        root = tmp_path / "data" / ("demo_world/test" if name == "demo" else name)
        shutil.copytree(world / split, root)
        (ground_truth,) = root.glob("gnd_*.pkl")
        ground_truth.rename(root / f"gnd_{name}.pkl")
    return tmp_path


@pytest.mark.timeout(900)  # nine evaluations, each in a process of its own
def test_a_killed_suite_is_resumed_and_gives_a_leaderboard(place: Path, photos: Path) -> None:
    suite = place / "outputs" / "all"
    asked = ["-m", "src.evaluate", "-m", "name=all", "suite=instance", f"benchmark={','.join(BENCHMARKS)}"]
    asked += [f"entry={','.join(MODELS)}", "benchmark@learn_on=folder", f"learn_on.root={photos}", *TINY]
    # Only two of the entries have this option.
    asked += ["aggregate.words=choice(256)"]
    asked += ["scales=[1.0]", "pictures=0", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    with started(asked, place, PYTHONPATH=str(ROOT)) as process:
        wait_until(lambda: len(list(suite.glob("*/job.json"))) >= 2, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        # Launchers, the process that jobs are forked from, and the jobs themselves.
        assert processes_in(place)
        wait_for(lambda: not processes_in(place))
    done = {path: path.stat().st_mtime_ns for path in suite.glob("*/card.json")}
    assert 2 <= len(done) < 9
    again = run_python(asked, place, timeout=600, PYTHONPATH=str(ROOT))
    assert again.returncode == 0, again.stderr
    assert "9 jobs, 0 failed" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in done} == done
    with (suite / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["benchmark"], row["entry"]) for row in rows] == [(b, m) for b in BENCHMARKS for m in MODELS]
    for first, second in zip(rows[:3], rows[3:6], strict=True):
        # The same images under another benchmark's name.
        assert first["demo medium"] == second["roxford5k medium"] != ""

    edited = suite / rows[8]["job"] / "card.json"
    edited.write_text(edited.read_text().replace('"RootSIFT', '"SIFT'))
    report = ["-m", "src.report", "leaderboard=true", f"cards='{suite}/*/card.json'", "out=board"]
    made = run_python(report, place, PYTHONPATH=str(ROOT))
    assert made.returncode == 0, made.stderr
    (left_out,) = made.stderr.splitlines()
    assert str(edited) in left_out
    html = (place / "board" / "index.html").read_text()
    addresses = {place / "board" / found for found in re.findall(r'href="((?:cards|models)/[^"]+)"', html)}
    assert all(address.is_file() for address in addresses)
    cards = sorted(address for address in addresses if address.name == "card.json")
    assert len(cards) == 8
    assert all(f'id="{name}"' in html for name in BENCHMARKS)
    checked = run_python(["-m", "src.report", f"verify={cards[0]}"], place, PYTHONPATH=str(ROOT))
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    "launcher", [["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], ["hydra/launcher=submitit_local"]]
)
def test_a_failed_cell_is_recorded_and_the_others_continue(place: Path, launcher: list[str]) -> None:
    """By joblib, and by submitit's local executor, which starts jobs like the one for Slurm."""
    (image, *_) = sorted((place / "data" / "roxford5k" / "jpg").iterdir())
    image.write_bytes(b"no JPEG")
    asked = ["-m", "src.evaluate", "-m", "name=all", "suite=instance", "benchmark=roxford5k,rparis6k", "entry=gem"]
    done = run_python([*asked, *TINY, "scales=[1.0]", "pictures=0", *launcher], place, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert "2 jobs, 1 failed" in done.stdout
    with (place / "outputs" / "all" / "sweep.csv").open(newline="") as file:
        failed, right = csv.DictReader(file)
    assert (failed["status"], right["status"]) == ("failed", "done")
    assert image.name in failed["reason"]
    assert right["rparis6k medium"]


def test_a_plan_of_a_suite_leaves_no_files(place: Path) -> None:
    (place / "data" / "rparis6k" / "gnd_rparis6k.pkl").unlink()
    asked = [
        "-m",
        "src.evaluate",
        "-m",
        "name=all",
        "suite=instance",
        "plan=true",
        f"benchmark={','.join(BENCHMARKS)}",
        "entry=gem",
        *TINY,
    ]
    done = run_python(asked, place, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"images, 0 described: ", done.stdout)) == 2
    assert "not planned: ground truth not found: data/rparis6k/gnd_rparis6k.pkl" in done.stdout
    assert not (place / "outputs").exists() or not list((place / "outputs").iterdir())
