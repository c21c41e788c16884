"""The page of a project on W&B: what its runs log, laid out in sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dolglab.errors import UserError
from dolglab.io import write_text
from dolglab.training.wandb_logging import STEP

FILE = "workspace.json"
TITLE = "DOLG"


@dataclass(frozen=True)
class Panel:
    """A chart: lines of `metrics`, or of what `pattern` matches."""

    title: str
    metrics: tuple[str, ...] = ()
    pattern: str | None = None


SECTIONS = {
    "training": (
        Panel("loss", ("train/loss",)),
        Panel("cosines, means", ("train/target_cosine", "train/nontarget_cosine")),
        Panel("cosines of targets", ("cosines/target",)),
        Panel("cosines of others", ("cosines/nontarget",)),
        Panel("accuracy", ("train/accuracy",)),
        Panel("GeM p", ("pooling/p",)),
        Panel("gradient norm", ("train/gradient_norm",)),
        Panel("learning rates", pattern="lr-.*"),
    ),
    "retrieval": (
        Panel("validation mAP Medium", pattern="val/(.+/)?medium"),
        Panel("validation mAP Hard", pattern="val/(.+/)?hard"),
        Panel("validation mAP Easy", pattern="val/(.+/)?easy"),
        Panel("test mAP", pattern="test/.*"),
    ),
    # Here are the tables of queries.
    "images": (),
    "system": (
        Panel("images a second", ("train/images_per_second_step", "train/images_per_second_epoch")),
        Panel("share of a step that waits for data", ("train/data_wait_share",)),
        Panel("memory, GiB", ("train/memory_gib",)),
    ),
}


def write_workspace(out: Path, project: str, benchmarks: Sequence[str], entity: str | None = None) -> Path:
    """Write the page's specification to `out`/workspace.json, and lay it out on W&B where an `entity` is given.

    `benchmarks` are the names of those that validate. Raises UserError without the package, or for a server that
    refuses or is not there.
    """
    workspace = build_workspace(project, benchmarks, entity or "")
    path = write_text(out / FILE, workspace._to_model().model_dump_json(by_alias=True, indent=1) + "\n")
    if entity is None:
        print(f"{path}: entity=NAME lays it out on W&B")
        return path
    try:
        workspace.save()
    except Exception as error:
        raise UserError(f"W&B does not take the workspace ({error}): {path} holds it") from error
    print(f"{path}: {workspace.url}")
    return path


def build_workspace(project: str, benchmarks: Sequence[str], entity: str) -> Any:
    """The workspace, as wandb-workspaces describes it. Raises UserError without that package."""
    try:
        from wandb_workspaces import workspaces as ws
        from wandb_workspaces.reports import v2 as wr
    except ImportError:
        raise UserError("a workspace needs the package wandb-workspaces: pip install 'dolglab[workspace]'") from None
    names = [f"val/{name.replace(' ', '_')}" for name in benchmarks]
    added = {
        "retrieval": [_curves(f"{name}/precision_recall") for name in names],
        "images": [wr.WeavePanelSummaryTable(table_name=f"{name}/queries") for name in names],
    }
    sections = [
        ws.Section(name=name, panels=[*map(_lines, panels), *added.get(name, [])], is_open=True)
        for name, panels in SECTIONS.items()
    ]
    return ws.Workspace(
        entity=entity, project=project, name=TITLE, sections=sections, settings=ws.WorkspaceSettings(x_axis=STEP)
    )


def _lines(panel: Panel) -> Any:
    from wandb_workspaces.reports import v2 as wr

    return wr.LinePlot(title=panel.title, x=STEP, y=list(panel.metrics), metric_regex=panel.pattern)


def _curves(key: str) -> Any:
    """The chart that `wandb.plot.line_series` makes, over the table that it logs."""
    from wandb_workspaces.reports import v2 as wr

    return wr.CustomChart(
        query={"summaryTable": {"tableKey": f"{key}_table"}},
        chart_name="wandb/lineseries/v0",
        chart_fields={"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"},
        chart_strings={"title": key, "xname": "recall, %"},
    )
