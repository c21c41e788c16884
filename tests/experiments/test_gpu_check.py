"""The check for GPUs, run on a CPU: with its required packages only, and with the recipe's network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from experiments.gpu_check.check import Check, run_step
from experiments.gpu_check.packages import NEEDED, OTHERS
from experiments.gpu_check.recipe import DIM, QUICK, STEPS, MadeUpData, Sizes, landmark_module, random_batch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from packaging.requirements import Requirement

from dolglab.commands.hydra_cli import as_plain
from dolglab.models.dolg import DOLG
from dolglab.training.retrieval_module import LandmarkData

ROOT = Path(__file__).resolve().parents[2]
# The requirements of torch, lightning, timm and torchmetrics.
BROUGHT = {"torchvision", "pillow", "jinja2", "safetensors", "aiohttp", "fsspec"}
# Runs a script as if the packages named before it were not installed.
WITHOUT = """
import runpy, sys
from importlib.machinery import PathFinder

hidden = sys.argv.pop(1).split(",")

class Others(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else super().find_spec(name, path, target)

    @staticmethod
    def find_distributions(*context):
        return [found for found in PathFinder.find_distributions(*context) if found.name.lower() not in hidden]

sys.meta_path[sys.meta_path.index(PathFinder)] = Others
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.process
def test_every_step_runs_without_optional_packages(tmp_path: Path) -> None:
    absent = OTHERS.keys() - BROUGHT
    hidden = absent | {OTHERS[package][0].partition(".")[0] for package in absent}
    script = str(ROOT / "experiments" / "gpu_check" / "run.py")
    # Longer limits for a busy machine.
    options = ["--device", "cpu", "--quick", "--patience", "5"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, ",".join(hidden), script, *options, "--out", str(tmp_path)],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["missing"].keys() == absent
    assert (results["machine"]["card"], results["machine"]["torch"]) == (None, torch.__version__.partition("+")[0])
    steps: dict[str, Any] = results["steps"]
    assert {name for name, step in steps.items() if step["status"] == "not run"} == {"process_group", "inductor"}
    assert {step["status"] for step in steps.values()} == {"passed", "not run"}
    whole, half = steps["losses"]["rows"]
    assert (whole["precision"], whole["steps"], whole["losses"]) == ("32-true", STEPS, whole["cpu_losses"])
    assert half["precision"] == "bf16-mixed"
    assert 0 < half["largest_difference"] < 0.2
    assert [row["largest_difference"] for row in steps["resume"]["rows"]] == [0, 0]
    assert [row["backend"] for name in ("process_group", "inductor") for row in steps[name]["rows"]] == [
        "gloo",
        "aot_eager",
    ]
    measured = {(row["precision"], row["side"], row["batch"]) for row in steps["speed"]["rows"]}
    assert measured == {(p, s, b) for p in ("bf16-mixed", "32-true") for s in QUICK.sides for b in QUICK.batches}
    assert all(row["images_a_second"] > 0 for row in steps["speed"]["rows"])
    assert [row["precision"] for row in steps["extraction"]["rows"]] == ["32-true", "32-true", "bf16-mixed"]
    assert max(row["last_rank"] for row in steps["ranking"]["rows"][:2]) == QUICK.gallery - 1
    table = (tmp_path / "results.md").read_text()
    assert all(f"### {name}" in table for name in steps)


def test_every_requirement_of_the_project_is_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {Requirement(line).name for line in project["dependencies"]} == {*NEEDED, *OTHERS}


@pytest.mark.parametrize(("experiment", "network"), [("dolg_r50", "R50"), ("dolg_r101", "R101")])
def test_the_papers_recipe_is_trained(experiment: str, network: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [f"experiment={experiment}", "backbone.pretrained=false"])
    recipe: DOLG = instantiate(cfg.model)
    sizes = Sizes()
    module = landmark_module(sizes.networks[network], sizes)
    assert [(name, p.shape, p.requires_grad) for name, p in module.model.named_parameters()] == [
        (name, p.shape, p.requires_grad) for name, p in recipe.named_parameters()
    ]
    assert module.model.backbone.name == recipe.backbone.name
    for name, value in as_plain(cfg.augment).items():
        assert name == "_target_" or getattr(module.augmentation, name) == pytest.approx(value)
    assert (module.head.margin, module.head.scale) == (cfg.margin.margin, cfg.margin.scale)
    weight = [torch.nn.Parameter(torch.zeros(1))]
    own, theirs = module.build_optimizer(weight), instantiate(cfg.optim.optimizer)(weight)
    assert type(own) is type(theirs)
    assert own.defaults == theirs.defaults
    factors = [build(own, 10).lr_lambdas[0] for build in (module.build_schedule, instantiate(cfg.optim.schedule))]
    assert [factors[0](step) for step in range(10)] == [factors[1](step) for step in range(10)]


def test_synthetic_batches_fit_the_training() -> None:
    data = MadeUpData([random_batch(4, 32, 10, seed) for seed in (0, 0, 1)])
    assert isinstance(data, LandmarkData)
    first, again, other = data.train_dataloader()
    assert first.images.shape == (4, 32, 32, 3)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert landmark_module(QUICK.networks["tiny"], QUICK).model.dim == DIM


def never_done(check: Check) -> None:
    check.row(figure=1)
    time.sleep(600)


def ended(check: Check) -> None:
    check.row(figure=2)
    os._exit(3)


def raised(check: Check) -> None:
    raise ValueError("first line\nsecond line")


@pytest.mark.process
def test_a_failing_step_keeps_its_figures() -> None:
    results = [run_step(work, "cpu", QUICK, 2) for work in (never_done, ended, raised)]
    assert [result["status"] for result in results] == ["failed"] * 3
    assert [result["rows"] for result in results] == [[{"figure": 1}], [{"figure": 2}], []]
    assert results[1]["reason"].endswith("3")
    assert results[2]["reason"] == "ValueError: first line"
