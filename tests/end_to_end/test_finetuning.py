"""Finetuning a checkpoint on a user's own photos."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dolglab.commands.build_training import with_network
from dolglab.commands.train import main as train
from dolglab.data.folder import split_folder
from dolglab.data.image_reading import decode
from dolglab.errors import UserError
from dolglab.extraction.extractor import Extractor
from dolglab.measures import revisited_evaluation
from dolglab.models.checkpoint import RUN_KEY, load_model, read_checkpoint
from end_to_end.runs import card, config, refused

pytestmark = pytest.mark.process

SMALL = ["data.image_size=64", "data.batch_size=8", "data.workers=0", "trainer=cpu", "trainer.max_epochs=1"]


def test_a_finetuned_checkpoint_is_compared_with_its_start(
    trained: tuple[Path, float], photos: Path, tmp_path: Path, capsys
) -> None:
    start, run, mine = trained[0] / "checkpoints" / "best.ckpt", tmp_path / "run", tmp_path / "mine"
    shutil.copytree(photos, mine)
    shutil.copytree(mine / "landmark 0", mine / "few")
    for photo in sorted((mine / "few").iterdir())[2:]:
        photo.unlink()
    options = ["experiment=finetune", f"weights={start}", f"data.root={mine}", "name=better", *SMALL]
    train(config("train", f"output_dir={run}", *options, "test_scales=[1.0]"))
    said = capsys.readouterr().out
    assert "62 photos" not in said
    assert "its head is not used: it has other landmarks" in said

    before, after = (read_checkpoint(path)[RUN_KEY] for path in (start, run / "checkpoints" / "best.ckpt"))
    assert after["classes"][0] == "few"
    network = before["config"]["model"]
    assert network["backbone"]["name"] == "test_resnet.r160_in1k"
    frozen = {**network, "backbone": {**network["backbone"], "freeze_bn": True, "weights": None, "pretrained": False}}
    assert {**after["config"]["model"], "backbone": {**frozen["backbone"], "licence": None}} == {
        **frozen,
        "backbone": {**frozen["backbone"], "licence": None},
    }
    old, new = (load_model(path)[0].state_dict() for path in (start, run / "checkpoints" / "best.ckpt"))
    learnt = {name.partition(".")[0] for name, tensor in old.items() if not torch.equal(tensor, new[name])}
    assert learnt == {"local", "fc_global", "fc"}

    # Cosines of such a small network are so close that the memory layout of tensors swaps neighbours.
    tested = [card(folder)["benchmarks"][0]["map"]["medium"] for folder in (run / "baseline", run)]
    assert tested[0] == pytest.approx(map_of(start, mine), abs=5e-3)
    assert tested[1] == pytest.approx(map_of(run / "checkpoints" / "best.ckpt", mine), abs=5e-3)
    line = re.search(
        r"(?i)better.* than dolg \(before\) on mine test photos: mAP (\S+) -> (\S+) %", said.replace('"', "")
    )
    assert line is not None
    assert [float(value) for value in line.groups()] == pytest.approx([100 * value for value in tested], abs=6e-3)
    reference = card(run / "baseline")
    assert reference["checkpoint"]["sha256"] == card(trained[0])["checkpoint"]["sha256"]
    assert list(reference["protocol"]["selection"]) == ["demo validation"]


def map_of(checkpoint: Path, root: Path) -> float:
    """mAP of a checkpoint on the held-out photos of a folder."""
    benchmark = split_folder(root)[2]
    images = [torch.from_numpy(decode(benchmark.source.read(place))) for place in range(len(benchmark.source))]
    with torch.inference_mode():
        descriptors = Extractor(load_model(checkpoint)[0], [1.0])(images).numpy()
    ranks = np.argsort(-(descriptors @ descriptors.T), axis=1, kind="stable")
    return revisited_evaluation(ranks, benchmark.ground_truth)["medium"]["map"]


def test_a_resumed_run_has_its_own_network(trained: tuple[Path, float]) -> None:
    last = trained[0] / "checkpoints" / "last.ckpt"
    options = ["output_dir=out", "experiment=finetune", "weights=gone.ckpt", "data.root=x"]
    assert with_network(config("train", *options, "test=false"), last).backbone.name == "test_resnet.r160_in1k"
    for begun in (last, None):
        with pytest.raises(UserError, match=r"checkpoint not found: gone\.ckpt"):
            with_network(config("train", *options), begun)


def test_a_checkpoint_cannot_build_foreign_code(trained: tuple[Path, float], tmp_path: Path) -> None:
    stored = read_checkpoint(trained[0] / "checkpoints" / "best.ckpt")
    stored[RUN_KEY]["config"]["model"]["fusion"] = {"_target_": "os.system", "command": "true"}
    torch.save(stored, tmp_path / "evil.ckpt")
    cfg = config("train", "output_dir=out", "experiment=finetune", f"weights={tmp_path}/evil.ckpt", "data.root=x")
    with pytest.raises(UserError, match=r"os\.system"):
        with_network(cfg, None)


def test_a_missing_checkpoint_is_refused(photos: Path, tmp_path: Path, capsys) -> None:
    cfg = config("train", "experiment=finetune", f"output_dir={tmp_path}", f"data.root={photos}", *SMALL)
    assert "weights=" in refused(train, cfg, capsys)
