"""Queries with their first answers for a report: those that show how methods differ, and examples of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dolglab.results.first_answers import SHOWN, WORST, Answer, QueryAnswers, read_answers
from dolglab.results.pictures import ap_at, chosen_queries, worst_queries
from dolglab.results.tables import Card, Column, ap_of, benchmark_of, main_columns, row_names, value_of

# Largest number of methods side by side; the best are shown.
MAX_METHODS = 4
# Smallest AP of a query that counts as found.
RIGHT = 0.5


@dataclass(frozen=True)
class AnswerRow:
    """A method's answers to a query, with its name and the query's AP in percent (None if it is left out)."""

    method: str
    ap: float | None
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class ShownQuery:
    """A query with rows of answers; the title says why it is shown.

    `right` is the number of right photos in the gallery, None if it is not known.
    """

    title: str
    query: Answer
    rows: tuple[AnswerRow, ...]
    right: int | None = None


@dataclass(frozen=True)
class QuerySection:
    """Queries of a data set; the hint says how they were chosen."""

    title: str
    hint: str
    queries: tuple[ShownQuery, ...]


def telling_queries(ap: Float[np.ndarray, "methods queries"], names: Sequence[str]) -> dict[str, int]:
    """Up to three queries, by the sentence that says why; `names` are the methods, the best first.

    They are a query that all methods find (the highest minimum AP, if it is at least a half), the one with the largest
    gain of the best method over the second, and the one with its largest loss or, without a loss, the one with the
    lowest maximum AP (if it is below a half). Queries with NaN are left out. Ties go to the first query.
    """
    best, second = names[:2]
    gain, worst, most = ap[0] - ap[1], ap.min(axis=0), ap.max(axis=0)
    everyone = "Both methods find it" if len(names) == 2 else "All methods find it"
    nobody = everyone.replace("find it", "fail")
    lost = bool((gain < 0).any())
    rules = [
        (everyone, np.where(worst >= RIGHT, worst, np.nan)),
        (f"Largest gain of {best} over {second}", np.where(gain > 0, gain, np.nan)),
        (f"Largest loss of {best} to {second}", -np.where(gain < 0, gain, np.nan))
        if lost
        else (nobody, -np.where(most < RIGHT, most, np.nan)),
    ]
    chosen: dict[str, int] = {}
    for title, merit in rules:
        merit = np.where(np.isin(np.arange(len(merit)), list(chosen.values())), np.nan, merit)
        if np.isfinite(merit).any():
            chosen[title] = int(np.nanargmax(merit))
    return chosen


def telling_sections(cards: Sequence[Card], folders: Sequence[Path]) -> list[QuerySection]:
    """A section for each data set for which two or more runs stored answers; `folders` are those of the cards."""
    sections = []
    for column in main_columns(cards).values():
        kept = _kept(cards, folders, column)
        if len(kept) < 2:
            continue
        ranked = sorted(kept, key=lambda row: -(value_of(cards[row], column) or 0.0))[:MAX_METHODS]
        shared = sorted(set.intersection(*(set(kept[row]) for row in ranked)))
        ap = np.array([ap_of(cards[row], column) for row in ranked], np.float64)
        names = [row_names(cards)[row] for row in ranked]
        queries = tuple(
            ShownQuery(
                title,
                kept[ranked[0]][shared[place]].query,
                tuple(
                    AnswerRow(name, percent(own[shared[place]]), kept[row][shared[place]].answers)
                    for name, row, own in zip(names, ranked, ap, strict=True)
                ),
                kept[ranked[0]][shared[place]].right,
            )
            for title, place in telling_queries(ap[:, shared], names).items()
        )
        sections.append(QuerySection(column.group, _hint(len(shared), ap.shape[1], len(ranked), len(kept)), queries))
    return [section for section in sections if section.queries]


def _kept(cards: Sequence[Card], folders: Sequence[Path], column: Column) -> dict[int, Mapping[int, QueryAnswers]]:
    """The stored answers of each run, by row; only runs with as many queries as the first run that has some."""
    rows = {row: ap for row, card in enumerate(cards) if (ap := ap_of(card, column))}
    count = len(next(iter(rows.values()), ()))
    kept = {row: read_answers(folders[row], column.dataset[0]) for row, ap in rows.items() if len(ap) == count}
    return {row: answers for row, answers in kept.items() if answers and max(answers) < count}


def _hint(kept: int, queries: int, shown: int, methods: int) -> str:
    """How the queries were chosen, if not from all queries of all methods."""
    parts = [f"chosen among {kept} of the {queries:,} queries"] if kept < queries else []
    parts += [f"the best {shown} of {methods} methods"] if shown < methods else []
    return ", ".join(parts)


def run_sections(card: Card, folder: Path) -> tuple[list[QuerySection], list[QuerySection]]:
    """A run's hardest queries, the lowest AP first, and others from the best to the worst; a section per benchmark."""
    hardest, others = [], []
    for column in main_columns([card]).values():
        kept = read_answers(folder, column.dataset[0])
        ap = ap_at(benchmark_of(card, column.dataset)["ap"], column.difficulty)
        worst = worst_queries(ap, WORST)
        spread = [query for query in chosen_queries(ap, SHOWN) if query not in worst]
        for sections, queries in ((hardest, worst), (others, spread)):
            shown = tuple(_shown(kept[query], float(ap[query])) for query in queries if query in kept)
            sections += [QuerySection(column.group, "", shown)] if shown else []
    return hardest, others


def _shown(kept: QueryAnswers, ap: float) -> ShownQuery:
    if not kept.before:
        return ShownQuery("", kept.query, (AnswerRow("", percent(ap), kept.answers),), kept.right)
    rows = AnswerRow("before re-ranking", None, kept.before), AnswerRow("re-ranked", percent(ap), kept.answers)
    return ShownQuery("", kept.query, rows, kept.right)


def percent(fraction: float) -> float | None:
    """In percent; None if it is not finite."""
    return 100 * fraction if np.isfinite(fraction) else None
