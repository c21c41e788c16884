"""Shared code of the Typer commands: names in the usage line, and user errors in one line."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, cast

import typer

from dolglab.errors import UserError, os_error_text, reader_gone

ALLOW = "A scheme such as s3, or a URL such as https://host/2019, that a library's own paths may open; may be repeated."
BACKEND = "What runs the network: torch, onnx, or auto (onnx if it is installed and faster)."
# The environment variable is DOLG_ALLOW, separated by commas: see `dolglab.data.addresses`.
Allow = Annotated[list[str] | None, typer.Option("--allow", help=ALLOW)]

Backend = Annotated[str, typer.Option(help=BACKEND)]
# A wrong command line; Typer exports only its subclasses.
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__base__)


def run_command(name: str, main: Callable[..., None], examples: Sequence[str] = ()) -> None:
    """Run `main` with the arguments of the command line, as `dolglab NAME`; its help ends with the examples."""
    app = typer.Typer(add_completion=False)
    # One paragraph each, because lines of a paragraph are joined.
    app.command(epilog="\n\n".join(["Examples:", *examples]) if examples else None)(main)
    run_app(name, app)


def run_app(name: str, app: typer.Typer, arguments: list[str] | None = None) -> None:
    """Run an application with arguments, by default those of the command line, as `dolglab NAME`.

    Typer prints a wrong argument in a box of several lines; here it is one line, exit code 2.
    """
    try:
        status = app(arguments, prog_name=f"dolglab {name}", standalone_mode=False)
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else f"dolglab {name}"
        message = error.format_message().rstrip(".")
        typer.echo(f"error: {message[0].lower()}{message[1:]} (see {command} --help)", err=True)
        raise SystemExit(2) from None
    raise SystemExit(status)


@contextmanager
def user_errors(stopped: str = "stopped") -> Iterator[None]:
    """Context of a whole command: user errors and errors of the file system are printed as one line, exit code 2.

    Idle OpenMP threads sleep instead of spinning, which is several times faster on a shared machine; torch reads this
    setting when it is imported. After an interrupt from the keyboard, `stopped` is printed.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        yield
        return
    except UserError as error:
        line = str(error)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and reader_gone():
            raise SystemExit(1) from None
        line = os_error_text(error)
    except sqlite3.Error as error:
        line = f"the library's catalogue: {error}"
    except KeyboardInterrupt:
        typer.echo(stopped, err=True)
        raise SystemExit(130) from None
    typer.echo(f"error: {line}", err=True)
    raise SystemExit(2)
