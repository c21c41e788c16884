"""Reports of a run and of several runs: cards, tables, charts and pages; and a project's page on W&B."""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dolglab.contracts import Ranking
from dolglab.errors import UserError, truncate_list
from dolglab.io import file_name, write_bytes, write_text
from dolglab.processes import CARD
from dolglab.results.card import brief_card, caveats, gain_line, read_card, write_card
from dolglab.results.card_charts import Chart, ChartSection, chart_sections, write_charts
from dolglab.results.comparison_tables import summarize, validation_line
from dolglab.results.first_answers import WORST, write_answers
from dolglab.results.metrics_log import METRICS
from dolglab.results.page import write_page
from dolglab.results.pictures import answers_of, ranked_grid, read_pictures, shown_ap, worst_queries, write_pictures
from dolglab.results.published import published_summary
from dolglab.results.query_sections import run_sections, telling_sections
from dolglab.results.stored_rankings import write_rankings
from dolglab.results.table_formats import print_tables, to_latex, to_markdown
from dolglab.results.tables import Card, Summary, main_columns, row_names, value_of
from dolglab.results.training_charts import compared_curves, training_charts

# The x axis on W&B: Lightning's count of optimizer steps, which continues in a resumed run.
STEP = "trainer/global_step"
# A project's page on W&B: charts by section and title, with their metrics or a pattern of metrics.
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
    # The tables of queries are added here.
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

    Further files: `rankings/BENCHMARK.npz` (the data behind the figures), `worst/BENCHMARK.jpg` (queries of lowest AP),
    `answers/BENCHMARK.zip` (first answers for reports), `figures/*.svg` (charts), `pictures/NN.jpg` (from `pictures`,
    titles and JPEGs) and, for GLDv2's own evaluations, `submissions/BENCHMARK.csv`.

    The card of the `baseline` and its answers are written to `baseline/`. Its row is above the run's, and the gain over
    its rankings is the first line of the page and the last in the terminal. Returns the page's path.
    """
    cards, folders = [card], [run]
    if baseline:
        cards, folders = [baseline[0], card], [run / "baseline", run]
        write_card(baseline[0], run / "baseline" / CARD)
        for ranking in baseline[1]:
            write_answers(run / "baseline", ranking)
    write_card(card, run / CARD)
    for ranking, result in zip(rankings, card["benchmarks"], strict=True):
        _write_rankings(run, ranking, caveats(card, result))
    write_pictures(run, pictures)
    charts = chart_sections(cards)
    write_charts(run / "figures", charts)
    summary = summarize(cards)
    gains = [
        gain_line(before[0]["method"], old, new)
        for before in ([baseline] if baseline else [])
        for old, new in zip(before[1], rankings, strict=True)
    ]
    summary = replace(summary, conclusion=(*(gains or summary.conclusion), *validation_line(card)))
    hardest, others = run_sections(card, run)
    page = write_page(
        run / "report.html",
        title=_title(card),
        cards=cards,
        summaries=[summary],
        telling=telling_sections(cards, folders),
        charts=[*_training(training_charts(run)), *charts],
        hardest=hardest,
        rankings=others,
        pictures=pictures,
    )
    if rankings:
        print_tables([summary])
    print(f"page: {page}")
    return page


def _title(card: Card) -> str:
    """The title of a run's page: its method, with the run's name if that is another."""
    return card["method"] if card["method"] == card["name"] else f"{card['method']} (run {card['name']})"


def write_unfinished(run: Path, card: Card, progress: str) -> Path | None:
    """Write `report.html` of a training that has not been tested, with its curves so far, to `run`.

    `progress` says how far it came. There is no `card.json`, which only a finished run has; the page is replaced when
    the run is resumed and finishes. Returns the page's path; None if nothing was logged.
    """
    charts = _training(training_charts(run))
    if not charts:
        return None
    best = card["validation_map"]
    validated = [] if best is None else [f"Best validation mAP so far: {100 * best:.2f} %."]
    summary = Summary("", (), {}, (), (progress, *validated))
    return write_page(run / "report.html", title=_title(card), cards=[card], summaries=[summary], charts=charts)


def _write_rankings(run: Path, ranking: Ranking, notes: Sequence[str]) -> None:
    """Write a benchmark's answers: names, ranks, thumbnails, and grids of queries with `notes`."""
    benchmark = ranking.benchmark
    file, name, queries = file_name(benchmark.name), benchmark.source.name, benchmark.queries.tolist()
    # Names of each query's first answers, best first, by the query's name.
    rows = [answers_of(benchmark, query, row).tolist() for query, row in enumerate(ranking.top)]
    named = {name(query): list(map(name, row)) for query, row in zip(queries, rows, strict=True)}
    write_text(run / "rankings" / f"{file}.json", json.dumps(named, indent=0))
    write_rankings(run, ranking)
    write_answers(run, ranking)
    write_bytes(run / "grids" / f"{file}.jpg", ranked_grid(ranking, notes=notes))
    write_bytes(run / "worst" / f"{file}.jpg", ranked_grid(ranking, queries=worst_queries(shown_ap(ranking), WORST)))
    if (submission := benchmark.measure.submission(ranking)) is not None:
        write_text(run / "submissions" / f"{file}.csv", submission)


