"""Every error of the server, as JSON: {"error": "one line"}."""

from __future__ import annotations

import logging
import re
import sqlite3
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request

from dolglab.errors import UserError
from dolglab.library.catalogue import printable

LOG = logging.getLogger("dolg.server")
MAX_MESSAGE = 300


def error_response(error: StarletteHTTPException) -> JSONResponse:
    """The response for an exception: its detail on one printable line, cut where it is long."""
    message = printable(" ".join(str(error.detail).split()))
    if len(message) > MAX_MESSAGE:
        message = f"{message[:MAX_MESSAGE]}…"
    return JSONResponse({"error": message}, error.status_code, error.headers)


def hide_folder(message: str, folder: Path) -> str:
    """A message for clients, who are not told where the library's folder lies on this machine.

    >>> hide_folder("/srv/library/a.jpg is no photo", Path("/srv/library"))
    'a.jpg is no photo'
    """
    for path in {str(folder.absolute()), str(folder.resolve())}:
        message = re.sub(rf"{re.escape(path)}/", "", message)
        message = re.sub(rf"{re.escape(path)}(?![\w.-])", "the library", message)
    # An option of the command line, which clients do not have.
    return message.removesuffix(" (--metadata)")


def add_handlers(app: FastAPI, folder: Path) -> None:
    """Have the app answer every exception so; `folder` is the library's."""

    def handle(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, StarletteHTTPException):
            return error_response(error)
        if isinstance(error, RequestValidationError):
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"][1:])
            return error_response(HTTPException(422, f"{field}: {first['msg']}" if field else first["msg"]))
        if isinstance(error, UserError):
            return error_response(HTTPException(400, hide_folder(str(error), folder)))
        if isinstance(error, sqlite3.Error):
            LOG.error("the catalogue: %s", error)
            busy = HTTPException(503, "the library cannot be read just now: try again", {"Retry-After": "5"})
            return error_response(busy)
        return error_response(HTTPException(500, "the server failed: its log says how"))

    for kind in (StarletteHTTPException, RequestValidationError, UserError, sqlite3.Error, Exception):
        app.add_exception_handler(kind, handle)
