"""What a run ends with, and runs side by side: cards, tables, charts, a page; and their project's page on W&B."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dolglab.contracts import Ranking
from dolglab.errors import UserError
from dolglab.io import file_name, write_bytes, write_text
from dolglab.results.card import brief_card, caveats, gain_line, read_card, write_card
from dolglab.results.card_charts import Chart, ChartSection, chart_sections, training_charts, write_charts
from dolglab.results.comparison_tables import summarize
from dolglab.results.pictures import (
    COLOURS,
    SIGNS,
    Kind,
    data_uri,
    ranked_grid,
    read_pictures,
    shown_ap,
    worst_queries,
    write_pictures,
)
from dolglab.results.published import published_summary
from dolglab.results.stored_rankings import write_rankings
from dolglab.results.table_formats import print_tables, to_latex, to_markdown
from dolglab.results.tables import Card, Summary, protocol_line, row_names
from dolglab.templates import template

LEGEND: dict[Kind, str] = {
    "query": "the query, with its crop box",
    "positive": "positive",
    "negative": "negative",
    "junk": "counts neither way",
}
# Queries of the lowest AP that a run keeps a picture of.
WORST = 6
# The axis of all that W&B is sent: Lightning's count of optimizer steps, which goes on where a resumed run does.
STEP = "trainer/global_step"
# W&B's page of a project: by section and title its charts, of some metrics or of those that a pattern matches.
WORKSPACE: dict[str, dict[str, list[str] | str]] = {
    "training": {
        "loss": ["train/loss"],
        "cosines, means": ["train/target_cosine", "train/nontarget_cosine"],
        "cosines of targets": ["cosines/target"],
        "cosines of others": ["cosines/nontarget"],
        "accuracy": ["train/accuracy"],
        "GeM p": ["pooling/p"],
        "gradient norm": ["train/gradient_norm"],
        "learning rates": "lr-.*",
    },
    "retrieval": {
        "validation mAP Medium": "val/(.+/)?medium",
        "validation mAP Hard": "val/(.+/)?hard",
        "validation mAP Easy": "val/(.+/)?easy",
        "test mAP": "test/.*",
    },
    # Here are the tables of queries.
    "images": {},
    "system": {
        "images a second": ["train/images_per_second_step", "train/images_per_second_epoch"],
        "share of a step that waits for data": ["train/data_wait_share"],
        "memory, GiB": ["train/memory_gib"],
    },
}


def finish_run(
    run: Path,
    card: Card,
    rankings: Sequence[Ranking],
    baseline: tuple[Card, Sequence[Ranking]] | None = None,
    pictures: Sequence[tuple[str, bytes]] = (),
) -> Path:
    """Write `card.json`, `rankings/BENCHMARK.json`, `grids/BENCHMARK.jpg` and `report.html` to `run`; print the table.

    `rankings/BENCHMARK.npz` has what the figures follow from, `worst/BENCHMARK.jpg` the queries of the lowest
    AP. Of GLDv2's own evaluations also `submissions/BENCHMARK.csv`, of curves in the rankings `figures/*.svg`, and of
    `pictures` (titles and JPEGs) `pictures/NN.jpg`.

    The card of the `baseline` goes to `baseline/card.json`, its row stands above the run's, and the gain over its
    rankings is printed. Returns the page's path.
    """
    cards = [card]
    if baseline:
        write_card(baseline[0], run / "baseline" / "card.json")
        cards = [baseline[0], card]
    write_card(card, run / "card.json")
    grids: list[tuple[str, bytes]] = []
    for ranking, result in zip(rankings, card["benchmarks"], strict=True):
        file = file_name(ranking.benchmark.name)
        grids.append((ranking.benchmark.name, ranked_grid(ranking, notes=caveats(card, result))))
        name, queries = ranking.benchmark.source.name, ranking.benchmark.queries.tolist()
        # For each query's name, the names of its first answers, best first.
        answers = [[name(position) for position in row.tolist() if position >= 0] for row in ranking.top]
        named = dict(zip(map(name, queries), answers, strict=True))
        write_text(run / "rankings" / f"{file}.json", json.dumps(named, indent=0))
        write_rankings(run, ranking)
        write_bytes(run / "grids" / f"{file}.jpg", grids[-1][1])
        write_bytes(
            run / "worst" / f"{file}.jpg", ranked_grid(ranking, queries=worst_queries(shown_ap(ranking), WORST))
        )
        if (submission := ranking.benchmark.measure.submission(ranking)) is not None:
            write_text(run / "submissions" / f"{file}.csv", submission)
    write_pictures(run, pictures)
    charts = chart_sections(cards)
    write_charts(run / "figures", charts)
    summary = summarize(cards)
    page = write_page(
        run / "report.html",
        title=card["name"],
        cards=cards,
        summaries=[summary],
        charts=charts,
        curves=training_charts(run),
        grids=grids,
        pictures=pictures,
    )
    if rankings:
        print_tables([summary])
    if baseline:
        for before, after in zip(baseline[1], rankings, strict=True):
            print(gain_line(baseline[0]["method"], before, after))
    print(f"page: {page}")
    return page


def compare_runs(
    patterns: Iterable[str], out: Path, against: str | None = None, published: bool = False, about: Sequence[str] = ()
) -> Path:
    """Print the tables of the cards named, write them, their charts and a page to `out`; the page's path.

    `against` names the row to which all are compared, instead of each column's best; `published` adds the rows of the
    paper's table; the lines of `about` follow the conclusion. Raises UserError when there is no
    card, or one that cannot be read.
    """
    runs = [(read_card(path), path.parent) for path in card_paths(patterns)]
    runs.sort(key=lambda run: run[0]["time"])
    cards = [card for card, _ in runs]
    measured = summarize(cards, against)
    measured = replace(measured, conclusion=(*measured.conclusion, *about))
    summaries = [measured, *([published_summary()] if published else [])]
    charts = chart_sections(cards)
    curves: list[Chart] = []
    grids: list[tuple[str, bytes]] = []
    pictures: list[tuple[str, bytes]] = []
    for name, (_, folder) in zip(row_names(cards), runs, strict=True):
        curves += [Chart(f"{name}: {chart.title}", chart.svg) for chart in training_charts(folder)]
        files = sorted(path for path in (folder / "grids").glob("*") if path.suffix in (".jpg", ".png"))
        grids += [(f"{name}: {path.stem}", path.read_bytes()) for path in files]
        pictures += [(f"{name}: {title}", image) for title, image in read_pictures(folder)]
    write_text(out / "table.md", to_markdown(summaries))
    write_text(out / "table.tex", to_latex(summaries))
    write_text(out / "results.json", json.dumps([brief_card(card) for card in cards], indent=1) + "\n")
    write_charts(out / "figures", charts)
    page = write_page(
        out / "report.html",
        title=f"Results: {out.resolve().name}",
        cards=cards,
        summaries=summaries,
        charts=charts,
        curves=curves,
        grids=grids,
        pictures=pictures,
    )
    print_tables(summaries)
    return page


def card_paths(patterns: Iterable[str]) -> list[Path]:
    """The cards that paths, folders and globs name, each once. Raises UserError for a name of none."""
    paths: list[Path] = []
    for pattern in patterns:
        # A file called like a pattern, such as `run[1]`, is meant as itself.
        names = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))
        cards = [Path(name, "card.json") if Path(name).is_dir() else Path(name) for name in names]
        cards = [card for card in cards if card.exists()]
        if not cards:
            raise UserError(f"no result card at {pattern} (train or evaluate writes card.json in its run folder)")
        paths += cards
    return list(dict.fromkeys(paths))


def write_page(
    path: Path,
    *,
    title: str,
    cards: Sequence[Card],
    summaries: Sequence[Summary],
    charts: Sequence[ChartSection] = (),
    curves: Sequence[Chart] = (),
    grids: Sequence[tuple[str, bytes]] = (),
    worst: Sequence[tuple[str, bytes]] = (),
    pictures: Sequence[tuple[str, bytes]] = (),
    up: str = "",
) -> Path:
    """Write the page at `path` in one step: a section a summary, charts, training curves, grids and other pictures.

    `grids`, those of the `worst` queries and `pictures` are titles with a JPEG or PNG; `up` is the address of the
    leaderboard that the page belongs to. Text is escaped; an SVG is placed as it is, and should come
    from our own charts.
    """
    page = template(
        Path(__file__).with_name("page.html.j2"),
        outline=lambda value: "\n".join(outline(value)),
        protocol=protocol_line,
        markup=Markup,
    )
    html = page.render(
        title=title,
        runs=list(zip(row_names(cards), cards, strict=True)),
        summaries=summaries,
        sections=[*charts, *([ChartSection("Training", "", tuple(curves))] if curves else [])],
        grids=[(name, data_uri(image)) for name, image in grids],
        worst=[(name, data_uri(image)) for name, image in worst],
        pictures=[(name, data_uri(image)) for name, image in pictures],
        legend=[(COLOURS[kind], SIGNS[kind], meaning) for kind, meaning in LEGEND.items()],
        up=up,
    )
    return write_text(path, html)


def outline(value: Mapping[str, Any] | list[Any], indent: str = "") -> Iterator[str]:
    """Nested mappings and lists as indented lines in the manner of YAML, for people to read.

    >>> print(*outline({"optim": {"lr": 0.1, "steps": [1, 2]}}), sep="\\n")
    optim:
      lr: 0.1
      steps: [1, 2]
    """
    mapping = isinstance(value, Mapping)
    pairs = [(f"{key}:", item) for key, item in value.items()] if mapping else [("-", item) for item in value]
    for head, item in pairs:
        # A mapping, or a list that holds some, does not fit a line.
        inner = item if isinstance(item, list) else [item]
        if item and any(isinstance(part, Mapping | list) for part in inner):
            yield indent + head
            yield from outline(item, indent + "  ")
        else:
            yield f"{indent}{head} {item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)}"


def write_workspace(out: Path, project: str, benchmarks: Sequence[str], entity: str | None = None) -> Path:
    """Write W&B's page of a project to `out`/workspace.json, and have it laid out there where an `entity` is given.

    `benchmarks` are the names of those that validate. Raises UserError without the package, or for a server that
    refuses or is not there.
    """
    try:
        from wandb_workspaces import workspaces as ws
        from wandb_workspaces.reports import v2 as wr
    except ImportError:
        raise UserError("a workspace needs the package wandb-workspaces: pip install 'dolglab[workspace]'") from None
    panels: dict[str, list[Any]] = {section: [] for section in WORKSPACE}
    for section, charts in WORKSPACE.items():
        for title, metrics in charts.items():
            pattern = metrics if isinstance(metrics, str) else None
            y: list[Any] = [] if pattern else list(metrics)
            panels[section].append(wr.LinePlot(title=title, x=STEP, y=y, metric_regex=pattern))
    for name in benchmarks:
        curves, queries = (f"val/{name.replace(' ', '_')}/{kind}" for kind in ("precision_recall", "queries"))
        # The chart that `wandb.plot.line_series` makes, over the table that it logs.
        chart = wr.CustomChart(
            query={"summaryTable": {"tableKey": f"{curves}_table"}},
            chart_name="wandb/lineseries/v0",
            chart_fields={"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"},
            chart_strings={"title": curves, "xname": "recall, %"},
        )
        panels["retrieval"].append(chart)
        panels["images"].append(wr.WeavePanelSummaryTable(table_name=queries))
    workspace = ws.Workspace(
        entity=entity or "",
        project=project,
        name="DOLG",
        sections=[ws.Section(name=name, panels=drawn, is_open=True) for name, drawn in panels.items()],
        settings=ws.WorkspaceSettings(x_axis=STEP),
    )
    path = write_text(out / "workspace.json", workspace._to_model().model_dump_json(by_alias=True, indent=1) + "\n")
    if entity is None:
        print(f"{path}: entity=NAME lays it out on W&B")
        return path
    try:
        workspace.save()
    except Exception as error:
        raise UserError(f"W&B does not take the workspace ({error}): {path} holds it") from error
    print(f"{path}: {workspace.url}")
    return path
