"""The one exception that entry points turn into one line, and how it names many; contracts are heavy to import."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(ValueError):
    """Something a person must mend: entry points print its one line and exit with code 2, without a traceback."""


def os_error_text(error: OSError) -> str:
    """What a disk or the system did not allow, on one line."""
    return f"{error.filename or 'a file'}: {error.strerror or error}"


def pluralize(number: int, noun: str) -> str:
    """A number with its noun, which takes an s but for one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def truncate_list(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many there are beyond."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
