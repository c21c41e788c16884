"""The data that a training logs to Weights & Biases, read from the file of an offline run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dashboard.wandb_file import history, records
from dolglab.results.report import WORKSPACE
from end_to_end.runs import NARROW, SMALL, card, command, metrics
from warm_python import run_python

pytestmark = pytest.mark.process


def test_a_run_shows_its_curves_queries_results_and_checkpoints(world: Path, tmp_path: Path) -> None:
    options = ["data=demo", f"data.root={world}", *SMALL, *NARROW, "logger=wandb", "logger.wandb.offline=true"]
    done = run_python(command(*options, f"hydra.run.dir={tmp_path}", "name=board"))
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    rows = history(file)
    logged = {key for row in rows for key in row}
    curves = {
        "train/gradient_norm",
        "train/loss",
        "pooling/p",
        "train/data_wait_share",
        "train/memory_gib",
        "train/images_per_second_epoch",
    }
    assert curves <= logged
    check_workspace(logged)
    maps = [row["val/medium"] for row in rows if "val/medium" in row]
    assert maps == [float(row["val/medium"]) for row in metrics(tmp_path) if row.get("val/medium")]

    histograms = [row for row in rows if "cosines/target/values" in row]
    assert [row["trainer/global_step"] for row in histograms] == list(range(6))
    for row in histograms:
        # Eight descriptors and four classes.
        assert sum(row["cosines/target/values"]) == 8
        assert sum(row["cosines/nontarget/values"]) == 8 * 3

    name = "val/demo_validation"
    tables = [row for row in rows if f"{name}/queries/path" in row]
    steps = [row["trainer/global_step"] for row in rows if "val/medium" in row]
    assert [row["trainer/global_step"] for row in tables] == steps
    for row in tables:
        table = json.loads((file.parent / "files" / row[f"{name}/queries/path"]).read_text())
        assert table["columns"] == ["query", "AP, %", "answers", "attention"]
        scores = [score for _, score, *_ in table["data"]]
        assert scores == sorted(scores, reverse=True)
        assert {tuple(pictures) for _, _, *pictures in table["data"]} == {("Image", "Image")}
        assert row[f"{name}/precision_recall_table/nrows"] == 3 * 101

    artifacts = [r.artifact for r in records(file) if r.WhichOneof("record_type") == "artifact"]
    # W&B itself names each new version "latest".
    assert [set(a.aliases) for a in artifacts if a.type == "model"] == [{"best", "latest"}, {"last", "latest"}]
    assert len([a for a in artifacts if a.type == "result"]) == 1
    summary = {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for r in records(file)
        if r.WhichOneof("record_type") == "summary"
        for item in r.summary.update
    }
    assert summary["result/demo/medium"] == card(tmp_path)["benchmarks"][0]["map"]["medium"]


def check_workspace(logged: set[str]) -> None:
    """Every chart of the project's page shows a metric that a run logs."""
    for section in WORKSPACE.values():
        for title, drawn in section.items():
            keys = [key for key in logged if re.fullmatch(drawn, key)] if isinstance(drawn, str) else drawn
            assert keys, title
            assert all(key in logged or f"{key}/values" in logged for key in keys), title
