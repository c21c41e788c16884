"""Whatever goes wrong, as {"error": "one line"}."""

from __future__ import annotations

import logging
import re
import sqlite3
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import Request

from dolglab.errors import UserError
from dolglab.library.catalogue import printable

LOG = logging.getLogger("dolg.server")
LONGEST = 300


def told(error: AnyHTTPException) -> JSONResponse:
    """An answer that is the error's one line."""
    return JSONResponse({"error": line(str(error.detail))}, error.status_code, error.headers)


def line(message: str) -> str:
    """A message on one line that any reader can take, cut where it is long."""
    text = printable(" ".join(message.split()))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def without_place(message: str, folder: Path) -> str:
    """A message that does not say where on this machine the folder lies; what is in it is named from there."""
    for place in {str(folder.absolute()), str(folder.resolve())}:
        message = re.sub(rf"{re.escape(place)}/", "", message)
        message = re.sub(rf"{re.escape(place)}(?![\w.-])", "the library", message)
    # Of the command that a server's clients do not give.
    return message.removesuffix(" (--metadata)")


def add_handlers(app: FastAPI, folder: Path) -> None:
    """Have the app answer errors so. Nothing says where on this machine `folder`, the library, lies."""

    def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, AnyHTTPException)
        return told(error)

    def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return told(HTTPException(422, f"{where}: {first['msg']}" if where else first["msg"]))

    def mistake(request: Request, error: Exception) -> JSONResponse:
        return told(HTTPException(400, without_place(str(error), folder)))

    def database(request: Request, error: Exception) -> JSONResponse:
        LOG.error("the catalogue: %s", error)
        return told(HTTPException(503, "the library cannot be read just now: try again", {"Retry-After": "5"}))

    def unexpected(request: Request, error: Exception) -> JSONResponse:
        return told(HTTPException(500, "the server failed: its log says how"))

    app.add_exception_handler(AnyHTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(UserError, mistake)
    app.add_exception_handler(sqlite3.Error, database)
    app.add_exception_handler(Exception, unexpected)
