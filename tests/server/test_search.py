"""Searching over HTTP: the same answers as with the library itself, marks, explanations, filters."""

from __future__ import annotations

import base64
import html
import io
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from dolglab.data.image_reading import Reading
from dolglab.data.photos import query_pixels
from dolglab.library.library import Library
from dolglab.library.search_engine import SearchEngine
from dolglab.retrieval.adapter import Adapter
from photo_library.made import unit
from server.conftest import Start


def ask(client: TestClient, photo: bytes, name: str = "query.jpg", **fields: object):
    return client.post("/api/search", files={"photo": (name, photo)}, data=fields)


def descriptor_of(found: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(found["descriptor"]), "<f4")


def test_answers_equal_those_of_the_library(client: TestClient, finder: SearchEngine, query: bytes) -> None:
    found = ask(client, query, top=5).json()
    (expected,) = finder.search([query_pixels(query, "query", 128)], 5)
    assert [answer["id"] for answer in found["answers"]] == [answer.photo.id for answer in expected]
    assert [answer["cosine"] for answer in found["answers"]] == pytest.approx([a.cosine for a in expected], abs=1e-5)
    best = found["answers"][0]
    assert best["name"] == "/".join(expected[0].photo.name.split("/")[-2:])
    assert best["rank"] == 1
    assert best["there"] is True
    assert best["inliers"] is None
    assert best["metadata"] == expected[0].photo.metadata
    assert np.linalg.norm(descriptor_of(found)) == pytest.approx(1, abs=1e-5)


def test_a_library_adapted_meanwhile_is_reopened(start: Start, own: Path, query: bytes) -> None:
    client = start()
    before = descriptor_of(ask(client, query).json())
    with closing(Library(own)) as library, library.writing():
        library.adapt(Adapter(unit(6, len(before)), unit(1, 6)[0] / 10, library.identity["model"], {"kind": "made up"}))
    found = ask(client, query, top=5).json()
    assert descriptor_of(found).shape == (6,)
    (expected,) = SearchEngine(own).search([query_pixels(query, "query", 128)], 5)
    assert [answer["id"] for answer in found["answers"]] == [answer.photo.id for answer in expected]
    assert client.get("/api/library").json()["photos"] == 12
    assert "dolg_library_photos 12" in client.get("/api/metrics").text


def test_a_large_query_is_decoded_like_photos_of_the_library(client: TestClient, finder: SearchEngine) -> None:
    assert finder.library.identity["decoding"] == "scaled"
    noise, held = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8), io.BytesIO()
    Image.fromarray(noise).save(held, "JPEG")
    found = descriptor_of(ask(client, held.getvalue()).json())
    as_is, whole = (
        finder.loaded.describe([query_pixels(held.getvalue(), "query", 128, reading=Reading(decoding=decoding))])[0]
        for decoding in ("scaled", "full")
    )
    assert found @ as_is > 1 - 1e-5 > found @ whole


def test_only_the_part_inside_the_box_is_searched_for(client: TestClient, query: bytes) -> None:
    whole = ask(client, query).json()
    part = ask(client, query, box="10,10,60.5,70").json()
    pixels = np.asarray(Image.open(io.BytesIO(query)))[10:70, 10:60]
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    cut = ask(client, held.getvalue()).json()
    # Pillow and libjpeg-turbo decode a JPEG to values that differ by at most one.
    np.testing.assert_allclose(descriptor_of(part), descriptor_of(cut), atol=2e-3)
    assert descriptor_of(part) @ descriptor_of(whole) < 0.999


def test_filters_and_verification(client: TestClient, query: bytes) -> None:
    found = ask(client, query, where=["year=1900", "place=landmark 1"]).json()["answers"]
    assert {answer["metadata"]["year"] for answer in found} == {"1900"}
    assert len(found) == 2
    verified = ask(client, query, verify=True, top=3).json()["answers"]
    assert len(verified) == 3
    assert all(answer["inliers"] >= 0 for answer in verified)


