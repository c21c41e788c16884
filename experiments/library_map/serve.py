"""Serve a library without its network: browse, but no search. python experiments/library_map/serve.py LIBRARY PORT"""

from __future__ import annotations

import sys

import uvicorn

from dolglab.library.library import Library
from dolglab.library.search_engine import SearchEngine
from dolglab.server.app import build_app
from dolglab.server.security import Settings


class ShownLibrary(SearchEngine):
    """A library without its network."""

    def __init__(self, folder: str) -> None:
        self.library = Library(folder)


if __name__ == "__main__":
    settings = Settings(read_only=True, rate=1e9)
    uvicorn.run(build_app(ShownLibrary(sys.argv[1]), settings), port=int(sys.argv[2]), log_level="warning")
