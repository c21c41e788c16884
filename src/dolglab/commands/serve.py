"""Serve a library in the browser and over HTTP: `dolglab serve --library library`."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from dolglab.commands.typer_cli import Allow, Backend, run_command, user_errors
from dolglab.errors import UserError

ASK_TOKEN = "Require this token; safer in the environment than on the command line, where other users can see it."
PREFIX = "Path prefix of the server behind a proxy, such as /photos."
HOST_NAME = "An allowed host name, in addition to localhost, this machine's name and IP addresses; may be repeated."


def main(
    library: Annotated[str, typer.Option(help="The library's folder.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for the network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free one.", min=0, max=65535)] = 8765,
    token: Annotated[str | None, typer.Option(help=ASK_TOKEN, envvar="DOLG_TOKEN")] = None,
    name: Annotated[list[str] | None, typer.Option(help=HOST_NAME)] = None,
    root_path: Annotated[str, typer.Option(help=PREFIX)] = "",
    max_upload_mb: Annotated[float, typer.Option(help="Largest upload in megabytes.", min=0.001)] = 20,
    max_megapixels: Annotated[float, typer.Option(help="Largest uploaded photo in megapixels.", min=0.001)] = 50,
    max_decode_seconds: Annotated[float, typer.Option(help="Longest decoding of an upload, in seconds.", min=0.1)] = 20,
    rate: Annotated[float, typer.Option(help="Most requests per minute and client that need computation.", min=1)] = 60,
    backend: Backend = "auto",
    read_only: Annotated[bool, typer.Option("--read-only", help="Photos can be neither added nor removed.")] = False,
    allowed: Allow = None,
) -> None:
    """Search a library in the browser, or over a REST API, described at /api/openapi.json."""
    with user_errors():
        from dolglab.data.addresses import allow

        allow(allowed or ())
        try:
            from dolglab.server.app import run
            from dolglab.server.limits import Limits
            from dolglab.server.security import Settings
        except ModuleNotFoundError as error:
            raise UserError(f"{error.name} is not installed: pip install 'dolglab[serve]'") from None
        if token is not None and not (token.isascii() and token.strip() == token and token):
            raise UserError("--token must be ASCII, without spaces at its ends")
        settings = Settings(
            token=token,
            max_upload=int(max_upload_mb * 1e6),
            max_pixels=int(max_megapixels * 1e6),
            rate=rate,
            read_only=read_only,
            names=frozenset(name or ()),
            root_path=parse_root_path(root_path),
            limits=Limits(decoding=max_decode_seconds),
        )
        run(library, host, port, settings, backend)


def parse_root_path(text: str) -> str:
    """A prefix with a leading and no trailing slash; empty stays empty. Raises UserError for an invalid one.

    >>> parse_root_path("archive/photos/"), parse_root_path("/")
    ('/archive/photos', '')
    """
    path = text.strip("/")
    # With such a prefix, requests for the API itself would be ambiguous.
    if quote(path) != path or path in ("api", "page"):
        raise UserError(f"--root-path must be a path such as /photos, but not /api or /page, not {text}")
    return f"/{path}" if path else ""


EXAMPLES = (
    "dolglab serve --library library  (then open http://127.0.0.1:8765)",
    "dolglab serve --library library --host 0.0.0.0 --read-only",
)

if __name__ == "__main__":
    run_command("serve", main, EXAMPLES)