def test_marks_move_the_query_and_right_photos_come_first(
    client: TestClient, finder: SearchEngine, query: bytes
) -> None:
    found = ask(client, query, top=12).json()
    ids = [answer["id"] for answer in found["answers"]]
    right, wrong = [ids[5], ids[7]], [ids[0]]
    again = client.post(
        "/api/rerank", json={"descriptor": found["descriptor"], "right": right, "wrong": wrong, "top": 4}
    ).json()
    stored = {number: descriptor_of(ask(client, _file(finder, number)).json()) for number in ids}
    expected = descriptor_of(found) + 0.75 * (stored[ids[5]] + stored[ids[7]]) / 2 - 0.15 * stored[ids[0]]
    expected /= np.linalg.norm(expected)
    got = {answer["id"]: answer["cosine"] for answer in again["answers"]}
    assert got == pytest.approx({number: float(stored[number] @ expected) for number in got}, abs=1e-4)
    assert {answer["id"] for answer in again["answers"][:2]} == set(right)
    assert again["answers"][-1]["id"] == wrong[0]
    assert [answer["mark"] for answer in again["answers"]] == ["right"] * 2 + [None] * 4 + ["wrong"]
    between = [answer["cosine"] for answer in again["answers"][2:-1]]
    assert between == sorted(between, reverse=True)
    assert again["descriptor"] == found["descriptor"]


def test_without_marks_the_order_stays_and_unknown_photos_are_ignored(client: TestClient, query: bytes) -> None:
    found = ask(client, query, top=12).json()
    same = client.post("/api/rerank", json={"descriptor": found["descriptor"], "right": [10**15], "top": 12}).json()
    assert [answer["id"] for answer in same["answers"]] == [answer["id"] for answer in found["answers"]]
    only = client.post("/api/rerank", json={"descriptor": found["descriptor"], "where": {"year": "1901"}}).json()
    assert {answer["metadata"]["year"] for answer in only["answers"]} == {"1901"}


@pytest.mark.parametrize("descriptor", ["", "AAAA", "?", base64.b64encode(np.full(1280, np.nan, "<f4")).decode()])
def test_an_invalid_descriptor_is_refused(client: TestClient, descriptor: str) -> None:
    refused = client.post("/api/rerank", json={"descriptor": descriptor})
    assert refused.status_code == 400
    assert "descriptor" in refused.json()["error"]


def test_an_answer_is_explained(client: TestClient, query: bytes) -> None:
    best = ask(client, query).json()["answers"][0]
    why = client.post("/api/explain", files={"photo": ("q", query)}, data={"id": best["id"]}).json()
    assert 0 <= why["inliers"] <= why["matches"]
    # Pooling alone: no local branch and no last layer.
    assert why["terms"] == {
        "global": pytest.approx(best["cosine"], abs=1e-3),
        "local": None,
        "cross": None,
        "bias": None,
    }
    for picture in (why["picture"], *why["attention"]):
        assert Image.open(io.BytesIO(base64.b64decode(picture))).format == "JPEG"


def test_the_library_is_described(client: TestClient) -> None:
    about = client.get("/api/library").json()
    assert about["photos"] == 12
    assert about["columns"] == [
        {"name": "place", "values": ["landmark 0", "landmark 1", "landmark 2"]},
        {"name": "year", "values": ["1900", "1901"]},
    ]
    assert client.get("/api/health").json() == {"status": "ok"}
    text = client.get("/api/metrics").text
    assert "dolg_library_photos 12.0" in text
    assert 'dolg_requests_total{method="GET",route="/api/library",status="200"}' in text


def test_the_documentation_describes_the_parameters_of_every_operation(client: TestClient) -> None:
    page = html.unescape(client.get("/api").text)
    described = client.get("/api/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert f"<code>{method.upper()} {path}</code>" in page
            # Code is in backticks there, and in elements on the page.
            described_as = operation["description"].splitlines()[0].replace("`", "")
            assert described_as in page.replace("<code>", "").replace("</code>", "")
    for field in ("photo", "box", "verify", "metadata", "descriptor", "where"):
        assert f"<dt><code>{field}</code>" in page


def _file(finder: SearchEngine, number: int) -> bytes:
    ((photo, _),) = finder.library.catalogue.find([number])
    with open(photo.name, "rb") as file:
        return file.read()
