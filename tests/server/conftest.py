"""Fixtures: a small library and servers for it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from dolglab.library.ingest import embed
from dolglab.library.library import Library
from dolglab.library.listing import find_photos
from dolglab.library.local_engine import describe_files
from dolglab.library.search_engine import SearchEngine
from dolglab.server.app import build_app
from dolglab.server.isolation import IsolatedExecutor
from dolglab.server.limits import Limits
from dolglab.server.security import Settings
from dolglab.server.service import build_decoder
from dolglab.sharing.loading import load_extractor

# A rate that tests, with more than sixty requests a minute, do not reach.
OFTEN = 1e9
LOCAL = "http://127.0.0.1"

Start = Callable[..., TestClient]


@pytest.fixture(scope="session")
def gallery(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos of each of three landmarks."""
    root = tmp_path_factory.mktemp("gallery")
    for landmark in range(3):
        for photo in range(4):
            name = f"landmark {landmark}/{photo:02d}.jpg"
            (root / name).parent.mkdir(exist_ok=True)
            shutil.copy(photos / name, root / name)
    return root


@pytest.fixture(scope="session")
def embedded(gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only library of these photos, with two columns."""
    folder = tmp_path_factory.mktemp("served") / "library"
    ready = load_extractor("efficientnet_lite0", max_side=128)
    library = Library.open(folder, ready.identity)
    files = find_photos([str(gallery)])
    embed(library, describe_files(ready, files, 1))
    with library.catalogue.change() as change:
        for place, file in enumerate(files):
            change.set_metadata(file.name, {"year": f"190{place % 2}", "place": Path(file.name).parent.name})
    library.close()
    return folder


@pytest.fixture(scope="session")
def finder(embedded: Path) -> SearchEngine:
    return SearchEngine(embedded)


@pytest.fixture(scope="session")
def decoder() -> IsolatedExecutor:
    """The decoder of uploads, shared by all tests, with long timeouts for busy machines."""
    return build_decoder(Settings(limits=Limits(quick=60, decoding=60)))


@pytest.fixture(scope="session")
def client(finder: SearchEngine, decoder: IsolatedExecutor) -> Iterator[TestClient]:
    """A read-only server of the library."""
    with TestClient(build_app(finder, Settings(rate=OFTEN, read_only=True), decoder), LOCAL, False) as client:
        yield client


@pytest.fixture
def own(embedded: Path, tmp_path: Path) -> Path:
    """A library that a test may change."""
    return Path(shutil.copytree(embedded, tmp_path / "library"))


@pytest.fixture
def start(own: Path, finder: SearchEngine, decoder: IsolatedExecutor) -> Iterator[Start]:
    """Starts a server of the test's own library; tests share the network and the decoder."""
    finder = copy.copy(finder)
    finder.library = Library(own)

    def started(decoder: IsolatedExecutor = decoder, **settings: object) -> TestClient:
        return TestClient(build_app(finder, Settings(**({"rate": OFTEN} | settings)), decoder), LOCAL, False)

    yield started
    finder.library.close()


@pytest.fixture(scope="session")
def query(photos: Path) -> bytes:
    """A photo of the second landmark that is not in the library."""
    return (photos / "landmark 1" / "09.jpg").read_bytes()
