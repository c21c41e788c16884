"""Browsing over the REST API: pages of photos, folders and values; and searches by a photo of the library."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from dolglab.data.photos import query_pixels
from dolglab.library.contents import Photo
from dolglab.library.library import Library
from dolglab.library.search_engine import SearchEngine, stored_descriptors
from server.conftest import Start


def listed(client: TestClient, **parameters: object) -> tuple[int, list[str]]:
    page = client.get("/api/photos", params=parameters).json()
    return page["total"], [photo["name"] for photo in page["photos"]]


def all_names(library: Library) -> list[str]:
    return sorted("/".join(Path(name).parts[-2:]) for name in library.catalogue.names())


def test_pages_list_photos_by_path(client: TestClient, finder: SearchEngine) -> None:
    names = all_names(finder.library)
    assert listed(client) == (12, names)
    pages = [listed(client, offset=offset, limit=5) for offset in (0, 5, 10, 15)]
    assert pages == [(12, names[:5]), (12, names[5:10]), (12, names[10:]), (12, [])]
    assert listed(client, limit=2, offset=1, where=["year=1901"]) == (6, names[3:6:2])
    assert listed(client, where=["year=1901", "place=landmark 2"])[0] == 2
    assert listed(client, folder="landmark 1") == (4, names[4:8])
    assert listed(client, folder="landmark 1", where=["year=1900"]) == (2, names[4:8:2])


def test_photos_that_cannot_be_found_are_not_listed(own: Path, start: Start) -> None:
    client = start()
    with Library(own).change() as change:
        change.put([Photo("/nowhere/torn.jpg", 1, 1, reason="it is torn")], [None])
    assert listed(client)[0] == len(listed(client)[1]) == 12
    assert client.get("/api/folders").json()["folders"] == [
        {"name": f"landmark {number}", "photos": 4} for number in range(3)
    ]


def test_unknown_folders_columns_and_photos_are_refused(client: TestClient) -> None:
    assert client.get("/api/photos", params={"folder": "nowhere"}).status_code == 404
    assert client.get("/api/photos", params={"where": "nothing=1"}).status_code == 400
    assert client.get("/api/values", params={"column": "nothing"}).status_code == 400
    assert client.get("/api/photos", params={"limit": 201}).status_code == 422
    assert client.post("/api/search", data={"like": 999}).status_code == 404
    assert client.post("/api/search", data={"like": 1, "folder": "nowhere"}).status_code == 404
    for fields in ({"data": {"top": 3}}, {"data": {"like": 1}, "files": {"photo": ("a.jpg", b"a")}}):
        assert client.post("/api/search", **fields).status_code == 422


def test_values_are_filtered_by_a_text(own: Path, start: Start) -> None:
    library = Library(own)
    with library.change() as change:
        for number, name in enumerate(library.catalogue.names()):
            change.set_metadata(name, {"kind": ["50% off", "50_off", "Back\\slash"][number % 3]})
    client = start()
    for containing, expected in (
        ("", ["50% off", "50_off", "Back\\slash"]),
        ("0%", ["50% off"]),
        ("K\\S", ["Back\\slash"]),
    ):
        found = client.get("/api/values", params={"column": "kind", "containing": containing}).json()
        assert found == {"values": expected, "more": False}
    assert client.get("/api/values", params={"column": "kind", "limit": 2}).json() == {
        "values": ["50% off", "50_off"],
        "more": True,
    }


def test_folders_reveal_only_the_differing_parts_of_paths(own: Path, start: Start, gallery: Path) -> None:
    library = Library(own)
    descriptors = library.descriptors(library.keys()[:3])
    places = [gallery / "landmark 1/2019/a.jpg", gallery / "landmark 2/2019/a.jpg", gallery / "2020/a.jpg"]
    library.add([Photo(str(place), 1, 1, (8, 8)) for place in places], descriptors)
    client = start()
    found = client.get("/api/folders").json()["folders"]
    assert [(folder["name"], folder["photos"]) for folder in found] == [
        ("2020", 1),
        ("landmark 0", 4),
        ("landmark 1", 5),
        ("landmark 1/2019", 1),
        ("landmark 2", 5),
        ("landmark 2/2019", 1),
    ]
    assert listed(client, folder="landmark 1")[0] == 5
    assert listed(client, folder="landmark 2/2019") == (1, ["2019/a.jpg"])
    assert client.get("/api/folders", params={"containing": "K 1", "limit": 1}).json() == {
        "folders": [{"name": "landmark 1", "photos": 5}],
        "more": True,
    }
    # The cache is updated after a change.
    library.remove([str(places[2])])
    assert "2020" not in [folder["name"] for folder in client.get("/api/folders").json()["folders"]]


def test_a_photo_of_the_library_is_searched_for_without_the_network(
    client: TestClient, finder: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((photo, descriptor),) = stored_descriptors(finder.library, [6]).values()
    expected = [answer for answer in finder.library.search(descriptor[None], 12)[0] if answer.photo.id != photo.id]
    with monkeypatch.context() as patch:
        patch.delattr(type(finder.loaded), "describe")
        found = client.post("/api/search", data={"like": 6, "top": 5}).json()
    assert [answer["id"] for answer in found["answers"]] == [answer.photo.id for answer in expected[:5]]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(found["descriptor"]), "<f4"), descriptor, atol=1e-6)
    inside = client.post("/api/search", data={"like": 6, "folder": "landmark 0", "where": "year=1900"}).json()
    assert {answer["name"].split("/")[0] for answer in inside["answers"]} == {"landmark 0"}
    assert len(inside["answers"]) == 2
    verified = client.post("/api/search", data={"like": 6, "verify": True}).json()["answers"]
    assert all(answer["inliers"] is not None for answer in verified)
    again = client.post("/api/rerank", json={"descriptor": found["descriptor"], "right": [1], "like": 6}).json()
    assert again["answers"][0]["id"] == 1
    assert 6 not in [answer["id"] for answer in again["answers"]]
    assert len(again["answers"]) == 11
    why = client.post("/api/explain", data={"like": 6, "id": 5}).json()
    assert 0 <= why["inliers"] <= why["matches"]


def test_a_part_of_a_photo_of_the_library_is_searched_for(own: Path, start: Start, finder: SearchEngine) -> None:
    client = start()
    library = Library(own)
    ((photo, _),) = library.catalogue.find([6])
    assert photo.shape == (96, 112)
    # As if it had been embedded at half its size: the box refers to the photo as it was embedded.
    with library.change() as change:
        (key,) = (key for found, key in library.catalogue.find([6]))
        change.put([Photo(photo.name, photo.size, photo.changed, (48, 56))], [key])
    found = client.post("/api/search", data={"like": 6, "box": "5,5,40,45"}).json()
    pixels = query_pixels(Path(photo.name).read_bytes(), "a", 128, (10, 10, 80, 90), finder.reading)
    expected = finder.loaded.describe([pixels])[0]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(found["descriptor"]), "<f4"), expected, atol=1e-5)
    assert 6 not in [answer["id"] for answer in found["answers"]]
    assert client.post("/api/search", data={"like": 6, "box": "5,5,60,45"}).status_code == 400


def test_a_missing_photo_can_be_searched_for_but_not_shown(own: Path, start: Start) -> None:
    library = Library(own)
    library.add([Photo("/nowhere/gone.jpg", 1, 1, (96, 112))], library.descriptors(library.keys()[:1]))
    client = start()
    (gone,) = (
        photo["id"] for photo in client.get("/api/photos").json()["photos"] if photo["name"] == "nowhere/gone.jpg"
    )
    assert client.get(f"/api/photos/{gone}/thumbnail").status_code == 410
    assert client.post("/api/search", data={"like": gone}).status_code == 200
    for fields in ({"box": "1,1,50,50"}, {"verify": True}):
        assert client.post("/api/search", data={"like": gone} | fields).status_code == 410
    assert client.post("/api/explain", data={"like": gone, "id": 1}).status_code == 410


@pytest.mark.parametrize("count", [0, 1])
def test_libraries_of_no_and_one_photo_are_listed(own: Path, start: Start, count: int) -> None:
    library = Library(own)
    library.remove(list(library.catalogue.names())[count:])
    client = start()
    assert listed(client)[0] == count
    assert client.get("/api/folders").json() == {"folders": [], "more": False}
    for photo in client.get("/api/photos").json()["photos"]:
        assert client.post("/api/search", data={"like": photo["id"]}).json()["answers"] == []
