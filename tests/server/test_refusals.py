"""Refused requests: one clear line for invalid input, and no access without permission."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import pickle
import shutil
import struct
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from PIL import Image

from dolglab.data.image_errors import MissingReaderError
from dolglab.data.image_formats import Header, read_header
from dolglab.errors import UserError
from dolglab.server.app import hide_folder
from dolglab.server.limits import Limits, RateLimiter
from dolglab.server.schemas import check_header
from dolglab.server.security import Metrics, SecurityMiddleware, Settings
from dolglab.server.service import SerialExecutor
from server.conftest import Start

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'

FORMATS = "JPEG, PNG, WebP, AVIF, JPEG 2000, TIFF, GIF or BMP"


def png(width: int, height: int) -> bytes:
    """A PNG whose header gives a size, without pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def search(client: TestClient, photo: bytes, **fields: object):
    return client.post("/api/search", files={"photo": ("a 'b\"=é🙂\n.jpg", photo)}, data=fields)


def line(answer) -> str:
    """The error message, checked to be one line."""
    assert list(answer.json()) == ["error"]
    text = answer.json()["error"]
    assert text.isprintable()
    assert "/tmp" not in text
    return text


@pytest.mark.parametrize(
    ("photo", "status", "expected"),
    [
        (b"", 400, "zero bytes"),
        (b"just text", 400, FORMATS),
        (SVG, 400, FORMATS),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 400, FORMATS),
        (png(20_000, 15_000), 413, "50 megapixels"),
        (png(10_000, 6_000), 413, "60.0 megapixels, more than 50"),
        (png(60_000, 60_000), 413, "50 megapixels"),
        (png(30, 20), 400, "the photo"),
    ],
    ids=["empty", "text", "svg", "eps", "300 megapixels", "60 megapixels", "bomb", "no pixels"],
)
def test_files_that_are_not_photos_are_refused(client: TestClient, photo: bytes, status: int, expected: str) -> None:
    answer = search(client, photo)
    assert answer.status_code == status
    assert expected in line(answer)


def test_a_truncated_photo_is_refused(client: TestClient, query: bytes) -> None:
    answer = search(client, query[:120])
    assert answer.status_code == 400
    assert "damaged" in line(answer)


@pytest.mark.parametrize(
    ("fields", "status", "expected"),
    [
        ({"box": "0,0,500,20"}, 400, ["0,0,500,20", "112 x 96"]),
        ({"box": "20,20,10,30"}, 400, ["20,20,10,30"]),
        ({"box": "0,0,nan,9"}, 400, ["0,0,nan,9", "x1,y1,x2,y2"]),
        ({"box": "all of it"}, 400, ["all of it", "x1,y1,x2,y2"]),
        ({"where": "colour=red"}, 400, ["colour", "place, year"]),
        ({"where": "red"}, 400, ["red", "COLUMN=VALUE"]),
        ({"tpo": "3"}, 422, ["tpo", "photo, like, box, top, where, folder, verify"]),
        ({"top": "0"}, 422, ["top: "]),
        ({"verify": "perhaps"}, 422, ["verify: "]),
    ],
)
def test_invalid_fields_are_refused(
    client: TestClient, query: bytes, fields: dict, status: int, expected: list[str]
) -> None:
    answer = search(client, query, **fields)
    assert answer.status_code == status
    assert all(part in line(answer) for part in expected)


def test_a_filter_without_matches_gives_no_answers(client: TestClient, query: bytes) -> None:
    assert search(client, query, where="year=nobody's").json()["answers"] == []


def test_invalid_forms_are_refused(client: TestClient) -> None:
    assert line(client.post("/api/search")).startswith("photo: ")
    assert client.post("/api/search", content=b"x", headers={"content-type": "multipart/form-data"}).status_code == 400
    assert client.post("/api/rerank", content=b"{", headers={"content-type": "application/json"}).status_code == 422
    assert line(client.get("/api/nothing")) == "Not Found"
    assert client.put("/api/search").status_code == 405


