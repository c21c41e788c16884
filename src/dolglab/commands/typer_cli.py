"""What the entry points of use share: a person's mistake in one line, and idle threads that sleep."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from dolglab.errors import UserError, os_error_text


@contextmanager
def user_errors(stopped: str = "stopped") -> Iterator[None]:
    """Around all that a command does and imports: mistakes, and what disks refuse, are one line, exit code 2.

    Idle OpenMP threads sleep instead of spinning, which on a shared machine is several times faster; torch asks for it
    when it is imported.

    Args:
        stopped: what is said to whoever stops it from the keyboard.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        yield
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    except OSError as error:
        typer.echo(f"error: {os_error_text(error)}", err=True)
        raise SystemExit(2) from None
    except sqlite3.Error as error:
        typer.echo(f"error: the library's catalogue: {error}", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        typer.echo(stopped, err=True)
        raise SystemExit(130) from None
