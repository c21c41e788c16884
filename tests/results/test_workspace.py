"""A project's page on W&B."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("wandb_workspaces", reason="an extra: pip install 'dolglab[workspace]'")

from dolglab.errors import UserError
from dolglab.results.report import write_workspace

# The package's own warnings.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_its_specification_has_a_section_for_each_concern(tmp_path, capsys):
    path = write_workspace(tmp_path, "dolg", ["demo validation"])
    assert "entity=NAME" in capsys.readouterr().out
    spec = json.loads(path.read_text())["spec"]
    sections = {s["name"]: s["panels"] for s in spec["section"]["panelBankConfig"]["sections"]}
    assert set(sections) >= {"training", "retrieval", "images", "system"}
    assert all(sections[name] for name in ("training", "retrieval", "images", "system"))
    assert "val/demo_validation/queries" in json.dumps(sections["images"])
    assert "val/demo_validation/precision_recall_table" in json.dumps(sections["retrieval"])


def test_a_refusing_server_gives_one_line_and_the_specification_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.save", refuse)
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        write_workspace(tmp_path, "dolg", [], entity="someone")
    assert (tmp_path / "workspace.json").is_file()


def refuse(*_: object) -> None:
    raise ValueError("no such entity")