@pytest.mark.parametrize("path", ["/page/../app.py", "/page/..%2fapp.py", "/page/%2e%2e/app.py", "/page//etc/passwd"])
def test_no_path_leads_out_of_the_page(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("number", ["0", "-1", "99999999999999999999", "1e3", "../1", "1%00"])
def test_invalid_photo_numbers_are_refused(client: TestClient, number: str) -> None:
    assert client.get(f"/api/photos/{number}/image").status_code in (404, 422)


def test_missing_changed_and_redirected_photos_are_not_sent(
    gallery: Path, own: Path, start: Start, query: bytes
) -> None:
    client = start()
    number = search(client, query).json()["answers"][0]["id"]
    photo = Path(gallery, client.get(f"/api/photos/{number}").json()["name"])
    kept = photo.with_suffix(".kept")
    shutil.move(photo, kept)
    try:
        gone = client.get(f"/api/photos/{number}/thumbnail")
        assert gone.status_code == 410
        assert "file is missing" in line(gone)
        assert search(client, query).json()["answers"][0]["there"] is False
        assert search(client, query, verify=True).status_code == 200
        secret = own.parent / "secret.jpg"
        Image.new("RGB", (50, 50)).save(secret)
        photo.symlink_to(secret)
        for what in ("thumbnail", "image"):
            changed = client.get(f"/api/photos/{number}/{what}")
            assert changed.status_code == 410
            assert "has changed" in line(changed)
        why = client.post("/api/explain", files={"photo": ("q", query)}, data={"id": number})
        assert why.status_code == 410
        exported = client.post("/api/marks/export", data={"name": "x", "right": number})
        assert exported.status_code == 410
    finally:
        photo.unlink(missing_ok=True)
        shutil.move(kept, photo)
    assert client.get(f"/api/photos/{number}/thumbnail").status_code == 200


def test_too_many_bytes_are_refused(start: Start, query: bytes) -> None:
    client = start(max_upload=2000)
    padded = query + bytes(2001 - len(query)) if len(query) < 2001 else query
    answer = search(client, padded)
    assert answer.status_code == 413
    assert "0.002 MB" in line(answer)
    whole = search(client, bytes(1_100_000))
    assert whole.status_code == 413
    assert "1.002 MB" in line(whole)


def test_the_token_is_asked_for(start: Start, query: bytes) -> None:
    client = start(token="s3cret")
    for headers in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "Basic s3cret"}, {"Authorization": "é"}):
        refused = client.get("/api/library", headers={k: v.encode() for k, v in headers.items()})
        assert refused.status_code == 401
        assert "token" in line(refused)
        assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert search(client, query).status_code == 401
    assert client.get("/api/health").status_code == client.get("/").status_code == 200
    assert client.get("/api/library", headers={"Authorization": "Bearer s3cret"}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "evil.example:8765"])
def test_a_foreign_host_name_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/api/library", headers={"Host": host}).status_code == 403
    assert client.get("/", headers={"Host": host}).status_code == 403


