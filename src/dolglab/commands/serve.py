"""Serve a library in the browser and over HTTP: `dolglab serve --library library/`."""

from __future__ import annotations

from typing import Annotated

import typer

from dolglab.commands.typer_cli import run_command, user_errors
from dolglab.errors import UserError

ASK_TOKEN = "Ask everyone for this token; better in the environment than on the command line, where others can read it."
HOST_NAME = "A host name the server is reached by, besides localhost, this machine's own and addresses."


def main(
    library: Annotated[str, typer.Option(help="The library's folder.")],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is reached from the network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.", min=0, max=65535)] = 8765,
    token: Annotated[str | None, typer.Option(help=ASK_TOKEN, envvar="DOLG_TOKEN")] = None,
    name: Annotated[list[str] | None, typer.Option(help=HOST_NAME)] = None,
    max_upload_mb: Annotated[float, typer.Option(help="Megabytes of a photo that is sent.", min=0.001)] = 20,
    max_megapixels: Annotated[float, typer.Option(help="Megapixels of such a photo.", min=0.001)] = 50,
    rate: Annotated[float, typer.Option(help="Requests a minute of one client that make it work.", min=1)] = 60,
    backend: Annotated[str, typer.Option(help="What runs the network: torch or onnx.")] = "torch",
    read_only: Annotated[bool, typer.Option("--read-only", help="Neither add nor remove photos.")] = False,
) -> None:
    """Search a library in the browser; a REST API is beside the page, described at /api/openapi.json."""
    with user_errors():
        try:
            from dolglab.server.app import run
            from dolglab.server.security import Settings
        except ModuleNotFoundError as error:
            raise UserError(f"{error.name} is not installed: pip install 'dolglab[serve]'") from None
        if token is not None and not (token.isascii() and token.strip() == token and token):
            raise UserError("--token wants ASCII without blanks at its ends")
        settings = Settings(
            token=token,
            max_upload=int(max_upload_mb * 1e6),
            max_pixels=int(max_megapixels * 1e6),
            rate=rate,
            read_only=read_only,
            names=frozenset(name or ()),
        )
        run(library, host, port, settings, backend)


if __name__ == "__main__":
    run_command("serve", main)
