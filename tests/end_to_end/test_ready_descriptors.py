"""Descriptors of other code: the order of their rows, and files that are refused at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dolglab.commands.evaluate import main as evaluate
from dolglab.data.revisited import load_ground_truth
from end_to_end.runs import ROOT, card, config
from warm_python import run_python

pytestmark = pytest.mark.process


def rows_by_name(world: Path) -> dict[str, np.ndarray]:
    """A direction for each landmark and for each other image, so that all positives of a query are found first."""
    lists = load_ground_truth(world / "test" / "gnd_test.pkl")
    rng, rows = np.random.default_rng(0), dict[str, np.ndarray]()
    for image in (*lists.gallery, *lists.queries):
        rows[f"jpg/{image}.jpg"] = rng.normal(size=256)
    truth = lists.ground_truth
    for query, easy, hard in zip(lists.queries, truth.easy, truth.hard, strict=True):
        positives = [f"jpg/{lists.gallery[place]}.jpg" for place in (*easy.tolist(), *hard.tolist())]
        for name in positives:
            rows[name] = rows[positives[0]]
        rows[f"jpg/{query}.jpg"] = rows[positives[0]]
    return rows


def test_rows_are_taken_in_the_order_that_is_written(world: Path, tmp_path: Path, capsys) -> None:
    asked = [f"benchmark.root={world / 'test'}", "trainer=cpu", "workers=0"]
    listed = tmp_path / "images.txt"
    evaluate(config("evaluate", *asked, f"write_names={listed}", f"output_dir={tmp_path / 'none'}"))
    said = capsys.readouterr().out
    assert str(listed) in said
    assert not (tmp_path / "none").exists()
    names = listed.read_text().splitlines()
    found = rows_by_name(world)
    assert sorted(names) == sorted(found)
    assert f"{len(names)} images" in said
    maps = dict[str, float | None]()
    for kind, ordered in {"listed": names, "rolled": np.roll(names, 1).tolist()}.items():
        np.save(tmp_path / f"{kind}.npy", np.stack([found[name] for name in ordered]))
        own = [*asked, f"descriptors={tmp_path / kind}.npy"]
        maps[kind] = evaluate(config("evaluate", *own, f"output_dir={tmp_path / kind}"))
        # The rows' own names put them in order.
        (tmp_path / f"{kind}_names.txt").write_text("\n".join(ordered))
        by_name = [*own, f"names={tmp_path / kind}_names.txt", f"output_dir={tmp_path / kind} by name"]
        assert evaluate(config("evaluate", *by_name)) == pytest.approx(1)
    assert maps["listed"] == pytest.approx(1)
    assert maps["rolled"] is not None
    assert maps["rolled"] < 0.9


def test_an_unnamed_evaluation_is_called_by_its_file(world: Path, tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(len(rows_by_name(world)), 8))
    np.save(tmp_path / "theirs.npy", table)
    asked = [f"benchmark.root={world / 'test'}", f"descriptors={tmp_path / 'theirs.npy'}", "trainer=cpu", "workers=0"]
    done = run_python(["-m", "src.evaluate", *asked], tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs").iterdir()
    (benchmark,) = card(run)["benchmarks"]
    assert (card(run)["method"], benchmark["crop"]) == ("theirs.npy", "unknown")
    assert benchmark["stages"] == {"descriptors": "from theirs.npy, normalised here"}
    page = (run / "report.html").read_text()
    assert "<h1>theirs.npy (run " in page
    assert "crop pil" not in page
    assert "cropped to their boxes" not in page


# Refuses what the arguments ask for, and has not imported torch by then.
WITHOUT_TORCH = """
import sys
from dolglab.commands.evaluate import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""


def test_a_file_that_does_not_fit_is_refused_before_a_network_is_loaded(world: Path, tmp_path: Path) -> None:
    asked = [f"benchmark.root={world / 'test'}", "checkpoint=gone.ckpt"]
    count = len(rows_by_name(world))
    for table, why in [
        (np.ones((count - 1, 8)), "write_names=FILE"),
        (np.full((count, 8), np.nan), "not finite"),
        (np.ones((count, 8), complex), "complex128"),
    ]:
        np.save(tmp_path / "d.npy", table)
        run = [f"output_dir={tmp_path / 'run'}", f"descriptors={tmp_path / 'd.npy'}"]
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, *asked, *run], cwd=ROOT / "src", capture_output=True, text=True
        )
        assert done.returncode == 2
        assert why in done.stderr
