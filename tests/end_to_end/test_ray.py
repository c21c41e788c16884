"""A sweep whose jobs are started by Ray; in a separate environment, by `make test-ray`."""

from __future__ import annotations

from pathlib import Path

import pytest

from end_to_end.runs import NARROW, SMALL, card, command
from warm_python import run_python

pytestmark = pytest.mark.process

pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="Ray has an environment of its own: make test-ray")


def test_jobs_are_started_by_ray_on_this_machine(world: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    options = [*SMALL, *NARROW, "trainer.max_epochs=1", "data=demo", f"data.root={world}", "hydra/launcher=ray"]
    done = run_python(command("-m", f"hydra.sweep.dir={sweep}", *options, "margin.margin=0.1,0.2"))
    assert done.returncode == 0, done.stderr
    for folder, margin in (("0_margin-0.1", 0.1), ("1_margin-0.2", 0.2)):
        assert card(sweep / folder)["config"]["margin"]["margin"] == margin
    assert "2 jobs, 0 failed" in done.stdout
