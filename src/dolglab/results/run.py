"""What every run ends with: a card, the printed table, ranked grids and a page, all in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from dolglab.contracts import Ranking
from dolglab.io import write_bytes, write_text
from dolglab.results.card import Baseline, caveats, gain_line, make_card, write_card
from dolglab.results.card_charts import chart_sections, training_charts, write_charts
from dolglab.results.comparison_tables import summarize
from dolglab.results.pictures import ranked_grid, write_pictures
from dolglab.results.report import write_page
from dolglab.results.table_formats import print_tables


def finish_run(
    run: Path,
    *,
    name: str,
    method: str,
    rankings: Sequence[Ranking],
    protocol: Mapping[str, object],
    checkpoint: Path | None,
    config: Mapping[str, object],
    training: Mapping[str, object] | None = None,
    validation_map: float | None = None,
    baseline: Baseline | None = None,
    pictures: Sequence[tuple[str, bytes]] = (),
) -> Path:
    """Write `card.json`, `rankings/BENCHMARK.json`, `grids/BENCHMARK.jpg` and `report.html` to `run`; print the table.

    Of GLDv2's own evaluations also `submissions/BENCHMARK.csv`, of curves in the rankings `figures/*.svg`, and of
    `pictures` (titles and JPEGs) `pictures/NN.jpg`.

    The card of the `baseline` goes to `baseline/card.json`, its row stands above the run's, and the gain is printed.
    Returns the page's path.
    """
    card = make_card(
        name=name,
        method=method,
        rankings=rankings,
        protocol=protocol,
        checkpoint=checkpoint,
        config=config,
        training=training,
        validation_map=validation_map,
    )
    cards = [card]
    if baseline:
        reference = make_card(
            name=f"{name}/baseline",
            method=baseline.method,
            rankings=baseline.rankings,
            protocol={**protocol, "selection": dict(baseline.selection)},
            checkpoint=baseline.checkpoint,
            config=config,
            training=baseline.training,
        )
        write_card(reference, run / "baseline" / "card.json")
        cards = [reference, card]
    write_card(card, run / "card.json")
    grids: list[tuple[str, bytes]] = []
    for ranking, result in zip(rankings, card["benchmarks"], strict=True):
        benchmark = ranking.benchmark.name
        file = benchmark.replace("/", "_")
        grids.append((benchmark, ranked_grid(ranking, notes=caveats(card, result))))
        write_text(run / "rankings" / f"{file}.json", ranked_names(ranking))
        write_bytes(run / "grids" / f"{file}.jpg", grids[-1][1])
        if (submission := ranking.benchmark.measure.submission(ranking)) is not None:
            write_text(run / "submissions" / f"{file}.csv", submission)
    write_pictures(run, pictures)
    charts = chart_sections(cards)
    write_charts(run / "figures", charts)
    summary = summarize(cards)
    page = write_page(
        run / "report.html",
        title=name,
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
        for before, after in zip(baseline.rankings, rankings, strict=True):
            print(gain_line(baseline, before, after))
    print(f"page: {page}")
    return page


def ranked_names(ranking: Ranking) -> str:
    """JSON: for each query's name, the names of its first answers, best first."""
    name = ranking.benchmark.source.name
    queries = ranking.benchmark.queries.tolist()
    return json.dumps(
        {name(q): [name(a) for a in row.tolist() if a >= 0] for q, row in zip(queries, ranking.top, strict=True)},
        indent=0,
    )


def protocol(
    scales: Sequence[float],
    resize: str | None,
    max_side: int | None,
    selection: Mapping[str, str],
    precision: str,
    orientation: str = "exif",
) -> dict[str, object]:
    """The part of a card without which its figures mean nothing; `selection` are the sets that chose the weights.

    Of methods that rescale no image, `scales` are empty and there is no `resize`.
    """
    return {
        "scales": list(scales) or None,
        "resize": resize,
        "image_size": max_side,
        "selection": dict(selection),
        # float32 goes without saying, and so do upright photographs.
        "precision": None if precision == "32-true" else precision,
        "orientation": None if orientation == "exif" else orientation,
    }
