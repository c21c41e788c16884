"""Near-duplicates and places over the API, beside what the library's own files and columns say."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from dolglab.library.exif import read_exif, remove_exif
from dolglab.library.library import Library
from exif_bytes import LATITUDE, LATITUDE_REF, LONGITUDE, LONGITUDE_REF, TAKEN, exif_bytes, in_jpeg
from server.conftest import Start


def found(client: TestClient, **query: object) -> dict:
    """The response once the search is done."""
    while True:
        answer = client.get("/api/duplicates", params=query)
        assert answer.status_code == 200, answer.text
        if answer.json()["state"] == "found":
            return answer.json()


def add(client: TestClient, name: str, data: bytes) -> int:
    answer = client.post("/api/photos", files={"photo": (name, data)})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def jpeg(photo: bytes, scale: int) -> bytes:
    image = Image.open(io.BytesIO(photo))
    buffer = io.BytesIO()
    image.resize((image.width * scale, image.height * scale)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def rest(client: TestClient, **choice: object) -> list[str]:
    answer = client.post("/api/duplicates/rest", json=choice)
    assert answer.status_code == 200, answer.text
    return answer.text.splitlines()


@pytest.fixture
def twins(start: Start, query: bytes) -> tuple[TestClient, dict[str, int], Path]:
    """A server with a photo three times: a file, the photo at twice the size, and a copy of the file."""
    client = start()
    # Both are shrunk to the size of the library's photos.
    small, large = jpeg(query, 2), jpeg(query, 4)
    numbers = {name: add(client, f"{name}.jpg", data) for name, data in (("a", small), ("large", large))}
    folder = client.app.state.service.finder.library.folder  # pyright: ignore[reportFunctionMemberAccess]
    numbers["b"] = add(client, "b.jpg", small)
    return client, numbers, folder / "added-photos"


def test_the_photo_to_keep_comes_first_and_the_others_are_listed(twins) -> None:
    client, numbers, folder = twins
    answer = found(client, least=0.97)
    cluster = next(each for each in answer["clusters"] if numbers["a"] in [photo["id"] for photo in each["photos"]])
    assert [photo["id"] for photo in cluster["photos"]] == [numbers["large"], numbers["a"], numbers["b"]]
    assert [photo["keep"] for photo in cluster["photos"]] == [True, False, False]
    large, first, _ = cluster["photos"]
    assert (large["file_width"], large["file_height"]) == (2 * first["file_width"], 2 * first["file_height"])
    assert first["bytes"] == (folder / "a.jpg").stat().st_size
    assert answer["compared"] == 15
    assert str(folder / "a.jpg") in rest(client, least=0.97)
    assert str(folder / "large.jpg") not in rest(client, least=0.97)
    # The user's choices.
    chosen = rest(client, least=0.97, keep=[numbers["b"]], drop=[numbers["large"]])
    assert {str(folder / "a.jpg"), str(folder / "large.jpg")} <= set(chosen)
    assert str(folder / "b.jpg") not in chosen
    assert str(folder / "b.jpg") not in rest(client, least=0.97, keep=[numbers["b"]])
    # At least one photo is kept.
    assert str(folder / "large.jpg") not in rest(client, least=0.97, drop=list(numbers.values()))
    rows = list(csv.DictReader(io.StringIO("\n".join(rest(client, least=0.97, form="csv")))))
    assert str(folder / "a.jpg") in [row["photo"] for row in rows]


def test_copies_with_the_same_bytes_are_marked(twins) -> None:
    client, numbers, folder = twins
    (folder / "large.jpg").unlink()
    clusters = found(client, least=1)["clusters"]
    photos = {photo["id"]: photo for cluster in clusters for photo in cluster["photos"]}
    assert (photos[numbers["a"]]["identical"], photos[numbers["b"]]["identical"]) == (False, True)


def test_a_missing_photo_is_neither_kept_nor_listed(twins) -> None:
    client, numbers, folder = twins
    before = rest_after_finding(client)
    assert {str(folder / "a.jpg"), str(folder / "b.jpg")} <= set(before)
    (folder / "large.jpg").unlink()
    # The cached result stays; the first photo whose file exists is kept instead.
    photos = {photo["id"]: photo for cluster in found(client, least=0.97)["clusters"] for photo in cluster["photos"]}
    assert photos[numbers["large"]]["there"] is False
    assert [photos[numbers[name]]["keep"] for name in ("large", "a", "b")] == [False, True, False]
    assert [path for path in rest(client, least=0.97) if "added" in path] == [str(folder / "b.jpg")]


def rest_after_finding(client: TestClient) -> list[str]:
    found(client, least=0.97)
    return rest(client, least=0.97)


def test_results_are_cached_until_a_new_search(twins, query: bytes) -> None:
    client, numbers, _ = twins
    before = found(client, least=0.99)
    assert before["outdated"] is False
    new = add(client, "c.jpg", jpeg(query, 2))
    after = found(client, least=0.99)
    assert (after["outdated"], after["clusters"]) == (True, before["clusters"])
    again = found(client, least=0.99, again=True)
    listed = {photo["id"] for cluster in again["clusters"] for photo in cluster["photos"]}
    assert (again["outdated"], again["compared"]) == (False, before["compared"] + 1)
    assert {new, numbers["a"], numbers["b"]} <= listed


def test_pages_are_slices_of_all_groups(twins) -> None:
    client, *_ = twins
    whole = found(client, least=0.8)
    numbers = [cluster["number"] for cluster in whole["clusters"]]
    assert numbers == list(range(1, whole["total"] + 1))
    second = found(client, least=0.8, offset=1, limit=1)
    assert second["clusters"] == whole["clusters"][1:2]
    least = [min(photo["cosine"] for photo in cluster["photos"]) for cluster in whole["clusters"]]
    assert least == sorted(least, reverse=True)


def test_a_read_only_server_reveals_no_paths(start: Start) -> None:
    client = start(read_only=True)
    found(client)
    assert client.post("/api/duplicates/rest", json={}).status_code == 403


def test_a_new_search_replaces_the_oldest_cached_one(start: Start) -> None:
    client = start()
    for least in (0.91, 0.92, 0.93, 0.94):
        found(client, least=least)
    rest(client, least=0.91)
    found(client, least=0.95)
    assert client.post("/api/duplicates/rest", json={"least": 0.91}).status_code == 409
    rest(client, least=0.95)


def test_an_unknown_search_cannot_be_listed(start: Start) -> None:
    client = start()
    assert client.post("/api/duplicates/rest", json={"least": 0.9}).status_code == 409
    assert client.get("/api/duplicates", params={"least": 0.5}).status_code == 422


@pytest.mark.parametrize("left", [0, 1])
def test_libraries_of_no_or_one_photo_have_no_duplicates(start: Start, own: Path, left: int) -> None:
    with_all = Library(own)
    with_all.remove(sorted(with_all.catalogue.names())[left:])
    with_all.close()
    client = start()
    answer = found(client)
    assert (answer["compared"], answer["total"], answer["clusters"]) == (left, 0, [])
    assert rest(client) == []
    assert client.get("/api/places").json() == {"ids": [], "latitudes": [], "longitudes": []}


def test_added_photos_have_date_and_place(start: Start, query: bytes) -> None:
    client = start()
    gps = {
        LATITUDE_REF: "S",
        LATITUDE: [(43, 1), (30, 1), (0, 1)],
        LONGITUDE_REF: "E",
        LONGITUDE: [(5, 1), (15, 1), (0, 1)],
    }
    data = in_jpeg(query, exif_bytes({TAKEN: "2019:07:04 12:34:56"}, gps))
    number = add(client, "here.jpg", data)
    columns = {"taken": "2019-07-04T12:34:56", "latitude": "-43.500000", "longitude": "5.250000"}
    assert client.get(f"/api/photos/{number}").json()["metadata"] == columns
    assert client.get("/api/places").json() == {"ids": [number], "latitudes": [-43.5], "longitudes": [5.25]}
    where = {"where": ["taken=2019-06..2019-08", "latitude=-44..-43"]}
    answers = client.post("/api/search", files={"photo": ("q.jpg", query)}, data=where).json()["answers"]
    assert [answer["id"] for answer in answers] == [number]
    listed = client.get("/api/photos", params={"where": "taken=2019-07-04"}).json()
    assert [photo["id"] for photo in listed["photos"]] == [number]
    assert client.get("/api/photos", params={"where": "taken=2019..x"}).status_code == 400
    # Columns given by the client take precedence over EXIF.
    own = client.post("/api/photos", files={"photo": ("b.jpg", data)}, data={"metadata": '{"taken": "1950"}'})
    assert own.json()["metadata"] == {**columns, "taken": "1950"}


def test_a_library_without_exif_gets_none_of_added_photos(start: Start, own: Path, query: bytes) -> None:
    gps = {LATITUDE_REF: "N", LATITUDE: [(43, 1)] * 3, LONGITUDE_REF: "E", LONGITUDE: [(5, 1)] * 3}
    data = in_jpeg(query, exif_bytes({TAKEN: "2019:07:04 12:34:56"}, gps))
    client = start()
    before = add(client, "before.jpg", data)
    assert client.get(f"/api/photos/{before}").json()["metadata"].keys() == {"taken", "latitude", "longitude"}
    # As `embed --no-exif` and `library exif --remove` do, while the server runs.
    remove_exif(Library(own))
    after = add(client, "after.jpg", data)
    assert [client.get(f"/api/photos/{number}").json()["metadata"] for number in (before, after)] == [{}, {}]
    assert client.get("/api/places").json()["ids"] == []
    names = {column["name"] for column in client.get("/api/library").json()["columns"]}
    assert names == {"year", "place"}
    # `library exif` reads what the server stored without it.
    read_exif(Library(own))
    assert client.get("/api/places").json()["ids"] == [before, after]


def test_identical_files_in_two_folders(start: Start, own: Path, tmp_path: Path) -> None:
    """Of two identical files of the same age, the one whose path sorts first is kept."""
    library = Library(own)
    name = sorted(library.catalogue.names())[0]
    entry = library.catalogue.named(name)
    assert entry is not None
    copy = tmp_path / "copies" / Path(name).name
    copy.parent.mkdir()
    shutil.copy2(name, copy)
    photo, key = entry
    assert key is not None
    twin = type(photo)(str(copy), photo.size, photo.changed, photo.shape, digest=photo.digest, stored=photo.stored)
    library.add([twin], library.descriptors(library.keys()[library.keys() == key]))
    library.close()
    paths = sorted([name, str(copy)])
    (cluster,) = found(start(), least=1)["clusters"]
    assert [photo["name"] for photo in cluster["photos"]] == ["/".join(Path(path).parts[-2:]) for path in paths]
    assert [photo["identical"] for photo in cluster["photos"]] == [False, True]
