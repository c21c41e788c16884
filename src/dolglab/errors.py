"""The one exception that entry points turn into one line, and how it names many; contracts are heavy to import."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """Something a person must mend: entry points print its one line and exit with code 2, without a traceback."""


def refused(error: OSError) -> str:
    """What a disk or the system did not allow, on one line."""
    return f"{error.filename or 'a file'}: {error.strerror or error}"


def counted(number: int, noun: str) -> str:
    """A number with its noun, which takes an s but for one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many there are beyond."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
