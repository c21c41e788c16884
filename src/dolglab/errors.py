"""Errors that end a command without a traceback: a user's mistake with one line, a closed pipe with none."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake that the user can correct: commands print its one line and exit with code 2, without a traceback."""


def os_error_text(error: OSError) -> str:
    """An error of the disk or the system, on one line."""
    return f"{error.filename or 'a file'}: {error.strerror or error}"


def pluralize(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless the number is 1."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def truncate_list(names: Sequence[str], most: int = 3) -> str:
    """The first names, and the number of the others."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


@contextmanager
def quiet_broken_pipe() -> Iterator[None]:
    """Run a command so that it ends silently with exit code 1 if a reader of its output, such as `head`, is gone."""
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        # Otherwise the interpreter would flush at the end, and complain.
        sys.stdout.flush()
    except BrokenPipeError:
        if not reader_gone():
            raise
        raise SystemExit(1) from None


def reader_gone() -> bool:
    """Whether nobody reads standard output or error any more; if so, further output is dropped."""
    streams = select.poll()
    for number in (1, 2):
        streams.register(number, 0)
    gone = [number for number, event in streams.poll(0) if event & select.POLLERR]
    for number in gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return bool(gone)