def test_own_host_names_are_accepted(client: TestClient, start: Start) -> None:
    for host in ("localhost:8765", "127.0.0.1", "[::1]:8765", "192.168.1.7:80"):
        assert client.get("/api/health", headers={"Host": host}).status_code == 200
    assert start(names=frozenset({"Photos.example"})).get("/", headers={"Host": "photos.example"}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_other_sites_cannot_change_anything(start: Start, query: bytes, headers: dict[str, str]) -> None:
    client = start()
    refused = client.post("/api/photos", files={"photo": ("a.jpg", query)}, headers=headers)
    assert refused.status_code == 403
    assert client.delete("/api/photos/1", headers=headers).status_code == 403
    assert client.get("/api/library").json()["photos"] == 12
    same = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    assert client.delete("/api/photos/1", headers=same).status_code == 200


def test_every_response_forbids_external_scripts(client: TestClient) -> None:
    for path in ("/", "/api/health", "/api/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_client_above_its_rate_is_refused(start: Start, query: bytes) -> None:
    client = start(rate=3, limits=Limits(refused=0))
    assert [search(client, query).status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = search(client, query)
    assert f" {refused.headers['Retry-After']} s" in line(refused)
    assert client.get("/api/health").status_code == 200


def test_the_rate_refills_evenly_for_each_client() -> None:
    now = 0.0
    rate = RateLimiter(60, lambda: now)
    assert [rate.acquire("a") for _ in range(60)] == [0.0] * 60
    assert rate.acquire("a") == pytest.approx(1)
    assert rate.acquire("b") == 0
    now = 0.5
    assert rate.acquire("a") == pytest.approx(0.5)
    now = 1.0
    assert rate.acquire("a") == 0
    assert rate.acquire("a", 0.05) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("pause", "limits"), [(60, {"silence": 0.01}), (0.01, {"whole": 0.1})], ids=["silent", "byte by byte"]
)
def test_a_request_that_never_ends_is_not_waited_for(pause: float, limits: dict[str, float]) -> None:
    sent: list[dict] = []
    pauses = itertools.chain([0], itertools.repeat(pause))

    async def app(scope: dict, receive: Callable, send: Callable) -> None:
        while True:
            await receive()

    async def receive() -> dict:
        await asyncio.sleep(next(pauses))
        return {"type": "http.request", "body": b"a", "more_body": True}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/search",
        "headers": [(b"host", b"localhost")],
        "client": ("a", 1),
    }
    middleware = SecurityMiddleware(app, Settings(limits=Limits(**limits)), Metrics(int))
    asyncio.run(asyncio.wait_for(middleware(scope, receive, send), 10))
    assert sent[0]["status"] == 408
    assert list(json.loads(sent[1]["body"])) == ["error"]


@pytest.mark.process
def test_unknown_methods_are_counted_together() -> None:
    metrics = Metrics(int)
    for method in ("GET", "BREW", "STEAM"):
        metrics.request_started()
        metrics.request_finished(method, "none", 405, 0.0)
    text = metrics.text().decode()
    assert 'dolg_requests_total{method="other",route="none",status="405"} 2.0' in text
    assert "BREW" not in text


@pytest.mark.parametrize(
    ("folder", "message", "expected"),
    [
        (".", "top_p is 1.5, not 2.", "top_p is 1.5, not 2."),
        ("/srv/lib", "/srv/lib/a.jpg is no photo", "a.jpg is no photo"),
        ("/srv/lib", "/srv/lib: no photos; /srv/library is another", "the library: no photos; /srv/library is another"),
    ],
)
def test_messages_do_not_reveal_the_librarys_path(folder: str, message: str, expected: str) -> None:
    assert hide_folder(message, Path(folder)) == expected


def test_the_queue_is_limited() -> None:
    worker, leave, done = SerialExecutor("searches", 4), threading.Event(), []

    def stay() -> None:
        done.append(threading.get_ident())
        leave.wait(10)

    both = [threading.Thread(target=worker, args=(stay,)) for _ in range(2)]
    for thread in both:
        thread.start()
    while worker._limiter.taken < 2:
        pass
    with pytest.raises(HTTPException, match="searches") as refused:
        worker(stay)
    assert refused.value.status_code == 503
    leave.set()
    for thread in both:
        thread.join()
    # The calls ran one after another in the same thread, and there is room again.
    assert len(done) == 2
    assert len({*done, worker(threading.get_ident)}) == 1


def test_errors_of_a_worker_are_raised() -> None:
    worker = SerialExecutor("searches", 1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            worker(lambda: 1 // 0)


def test_a_large_photo_is_shrunk_and_a_small_one_found(client: TestClient) -> None:
    for size in ((3000, 40), (1, 1)):
        held = io.BytesIO()
        Image.new("RGB", size, "red").save(held, "WEBP")
        assert search(client, held.getvalue()).status_code == 200


def test_heic_is_read_if_its_reader_is_installed(client: TestClient, query: bytes) -> None:
    heif = pytest.importorskip("pillow_heif")
    held = io.BytesIO()
    heif.from_pillow(Image.open(io.BytesIO(query))).save(held, quality=90)
    assert search(client, held.getvalue(), box="10,10,90,80").status_code == 200
    assert search(client, held.getvalue()[:500]).status_code == 400


def test_heic_without_its_reader_names_the_reader(query: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    held = io.BytesIO()
    heif.from_pillow(Image.open(io.BytesIO(query))).save(held, quality=90)
    # As if it were not installed.
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingReaderError) as found:
        read_header(held.getvalue())

    def read(data: bytes) -> Header:
        # As the decoder's process raises it.
        raise pickle.loads(pickle.dumps(found.value))

    with pytest.raises(UserError, match=r"HEIC.*dolglab\[heic\]"):
        check_header(held.getvalue(), 1_000_000, read)
