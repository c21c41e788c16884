"""Filters of a search as SQL on the catalogue: values of columns, ranges of numbers, and periods of `taken`.

COLUMN=VALUE matches that value. COLUMN=LOW..HIGH also matches any number from LOW to HIGH. taken=2019, taken=2019-07
and taken=2019-05..2019-08 match photos taken in that period, including its last day, month or year. Either end of a
range may be omitted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from dolglab.data.exif import LONGITUDE, TAKEN
from dolglab.errors import UserError
from dolglab.io import is_utf8

DATE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d)?)?)?)?")
# SQLite casts any text to a number, usually to 0.
NUMBER = "(value GLOB '[0-9]*' OR value GLOB '[-+.][0-9]*')"
# Completes a partial date, to check that the date exists.
FIRST = "0001-01-01T00:00:00"
# Appended to a prefix, this sorts after every text with that prefix.
LAST = "\U0010ffff"
Condition = tuple[str, list[object]]


def parse_filters(conditions: Sequence[str], option: str) -> dict[str, str]:
    """Values by column. Raises UserError, naming the `option`, for a condition that is not COLUMN=VALUE in UTF-8.

    >>> parse_filters(["year=1900", "place=a=b"], "--where")
    {'year': '1900', 'place': 'a=b'}
    """
    for condition in conditions:
        if not is_utf8(condition):
            raise UserError(f"{option} {os.fsencode(condition)!r} is not UTF-8")
        if "=" not in condition:
            raise UserError(f"{option} takes COLUMN=VALUE, not {condition}")
    return dict(condition.split("=", 1) for condition in conditions)


def condition_of(column: str, value: str) -> Condition:
    """The SQL condition, with its parameters, on the rows of `field` that belong to the column.

    Raises UserError for a period of `taken` whose ends are not dates.

    >>> condition_of("year", "1900")
    ('value = ?', ['1900'])
    >>> condition_of("latitude", "43..44.5")[1]
    ['43..44.5', 43.0, 44.5]
    """
    low, dots, high = value.partition("..")
    if column == TAKEN:
        return _period(value, low, high if dots else low)
    ends = _number(low, float("-inf")), _number(high, float("inf"))
    if not dots or None in ends or not (low or high):
        return "value = ?", [value]
    first, last = (end for end in ends if end is not None)
    # A range of longitudes whose lower end is larger crosses the date line.
    joined = "OR" if column == LONGITUDE and first > last else "AND"
    within = f"(CAST(value AS REAL) >= ? {joined} CAST(value AS REAL) <= ?)"
    return f"(value = ? OR {NUMBER} AND {within})", [value, first, last]


def _period(value: str, first: str, last: str) -> Condition:
    if not all(_is_date(end) for end in (first, last) if end) or not (first or last):
        if ".." in value:
            raise UserError(f"{TAKEN}={value}: give a date such as 2019, 2019-07 or 2019-07-04, or FROM..TO")
        return "value = ?", [value]
    # A photo with a less precise date, such as a year, matches if it may be from that time.
    coarser = [first[:size] for size in (4, 7, 10) if size < len(first)]
    among = ", ".join("?" * len(coarser))
    return f"((value >= ? OR value IN ({among})) AND value <= ?)", [first, *coarser, last + LAST]


def _is_date(text: str) -> bool:
    if not DATE.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text + FIRST[len(text) :])
    except ValueError:
        return False
    return True


def _number(text: str, otherwise: float) -> float | None:
    """The number in a text; `otherwise` for an empty text, None for a text that is not a number."""
    try:
        return float(text) if text else otherwise
    except ValueError:
        return None


def where_of(filters: Mapping[str, str], folder: str = "") -> Condition:
    """The SQL condition, with its parameters, on rows of `photo` that pass all filters and are below a folder.

    Raises UserError like `condition_of`.
    """
    parts, values = ["TRUE"], list[object]()
    for column, value in filters.items():
        condition, own = condition_of(column, value)
        parts.append(f"id IN (SELECT photo FROM field WHERE name = ? AND {condition})")
        values += [column, *own]
    if folder:
        # 0 is the character after /.
        parts.append("name > ? AND name < ?")
        values += [os.fsencode(f"{folder}/"), os.fsencode(f"{folder}0")]
    return " AND ".join(parts), values
