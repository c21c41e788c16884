"""Benchmarks by name: from images in an official layout to a card with the protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.benchmarks import layouts
from dolglab.commands.evaluate import main as evaluate
from dolglab.commands.prepare import main as prepare
from end_to_end.runs import card, config, refused

pytestmark = pytest.mark.process
NETWORK = ["model=imagenet_gem", "backbone=r18", "backbone.name=test_resnet.r160_in1k", "backbone.pretrained=false"]
SMALL = [*NETWORK, "trainer=cpu", "workers=0", "scales=[1.0]", "pictures=1"]


def result(tmp_path: Path, *overrides: str) -> dict:
    evaluate(config("evaluate", *SMALL, f"output_dir={tmp_path / 'run'}", "name=run", *overrides))
    (found,) = card(tmp_path / "run")["benchmarks"]
    return found


def test_ilias_is_evaluated_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = f"benchmark.root={layouts.ilias(tmp_path / 'ilias')}"
    found = result(tmp_path, "benchmark=ilias_mini", root, "benchmark.counts=null", "benchmark.groups=true")
    assert (found["name"], found["measure"], found["gallery"]) == ("ilias_mini", "mAP@1000", 9)
    assert found["map"]["all"] == pytest.approx(sum(found["ap"]["all"]) / 4)
    assert "art-sculpture" in found["difficulties"]
    page = (tmp_path / "run" / "report.html").read_text()
    for where in (capsys.readouterr().out, page):
        assert found["protocol"]["left out"] in where


def test_places_are_evaluated_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = layouts.places(tmp_path / "places")
    found = result(tmp_path, "benchmark=pitts30k", f"benchmark.root={root}", "benchmark.counts=null")
    assert found["difficulties"] == ["recall@1", "recall@5", "recall@10", "recall@20"]
    assert found["map"]["recall@5"] == pytest.approx(2 / 3)
    assert sorted(found["ap"]["recall@20"]) == [0, 1, 1]
    said = capsys.readouterr().out
    assert "recall@10" in said
    assert found["protocol"]["left out"] in said
    # The published version has other counts.
    where = [f"benchmark.root={root}", f"output_dir={tmp_path / 'other'}", "name=other"]
    line = refused(evaluate, config("evaluate", *SMALL, "benchmark=pitts30k", *where), capsys)
    assert "another version" in line


def test_figures_over_all_answers_have_no_interval(tmp_path: Path) -> None:
    root = f"benchmark.root={layouts.met(tmp_path / 'met')}"
    found = result(tmp_path, "benchmark=met", root)
    assert found["map_interval_95"]["GAP"] is None
    assert found["map_interval_95"]["ACC"] is not None
    assert "validation" in " ".join(found["notes"])


def test_a_benchmark_is_checked_or_its_source_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = layouts.places(tmp_path / "places")
    prepare(config("prepare", "task=tokyo247", f"root={root}", "benchmark.counts=null"))
    assert "3 queries, 5 gallery images" in capsys.readouterr().out
    line = refused(prepare, config("prepare", "task=tokyo247", f"root={tmp_path / 'none'}"), capsys)
    assert "by hand" in line
