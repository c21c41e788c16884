"""The leaderboard: a static page with a table per benchmark, and a page per model; from cards and published figures."""

from __future__ import annotations

import base64
import hashlib
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dolglab.errors import UserError
from dolglab.io import write_bytes, write_text
from dolglab.processes import CARD
from dolglab.results.boards import Run, make_boards, on_benchmark
from dolglab.results.card import read_card, write_card
from dolglab.results.card_charts import ChartSection, file_stem, tradeoff_charts
from dolglab.results.comparison_tables import summarize, three_digits
from dolglab.results.page import write_page
from dolglab.results.query_sections import run_sections
from dolglab.results.stored_rankings import rankings_file
from dolglab.results.tables import dataset_names
from dolglab.templates import template

INDEX, SCRIPT = "index.html", Path(__file__).with_name("leaderboard.js")


def write_leaderboard(files: Sequence[Path], out: Path) -> Path:
    """Write the leaderboard of cards, the models' pages and copies of the cards to `out`. Returns the page's path.

    Cards that cannot be read or were edited are reported and left out. Raises UserError if none is left.
    """
    read = list(_readable(files))
    if not read:
        raise UserError("none of these cards can be read: there is nothing to show")
    # Otherwise equal rows are sorted by time, newest first.
    read.sort(key=lambda run: run[0]["time"], reverse=True)
    methods = list(dict.fromkeys(card["method"] for card, _ in read))
    pages = dict(zip(methods, _distinct([file_stem(method) or "model" for method in methods]), strict=True))
    slugs = _distinct([file_stem(card["name"]) or "card" for card, _ in read])
    runs = [
        Run(card, folder, f"cards/{slug}/{CARD}", f"models/{pages[card['method']]}.html")
        for (card, folder), slug in zip(read, slugs, strict=True)
    ]
    _tell_namesakes(runs)
    for run in runs:
        _copy(run, out)
    for method in methods:
        _write_model(out, method, [run for run in runs if run.card["method"] == method], runs)
    boards = make_boards(runs)
    script = SCRIPT.read_text(encoding="utf-8")
    page = template(Path(__file__).with_name("leaderboard.html.j2"), number=_number)
    html = page.render(
        boards=boards,
        runs=len(runs),
        models=len(methods),
        stages=list(dict.fromkeys(row.stage for board in boards for row in board.rows)),
        trainings=sorted({row.training for board in boards for row in board.rows}),
        latest=max(run.card["time"] for run in runs)[:10],
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return write_text(out / INDEX, html)


def _readable(files: Sequence[Path]) -> Iterator[tuple[dict[str, Any], Path]]:
    """The readable cards with their folders; the others are reported."""
    for file in files:
        try:
            yield read_card(file), file.parent
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)


def _tell_namesakes(runs: Sequence[Run]) -> None:
    """Report cards with the same name; their rows are numbered."""
    called: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        for benchmark in run.card["benchmarks"]:
            called[f"{run.card['name']} on {benchmark['name']}"].append(str(run.folder))
    for name, folders in called.items():
        if len(folders) > 1:
            print(f"{len(folders)} cards have the name {name}: {', '.join(folders)}", file=sys.stderr)


def _write_model(out: Path, method: str, own: Sequence[Run], runs: Sequence[Run]) -> None:
    """Write a model's page: its tables, costs compared with other models, worst queries, and cards."""
    summaries, charts, hardest = [], [], []
    for dataset, name in dataset_names([run.card for run in own]).items():
        cards = [run.card for run in on_benchmark(own, dataset)]
        summaries.append(replace(summarize(cards), title=name))
        charts += tradeoff_charts([run.card for run in on_benchmark(runs, dataset)])
    for run in own:
        sections, _ = run_sections(run.card, run.folder)
        where = f", {run.card['name']}" if len(own) > 1 else ""
        hardest += [replace(section, title=section.title + where) for section in sections]
    hint = "Compared with the other models. Towards the top left is better."
    write_page(
        out / own[0].page,
        title=method,
        cards=[run.card for run in own],
        summaries=summaries,
        charts=[ChartSection("Accuracy and cost", hint, tuple(charts))] if charts else [],
        hardest=hardest,
        up=f"../{INDEX}",
    )


def _copy(run: Run, out: Path) -> None:
    """Copy a card with its stored rankings, so that readers of the page can verify it."""
    card = out / run.address
    write_card(run.card, card)
    for benchmark in run.card["benchmarks"]:
        kept, copy = (rankings_file(folder, benchmark["name"]) for folder in (run.folder, card.parent))
        if kept.exists():
            write_bytes(copy, kept.read_bytes())


def _distinct(slugs: Sequence[str]) -> list[str]:
    """The slugs, made unique by numbers.

    >>> _distinct(["a", "b", "a"])
    ['a', 'b', 'a_2']
    """
    seen: Counter[str] = Counter()
    distinct = []
    for slug in slugs:
        seen[slug] += 1
        distinct.append(slug if seen[slug] == 1 else f"{slug}_{seen[slug]}")
    return distinct


def _number(value: float | None) -> str:
    """A cost with three digits; empty if there is none."""
    return "" if value is None else three_digits(value)
