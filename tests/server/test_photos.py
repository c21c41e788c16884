"""Photos added, removed and exported, with a library that stays consistent."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from dolglab.data.folder import scan_folder
from dolglab.data.photos import query_pixels
from dolglab.library.contents import Photo
from dolglab.library.library import Library
from dolglab.library.search_engine import SearchEngine
from dolglab.server.photo_files import safe_name
from dolglab.server.service import SearchService
from server.conftest import Start

ODD = "é 🙂 = 'a'.JPG"


def png(seed: int, size: int = 40) -> bytes:
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)).save(held, "PNG")
    return held.getvalue()


def add(client: TestClient, data: bytes, name: str, metadata: str = ""):
    return client.post("/api/photos", files={"photo": (name, data)}, data={"metadata": metadata})


def kept(library: Path) -> list[str]:
    """The files that the server stores."""
    return sorted(path.name for path in (library / "added-photos").iterdir() if not path.name.startswith("."))


def found(client: TestClient, data: bytes, top: int = 1) -> list[dict]:
    return client.post("/api/search", files={"photo": ("q", data)}, data={"top": top}).json()["answers"]


def test_a_photo_is_added_found_and_removed(own: Path, start: Start) -> None:
    client = start()
    data = png(0)
    added = add(client, data, ODD, '{"year": "2024", "note": "a = b"}')
    assert added.status_code == 201
    photo = added.json()
    assert photo["name"] == f"added-photos/{ODD}"
    assert photo["metadata"] == {"year": "2024", "note": "a = b"}
    assert (own / "added-photos" / ODD).read_bytes() == data
    (best,) = found(client, data)
    assert best["id"] == photo["id"]
    assert best["cosine"] == pytest.approx(1, abs=1e-5)
    picture = client.get(f"/api/photos/{photo['id']}/thumbnail")
    assert picture.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(picture.content)).size == (40, 40)
    assert client.delete(f"/api/photos/{photo['id']}").json() == {"id": photo["id"], "deleted": True}
    assert kept(own) == []
    assert found(client, data)[0]["id"] != photo["id"]
    assert client.delete(f"/api/photos/{photo['id']}").status_code == 404
    # The library's own commands find the same.
    assert len(Library(own)) == 12


def test_local_features_are_kept_if_the_library_keeps_them(own: Path, start: Start, finder: SearchEngine) -> None:
    client, kind = start(), finder.verifier.config()
    numbers = [add(client, png(0, 200), "a.png").json()["id"]]
    with closing(Library(own)) as library:
        with library.change() as change:
            change.keep_local(kind)
        numbers.append(add(client, png(1, 200), "b.png").json()["id"])
        expected = finder.verifier.packed(query_pixels(png(1, 200), "b", finder.max_side, reading=finder.reading))
        assert library.catalogue.kept(numbers) == {numbers[1]: expected}
        with library.change() as change:
            change.keep_local({**kind, "features": "other"})
        numbers.append(add(client, png(2, 200), "c.png").json()["id"])
        assert library.catalogue.kept(numbers) == {}


def test_an_existing_name_is_not_overwritten(own: Path, start: Start) -> None:
    client = start()
    (own / "added-photos").mkdir()
    (own / "added-photos" / "a (2).png").symlink_to("/nowhere")
    names = [add(client, png(seed), "../../a.png").json()["name"] for seed in range(2)]
    assert names == ["added-photos/a.png", "added-photos/a (3).png"]
    assert (own / "added-photos" / "a.png").read_bytes() == png(0)
    assert not (own.parent / "a.png").exists()


def test_only_files_added_here_are_deleted(gallery: Path, start: Start) -> None:
    client = start()
    first = client.get("/api/photos/1").json()["name"]
    assert client.delete("/api/photos/1").json()["deleted"] is False
    assert (gallery / first).is_file()
    assert client.get("/api/library").json()["photos"] == 11


def test_a_users_own_photo_in_that_folder_stays(own: Path, start: Start) -> None:
    client = start()
    number = add(client, png(0), "a.png").json()["id"]
    theirs = own / "added-photos" / "theirs.png"
    theirs.write_bytes(png(1))
    about = theirs.stat()
    library = Library(own)
    descriptor = library.descriptors(library.keys()[:1])
    library.add([Photo(str(theirs), about.st_size, about.st_mtime_ns, (40, 40))], descriptor)
    (mine,) = (photo for page in library.catalogue.pages() for photo, _ in page if photo.name == str(theirs))
    assert client.delete(f"/api/photos/{mine.id}").json()["deleted"] is False
    assert client.delete(f"/api/photos/{number}").json()["deleted"] is True
    assert kept(own) == ["theirs.png"]


def test_concurrent_removals_remove_only_that_photo_once(own: Path, start: Start) -> None:
    client = start()
    number = add(client, png(0), "a.png").json()["id"]
    service: SearchService = cast(FastAPI, client.app).state.service
    with service._write_lock, ThreadPoolExecutor(1) as pool:
        late = pool.submit(client.delete, f"/api/photos/{number}")
        while not service._changes.taken:
            pass
        # Meanwhile another photo takes its name.
        library = Library(own)
        with library.catalogue.change() as change:
            change.remove([str(own / "added-photos" / "a.png")])
        about = (own / "added-photos" / "a.png").stat()
        other = Photo(str(own / "added-photos" / "a.png"), about.st_size, about.st_mtime_ns, (40, 40))
        library.add([other], library.descriptors(library.keys()[:1]))
        service._write_lock.release()
        refused = late.result(30)
        service._write_lock.acquire()
    assert refused.status_code == 404
    assert kept(own) == ["a.png"]


def test_an_added_photo_keeps_its_file_after_later_failures(
    own: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidy, failures = Library._tidy, [OSError(28, "No space left on device")]

    def once(self: Library) -> None:
        if failures:
            raise failures.pop()
        tidy(self)

    monkeypatch.setattr(Library, "_tidy", once)
    client = start()
    assert add(client, png(0), "a.png").status_code == 201
    assert not failures
    assert kept(own) == ["a.png"]
    assert found(client, png(0))[0]["name"] == "added-photos/a.png"


def test_a_failed_addition_leaves_nothing(own: Path, start: Start) -> None:
    client = start()
    assert add(client, b"text", "a.jpg").status_code == 400
    for metadata in ("[]", "{", '{"a": 1}', '{"a\\"b": "c"}', '{"": "c"}', "[" * 10_000):
        assert add(client, png(0), "a.png", metadata).status_code == 400
    assert not (own / "added-photos").exists()
    (own / "added-photos").symlink_to(own.parent)
    assert add(client, png(0), "a.png").status_code == 403
    assert not (own.parent / "a.png").exists()
    assert client.get("/api/library").json()["photos"] == 12


def test_a_full_disk_leaves_the_library_intact(own: Path, start: Start) -> None:
    client = start()
    (own / "added-photos").write_text("in the way")
    refused = add(client, png(0), "a.png")
    assert refused.status_code == 507
    assert "File exists" in refused.json()["error"]
    (own / "added-photos").unlink()
    # No file is left without its descriptor.
    (own / "segments").rename(own / "away")
    (own / "segments").write_text("in the way")
    assert add(client, png(0), "a.png").status_code == 507
    assert kept(own) == []
    (own / "segments").unlink()
    (own / "away").rename(own / "segments")
    assert add(client, png(0), "a.png").status_code == 201
    assert len(found(client, png(1), 20)) == 13


def test_a_read_only_server_adds_and_removes_nothing(client: TestClient) -> None:
    for refused in (add(client, png(0), "a.png"), client.delete("/api/photos/1")):
        assert refused.status_code == 403
        assert "--read-only" in refused.json()["error"]


@pytest.mark.parametrize("part", [".", "catalogue.sqlite"])
def test_a_library_without_write_permission_is_read_only(
    own: Path, start: Start, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    client = start()
    assert client.get("/api/library").json()["read_only"] is False
    # As on a disk mounted read-only: permissions alone do not stop root.
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != own / part and allowed(path, mode))
    assert client.get("/api/library").json()["read_only"] is True
    for refused in (add(client, png(0), "a.png"), client.delete("/api/photos/1")):
        assert refused.status_code == 403
        assert "no permission to write" in refused.json()["error"]


@pytest.mark.process
def test_searches_continue_while_another_process_writes(own: Path, start: Start) -> None:
    client = start()
    program = (
        "import sys; from dolglab.library.library import Library\n"
        f"with Library({str(own)!r}).writing():\n    print('writes', flush=True); sys.stdin.read()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )
    assert writer.stdin
    assert writer.stdout
    try:
        assert writer.stdout.readline() == b"writes\n"
        refused = add(client, png(0), "a.png")
        assert refused.status_code == 503
        assert "another process" in refused.json()["error"]
        assert refused.headers["Retry-After"] == "5"
        assert len(found(client, png(0))) == 1
    finally:
        writer.stdin.close()
        writer.stdout.close()
        writer.wait()
    assert add(client, png(0), "a.png").status_code == 201


def test_marks_become_a_training_folder(tmp_path: Path, start: Start, query: bytes) -> None:
    client = start()
    folder = "_Notre-Dame __été_ 1"
    twins = [add(client, png(seed), "same.png").json()["id"] for seed in range(2)]
    answer = client.post(
        "/api/marks/export",
        data={"name": "../Notre-Dame /\tété: 1", "right": [1, *twins], "wrong": [2]},
        files={"photo": ("same.png", query)},
    )
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"_Notre-Dame ___t__ 1.zip\"; filename*=UTF-8''_Notre-Dame%20__%C3%A9t%C3%A9_%201.zip"
    )
    assert answer.content[:2] == b"PK", answer.content[:300]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        assert packed.testzip() is None
        packed.extractall(tmp_path / "out")
    names = scan_folder(tmp_path / "out").names
    assert names == [f"{folder}/{name}" for name in ("00.jpg", "same (2) (2).png", "same (2).png", "same.png")]
    assert (tmp_path / "out" / folder / "same.png").read_bytes() == query
    assert (tmp_path / "out" / folder / "same (2) (2).png").read_bytes() == png(1)
    with (tmp_path / "out" / f"{folder}.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["mark"] for row in rows] == ["query", "right", "right", "right", "wrong"]
    assert rows[1] == {
        "file_in_zip": f"{folder}/00.jpg",
        "photo": "landmark 0/00.jpg",
        "photo_number": "1",
        "mark": "right",
    }
    assert rows[-1] == {"file_in_zip": "", "photo": "landmark 0/01.jpg", "photo_number": "2", "mark": "wrong"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "photo.jpg"),
        ("...", "photo.jpg"),
        (".hidden.png", "hidden.png"),
        ("C:\\photos\\a.JPEG", "a.JPEG"),
        ("/etc/passwd", "passwd.jpg"),
        ("a\nb\0c.png", "a b c.png"),
        ("a.php", "a.php.jpg"),
        ("\udcff.jpg", "photo.jpg"),
    ],
)
def test_unsafe_names_are_made_safe(given: str, expected: str) -> None:
    assert safe_name(given, ".jpg") == expected


def test_long_names_are_cut() -> None:
    name = safe_name("🙂" * 200 + ".png", ".jpg")
    assert len(name.encode()) <= 154
    assert name.endswith("🙂.png")


def test_a_picture_too_small_to_be_described_is_not_added(start: Start) -> None:
    held = io.BytesIO()
    Image.new("RGB", (12, 12), "red").save(held, "PNG")
    client = start()
    refused = client.post("/api/photos", files={"photo": ("icon.png", held.getvalue())})
    assert refused.status_code == 400
    assert "12 x 12" in refused.json()["error"]
    assert client.get("/api/library").json()["photos"] == 12
