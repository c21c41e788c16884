"""The map over the REST API: its arrays and its ETag."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from dolglab.library.library import Library
from dolglab.library.map_making import make_map
from dolglab.library.photo_map import FILE, read_map
from dolglab.server.map_answer import MAX_VALUES
from server.conftest import Start


def array(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


@pytest.fixture
def library(own: Path) -> Library:
    return Library(own)


def test_a_missing_map_names_the_command(client: TestClient) -> None:
    answer = client.get("/api/map")
    assert answer.status_code == 404
    assert "dolglab library map" in answer.json()["error"]


def test_coordinates_and_folders_are_those_of_the_photos(start: Start, library: Library) -> None:
    make_map(library)
    client, found = start(), read_map(library.folder)
    assert found is not None
    answer = client.get("/api/map").json()
    assert (answer["photos"], answer["missing"], answer["current"], answer["method"]) == (12, 0, True, "pca")
    assert answer["explained"] == list(found.explained)
    ids, codes = array(answer["ids"], "<u4"), array(answer["codes"], "u1")
    assert ids.tolist() == found.ids.tolist()
    np.testing.assert_array_equal(array(answer["coordinates"], "<f4").reshape(-1, 2), found.coordinates)
    assert answer["values"] == [{"value": f"landmark {number}", "photos": 4} for number in range(3)]
    assert (answer["other"], answer["without"]) == (0, 0)
    for number, code in zip(ids.tolist(), codes.tolist(), strict=True):
        name = client.get(f"/api/photos/{number}").json()["name"]
        assert name.startswith(f"{answer['values'][code]['value']}/")


def test_a_column_lists_its_most_frequent_values(start: Start, library: Library) -> None:
    make_map(library)
    entries = [entry for page in library.catalogue.pages() for entry in page]
    with library.change() as change:
        for place, (photo, _) in enumerate(entries):
            columns = {"kind": f"{max(0, place - 2):02d}"} if place else {}
            change.set_metadata(photo.name, columns)
    answer = start().get("/api/map", params={"column": "kind"}).json()
    # Eleven photos have ten values; two photos share the first one.
    assert answer["values"] == [{"value": f"{number:02d}", "photos": 1 + (not number)} for number in range(10)]
    assert (answer["other"], answer["without"]) == (0, 1)
    assert array(answer["codes"], "u1").tolist() == [MAX_VALUES + 1, 0, *range(10)][: len(entries)]


def test_rare_values_are_grouped_as_others(start: Start, library: Library) -> None:
    make_map(library)
    with library.change() as change:
        for place, name in enumerate(list(library.catalogue.names())):
            change.set_metadata(name, {"number": str(100 + place)})
    answer = start().get("/api/map", params={"column": "number"}).json()
    assert len(answer["values"]) == MAX_VALUES
    assert (answer["other"], answer["without"]) == (2, 0)
    assert array(answer["codes"], "u1").tolist().count(MAX_VALUES) == 2


def test_the_map_is_sent_again_only_after_a_change(start: Start, library: Library) -> None:
    make_map(library)
    client = start()
    first = client.get("/api/map")
    etag = first.headers["etag"]
    same = client.get("/api/map", headers={"If-None-Match": f'W/"x", {etag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert client.get("/api/map", params={"column": "year"}, headers={"If-None-Match": etag}).status_code == 200

    gone = array(first.json()["ids"], "<u4").tolist()[0]
    assert client.delete(f"/api/photos/{gone}").status_code == 200
    later = client.get("/api/map", headers={"If-None-Match": etag})
    assert later.status_code == 200
    assert (later.json()["photos"], later.json()["missing"]) == (11, 0)
    assert gone not in array(later.json()["ids"], "<u4")


def test_photos_added_after_the_map_are_counted(start: Start, library: Library, query: bytes) -> None:
    make_map(library)
    client = start()
    assert client.post("/api/photos", files={"photo": ("new.jpg", query)}).status_code == 201
    answer = client.get("/api/map").json()
    assert (answer["photos"], answer["missing"], len(array(answer["ids"], "<u4"))) == (13, 1, 12)
    make_map(library)
    assert client.get("/api/map").json()["missing"] == 0


def test_wrong_columns_and_damaged_maps_give_one_line(start: Start, library: Library) -> None:
    make_map(library)
    client = start()
    wrong = client.get("/api/map", params={"column": "colour"})
    assert wrong.status_code == 400
    assert wrong.json()["error"] == "no photo has colour: the columns are place, year"
    (library.folder / FILE).write_bytes(b"?")
    damaged = client.get("/api/map")
    assert damaged.status_code == 400
    assert damaged.json()["error"].startswith(f"{FILE} is damaged")
