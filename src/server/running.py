"""Running the server: the port first, then the library, then the address that it is reached by."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import closing

import typer
import uvicorn

from src.errors import InputError
from src.library.finder import Finder
from src.server.app import build_app
from src.server.settings import Settings

# Connections that the system holds for the server, and seconds that it keeps an idle one, or waits when it ends.
BACKLOG, IDLE, ENDING = 128, 10, 5
OPEN = "warning: everyone who reaches this address can search the library, and change it: --token, --read-only"


def run(library: str, host: str, port: int, settings: Settings, backend: str = "torch") -> None:
    """Serve until interrupted. Raises InputError for an address that cannot be had, or no such library."""
    with closing(_listening(host, port)) as listening:
        if settings.token is None and not _loopback(host):
            typer.echo(OPEN, err=True)
        app = build_app(Finder(library, backend), settings)
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"http://{shown}:{listening.getsockname()[1]}/")
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            # Whoever asks could otherwise say that somebody else does.
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=IDLE,
            timeout_graceful_shutdown=ENDING,
            lifespan="off",
        )
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise InputError(
            f"cannot listen at {host}:{port} ({error.strerror}): another --port, or 0 for a free one"
        ) from None
    return listening


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
