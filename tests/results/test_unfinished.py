"""The page of a training that stopped before its test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dolglab.results.card import make_card, protocol
from dolglab.results.report import write_unfinished


def card(validation_map: float | None) -> dict[str, Any]:
    made = protocol((1.0,), "released", "mean", None, {}, "32-true")
    return make_card(
        name="mine",
        method="mine",
        rankings=[],
        protocol=made,
        checkpoint=None,
        config={},
        validation_map=validation_map,
    )


def test_a_page_has_the_curves_so_far_and_no_result(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/medium\n0,0,3.5,\n0,1,2.5,0.25\n")
    page = write_unfinished(tmp_path, card(0.25), "Training stopped in epoch 2 of 9.")
    assert page == tmp_path / "report.html"
    text = (tmp_path / "report.html").read_text()
    for part in ("Training stopped in epoch 2 of 9.", "25.00 %", "Loss by step", "Validation mAP by epoch"):
        assert part in text
    assert "Protocol</h2>" not in text
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(("card", "figures"))] == []


def test_a_run_without_a_step_has_no_page(tmp_path: Path) -> None:
    assert write_unfinished(tmp_path, card(None), "Training stopped in epoch 1 of 9.") is None
    assert list(tmp_path.iterdir()) == []
