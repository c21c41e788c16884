"""Chromium, and servers of libraries for it to open."""

from __future__ import annotations

import copy
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dolglab.library.library import Library
from dolglab.library.search_engine import SearchEngine
from dolglab.server.app import build_app
from dolglab.server.isolation import IsolatedExecutor
from dolglab.server.security import Settings
from server.conftest import OFTEN

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium")
NEEDS_CHROMIUM = [
    pytest.mark.process,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]
# Timeout of one expectation in milliseconds; a shared machine may be slow.
PATIENCE = 60_000

OpenLibrary = Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not work for root.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def served(library: Path, *options: str, **environment: str) -> Iterator[str]:
    """A server of a library in its own process; yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "src.serve", "--library", str(library), "--port", "0", *options],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def watch(page: Page, faults: list[str], address: str) -> None:
    """Note script errors, violations of the content security policy, and requests to other places as faults."""
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None)
    page.on("request", lambda asked: asked.url.startswith((address, "blob:", "data:")) or faults.append(asked.url))


@contextmanager
def visits(browser: Browser) -> Iterator[Visit]:
    """Opens pages of a server's address in contexts of their own; fails on faults of any of them, see `watch`.

    Further arguments are a script to run first, and options of the context.
    """
    faults: list[str] = []
    contexts = []
    expect.set_options(timeout=PATIENCE)

    def visited(address: str, path: str = "", script: str = "", **options: object) -> Page:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        context.set_default_timeout(PATIENCE)
        context.add_init_script(script)
        contexts.append(context)
        page = context.new_page()
        watch(page, faults, address)
        page.goto(f"{address}{path}")
        return page

    yield visited
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def visit_library(
    own: Path, finder: SearchEngine, decoder: IsolatedExecutor, browser: Browser
) -> Iterator[OpenLibrary]:
    """Opens the page of a library that the test may change, served in this process; fails on faults, see `watch`."""
    finder = copy.copy(finder)
    finder.library = Library(own)
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def opened(path: str = "", settings: Settings | None = None, **options: object) -> Page:
        listener = socket.create_server(("127.0.0.1", 0))
        app = build_app(finder, settings or Settings(rate=OFTEN), decoder)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        servers.append((server, thread))
        return visited(f"http://127.0.0.1:{listener.getsockname()[1]}/", path, **options)

    with visits(browser) as visited:
        yield opened
    for server, thread in servers:
        server.should_exit = True
        thread.join()
    finder.library.close()
