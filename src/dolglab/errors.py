"""What ends a command without a traceback: a person's mistake, in one line that can name many; `| head`, in none."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


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


@contextmanager
def quiet_broken_pipe() -> Iterator[None]:
    """Around a command: it ends with exit code 1 and without a word where the reader of its output goes, as `head`."""
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        # What the interpreter would flush, and complain about, after the end.
        sys.stdout.flush()
    except BrokenPipeError:
        if not reader_gone():
            raise
        raise SystemExit(1) from None


def reader_gone() -> bool:
    """Whether nobody reads standard output or error any more; what is still printed there is dropped from then on."""
    streams = select.poll()
    for number in (1, 2):
        streams.register(number, 0)
    gone = [number for number, event in streams.poll(0) if event & select.POLLERR]
    for number in gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return bool(gone)