def _training(charts: Sequence[Chart]) -> list[ChartSection]:
    """The section of training charts, if there are any."""
    return [ChartSection("Training", "", tuple(charts))] if charts else []


def compare_runs(
    patterns: Iterable[str], out: Path, against: str | None = None, published: bool = False, about: Sequence[str] = ()
) -> Path:
    """Print the tables of cards; write tables, charts and a page to `out`. Returns the page's path.

    `against` is the row with which all are compared, instead of each column's best; `published` adds the rows of the
    paper's table; the lines of `about` follow the conclusion. Raises UserError without a card, and for one that cannot
    be read.
    """
    runs = [(read_card(path), path.parent) for path in card_paths(patterns)]
    runs.sort(key=lambda run: run[0]["time"])
    cards, folders = [card for card, _ in runs], [folder for _, folder in runs]
    names = row_names(cards)
    measured = summarize(cards, against)
    measured = replace(measured, conclusion=(*measured.conclusion, *about))
    summaries = [measured, *([published_summary()] if published else [])]
    charts = chart_sections(cards)
    write_text(out / "table.md", to_markdown(summaries))
    write_text(out / "table.tex", to_latex(summaries))
    write_text(out / "results.json", json.dumps([brief_card(card) for card in cards], indent=1) + "\n")
    write_charts(out / "figures", charts)
    alone = len(runs) == 1
    curves = training_charts(folders[0]) if alone else compared_curves(dict(zip(names, folders, strict=True)))
    hardest, others = run_sections(cards[0], folders[0]) if alone else ([], [])
    page = write_page(
        out / "report.html",
        title=f"Results: {out.resolve().name}",
        cards=cards,
        summaries=summaries,
        telling=telling_sections(cards, folders),
        charts=[*charts, *_training(curves)],
        hardest=hardest,
        rankings=others,
        pictures=[
            (f"{name}: {title}", image)
            for name, folder in _best_first(cards, list(zip(names, folders, strict=True)))
            for title, image in read_pictures(folder)
        ],
    )
    print_tables(summaries)
    return page


def _best_first(cards: Sequence[Card], runs: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """The runs of the cards, by their main figures, so that what does not fit a page is of the worst."""
    columns = main_columns(cards).values()
    merits = [[value_of(card, column) or 0.0 for column in columns] for card in cards]
    return [run for _, run in sorted(zip(merits, runs, strict=True), key=lambda pair: pair[0], reverse=True)]


def card_paths(patterns: Iterable[str]) -> list[Path]:
    """The cards at paths, in folders and of globs, each once. Raises UserError for a pattern without a card."""
    paths: list[Path] = []
    for pattern in patterns:
        # An existing file with a name like a pattern, such as `run[1]`, is taken literally.
        names = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))
        named = [Path(name, CARD) if Path(name).is_dir() else Path(name) for name in names]
        cards = [card for card in named if card.exists()]
        # A run whose training did not finish has a log, but no card.
        stopped = [str(card.parent) for card in named if not card.exists() and (card.parent / METRICS).exists()]
        hint = f"unfinished training in {truncate_list(stopped)}; to resume: dolglab train resume=true name=NAME"
        if not cards:
            why = hint if stopped else "train or evaluate writes card.json in its run folder"
            raise UserError(f"no result card at {pattern} ({why})")
        if stopped:
            print(f"left out: {hint}", file=sys.stderr)
        paths += cards
    return list(dict.fromkeys(paths))


def write_workspace(out: Path, project: str, benchmarks: Sequence[str], entity: str | None = None) -> Path:
    """Write the layout of a project's W&B page to `out`/workspace.json; with an `entity`, also save it on W&B.

    `benchmarks` are the names of the validation benchmarks. Raises UserError without the package, and if the server
    refuses or cannot be reached.
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
        print(f"{path}: entity=NAME also saves it on W&B")
        return path
    try:
        workspace.save()
    except Exception as error:
        raise UserError(f"W&B did not accept the workspace ({error}); it is in {path}") from error
    print(f"{path}: {workspace.url}")
    return path
