"""Limits of one client: its share of requests, bytes and time."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from fastapi import FastAPI, HTTPException
from PIL import Image

from dolglab.server.isolation import IsolatedExecutor
from dolglab.server.limits import CLIENT, FairLimiter, Limits
from dolglab.server.security import BODIES, FORM_FIELDS, Metrics, SecurityMiddleware, Settings
from dolglab.server.service import SearchService
from server.conftest import OFTEN, Start
from server.test_refusals import line, search

MULTIPART = "multipart/form-data; boundary=b"


class Server:
    """The middleware in front of an application that records requests and responds when `go` is set."""

    def __init__(self, max_upload: int = 1000, **limits: float) -> None:
        settings = Settings(max_upload=max_upload, rate=OFTEN, limits=replace(Limits(), **limits))
        self.came: list[tuple[str, bytes]] = []
        self.go = asyncio.Event()
        self.middleware = SecurityMiddleware(self._answer, settings, Metrics(int))

    async def _answer(self, scope: dict, receive: Callable, send: Callable) -> None:
        body, more = b"", scope["path"] != "/api/health"
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        self.came.append((scope["client"][0], body))
        if scope["path"] == "/api/search":
            await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def ask(
        self, client: str, pieces: list[bytes] | None = None, path: str = "/api/search", reads: bool = True
    ) -> asyncio.Task[int]:
        """The status for a client that sends `pieces` and then stalls, or an empty body; and that may not read."""
        headers = [(b"host", b"localhost"), (b"content-type", MULTIPART.encode())]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "client": (client, 1)}
        parts: Iterator[bytes] = iter(pieces or ())
        statuses = []

        async def receive() -> dict:
            if pieces is None:
                return {"type": "http.request", "body": b"", "more_body": False}
            if (part := next(parts, None)) is None:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": part, "more_body": part != b"end"}

        async def send(message: dict) -> None:
            statuses.append(message.get("status"))
            if not reads and message["type"] == "http.response.body":
                await asyncio.Event().wait()

        async def answered() -> int:
            task = asyncio.create_task(self.middleware(scope, receive, send))
            while not statuses and not task.done():
                await asyncio.sleep(0)
            return statuses[0]

        return asyncio.create_task(answered())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def run(steps: Callable[[], object]) -> None:
    asyncio.run(asyncio.wait_for(steps(), 60))


def test_a_client_gets_at_most_half_of_the_requests() -> None:
    async def steps() -> None:
        server = Server(requests=4)
        mine = [server.ask("a") for _ in range(2)]
        await until(lambda: len(server.came) == 2)
        assert await server.ask("a") == 503
        others = [server.ask("b"), server.ask("c")]
        await until(lambda: len(server.came) == 4)
        assert await server.ask("d") == 503
        assert await server.ask("a", path="/api/health") == 200
        server.go.set()
        assert await asyncio.gather(*mine, *others) == [200] * 4
        assert await server.ask("a") == 200

    run(steps)


def test_slow_senders_and_readers_do_not_count_as_requests() -> None:
    async def steps() -> None:
        server = Server(requests=2)
        server.go.set()
        sending = [server.ask("a", [b"never an end"]) for _ in range(10)]
        assert [await server.ask("a", reads=False) for _ in range(10)] == [200] * 10
        assert await server.ask("a", [b"all of ", b"it", b"end"]) == 200
        assert server.came[-1] == ("a", b"all of itend")
        assert not any(task.done() for task in sending)

    run(steps)


def test_a_client_gets_at_most_half_of_the_upload_memory() -> None:
    async def steps() -> None:
        server = Server(max_upload=FORM_FIELDS)
        server.go.set()
        whole = [bytes(2 * FORM_FIELDS)]
        for client in ("a", "b"):
            sending = [server.ask(client, whole) for _ in range(BODIES // 2)]
            for _ in range(100):
                await asyncio.sleep(0)
            assert not any(task.done() for task in sending)
            assert await server.ask(client, whole) == 503
            if client == "a":
                assert await server.ask("b", [b"small", b"end"]) == 200
        assert await server.ask("c", [b"small", b"end"]) == 503

    run(steps)


def test_a_clients_share_is_released() -> None:
    limiter = FairLimiter("searches", 10)
    limiter.acquire(5)
    with pytest.raises(HTTPException):
        limiter.acquire()
    CLIENT.set("another")
    with limiter:
        limiter.acquire(4)
        assert limiter.taken == 10
        with pytest.raises(HTTPException):
            limiter.acquire()
    limiter.release(4)
    assert limiter.taken == 5
    CLIENT.set("")
    limiter.release(5)
    limiter.acquire(5)


def test_too_many_chunked_bytes_are_refused_with_413(start: Start) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(3):
            yield bytes(FORM_FIELDS)

    client = start(max_upload=FORM_FIELDS)
    for path in ("/api/search", "/api/photos", "/api/explain"):
        answer = client.post(path, content=chunks(), headers={"Content-Type": MULTIPART})
        assert answer.status_code == 413
        assert "2 MB" in line(answer)
    # Only forms may contain a photo.
    marks = client.post("/api/rerank", content=bytes(FORM_FIELDS + 1), headers={"Content-Type": "application/json"})
    assert marks.status_code == 413


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "//", "http://127.0.0.1]", "\x00", "é"])
def test_an_invalid_origin_is_refused(start: Start, query: bytes, origin: str) -> None:
    answer = start().post("/api/search", files={"photo": ("a", query)}, headers={"Origin": origin.encode()})
    assert answer.status_code == 403
    line(answer)


def test_wrong_tokens_are_delayed_and_the_right_one_is_not(start: Start) -> None:
    client = start(token="right", limits=Limits(refused=0))

    def status(authorization: dict[str, str]) -> int:
        return client.get("/api/library", headers=authorization).status_code

    wrong = [status({"Authorization": f"Bearer {number}"}) for number in range(20)]
    assert wrong[0] == 401
    assert wrong == sorted(wrong)
    refused = client.get("/api/library", headers={"Authorization": "Bearer wrong"})
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert status({"Authorization": "Bearer right"}) == 200
    assert status({}) == 401


def test_too_many_wrong_tokens_are_held_back() -> None:
    async def steps() -> None:
        settings = Settings(token="right", rate=OFTEN, limits=Limits(refused=3600))
        sent: list[dict] = []

        async def send(message: dict) -> None:
            sent.append(message)

        middleware = SecurityMiddleware(cast(Callable, None), settings, Metrics(int))
        headers = [(b"host", b"localhost"), (b"authorization", b"Bearer wrong")]
        scope = {"type": "http", "method": "GET", "path": "/api/library", "headers": headers, "client": ("a", 1)}
        tasks = [asyncio.create_task(middleware(scope, cast(Callable, None), send)) for _ in range(20)]
        for _ in range(100):
            await asyncio.sleep(0)
        held = sum(not task.done() for task in tasks)
        assert 0 < held < 20
        assert [message["status"] for message in sent if "status" in message] == [401] * (20 - held)
        assert all(json.loads(message["body"]) for message in sent if "body" in message)

    run(steps)


def large_photo() -> bytes:
    """A plain photo that takes a while to decode."""
    held = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 2, (3000, 4000, 3), np.uint8)
    Image.fromarray(pixels).save(held, "PNG", compress_level=1)
    return held.getvalue()


@pytest.mark.process
@pytest.mark.parametrize("kind", ["time", "memory"])
def test_photos_that_are_too_expensive_to_decode_are_refused(start: Start, kind: str) -> None:
    decoder = (
        IsolatedExecutor(1 << 33, 0, 0) if kind == "time" else IsolatedExecutor(20_000_000, 60, 60, preload=("cv2",))
    )
    client = start(decoder)
    photo = large_photo()
    for answer in (search(client, photo), client.post("/api/photos", files={"photo": ("a.png", photo)})):
        assert answer.status_code == 413
        line(answer)
    assert client.get("/api/library").json()["photos"] == 12


def test_plain_searches_do_not_wait_for_verification(start: Start, query: bytes) -> None:
    client = start()
    service: SearchService = cast(FastAPI, client.app).state.service
    reached = []

    def meanwhile() -> None:
        plain = search(client, query)
        reached.append(plain.json()["answers"][0]["inliers"])

    service._verifications(meanwhile)
    assert reached == [None]
    assert search(client, query, verify=True).json()["answers"][0]["inliers"] is not None
