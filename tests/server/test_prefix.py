"""A server behind a proxy with a path prefix, which the proxy passes on or strips."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import pytest

from dolglab.commands.serve import parse_root_path
from dolglab.errors import UserError
from dolglab.server.routes import PAGE
from server.conftest import Start

OUTSIDE = "https://museum.example/archive/photos/"
PREFIX = "/archive/photos"
TOKEN = {"Authorization": "Bearer t"}
LINK = re.compile(r'(?:href|src)="([^"#]+)"')
ASKED = re.compile(r'(?:json|call|picture)\(["`]([^"`]+)|=> `([^`]+)`')


@pytest.mark.parametrize("passed_on", ["", PREFIX])
def test_pages_and_routes_work_with_and_without_the_prefix(start: Start, passed_on: str) -> None:
    client = start(token="t", root_path=PREFIX)
    assert client.get(f"{passed_on}/").status_code == 200
    assert client.get(f"{passed_on}/api").status_code == 200
    assert client.get(f"{passed_on}/page/style.css").status_code == 200
    assert client.get(f"{passed_on}/api/health").status_code == 200
    assert client.get(f"{passed_on}/api/library", headers=TOKEN).json()["photos"] == 12
    description = client.get(f"{passed_on}/api/openapi.json", headers=TOKEN).json()
    assert description["servers"] == [{"url": PREFIX}]
    assert f"{PREFIX}/api/search" in client.get(f"{passed_on}/api").text


@pytest.mark.parametrize("before", ["", PREFIX, PREFIX * 2, f"/{PREFIX}", f"{PREFIX}/"])
def test_no_spelling_of_the_prefix_bypasses_the_token(start: Start, before: str) -> None:
    client = start(token="t", root_path=PREFIX)
    for route in ("library", "photos/1", "photos/1/image", "metrics"):
        assert client.get(f"{before}/api/{route}").status_code in (401, 404)


def test_pages_request_nothing_outside_the_prefix(start: Start) -> None:
    client = start()
    found = [(OUTSIDE, link) for link in LINK.findall(client.get("/").text)]
    found += [(f"{OUTSIDE}api", link) for link in LINK.findall(client.get("/api").text)]
    scripts = "".join(client.get(f"/page/{script.name}").text for script in PAGE.glob("*.js"))
    # Scripts use paths relative to the page.
    asked = [path for pair in ASKED.findall(scripts) for path in pair if path]
    assert len(asked) > 5
    found += [(OUTSIDE, path) for path in asked]
    for page, link in found:
        assert link.startswith("data:") or urljoin(page, link).startswith(OUTSIDE), (page, link)


@pytest.mark.parametrize("text", ["/api", "page/", "a b", "https://museum.example/photos", "/photos?x"])
def test_invalid_prefixes_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--root-path"):
        parse_root_path(text)
