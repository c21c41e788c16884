"""Search times of one client while others try to block the server, and whether health checks still succeed.

    PYTHONPATH=. python experiments/slow_clients/run.py [--photos PLACE] [--searches N] [--only NAME ...]

`python -m src.serve` serves a library of the photos on one core with 128 file descriptors. All clients share another
core and one address, the hardest case, since the server cannot tell them apart. For each crowd, which runs in its own
process, the searches run alone and then beside it. Prints the 95th percentiles of both and their ratio, the longest
health check (ten per second, each on a new connection), and the number of failed searches. Disconnected clients of a
crowd come back. Exits with 1 if a ratio is more than 3, a health check took more than a second, or anything failed.
Timeouts are 10 s; the whole script takes minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import numpy as np
from PIL import Image

from dolglab.data.photos import files_below
from dolglab.library.ingest import embed_places

MODEL, MAX_SIDE = "efficientnet_lite0", 512
SERVER_CORE, CLIENT_CORE, DESCRIPTORS = 0, 1, 128
SLOWER, HEALTH = 3.0, 1.0
# The server's limit for decoding in seconds, and the sides of a photo that takes longer.
DECODING, SLOW_SIDES = 0.5, (8000, 6000)
BOUNDARY = "part"
TOKEN = "open sesame"

Client = Callable[[str, int, int], Awaitable[None]]


def form(photo: bytes, **fields: str) -> bytes:
    """A multipart body with a photo."""
    parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n'
    return "".join([*parts, head]).encode() + photo + f"\r\n--{BOUNDARY}--\r\n".encode()


def request(method: str, path: str, *headers: str, token: str = TOKEN) -> bytes:
    """The head of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def upload(body: bytes, path: str = "/api/search", token: str = TOKEN) -> bytes:
    """A complete request with a form."""
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    return request("POST", path, kind, f"Content-Length: {len(body)}", token=token) + body


async def never_read(host: str, port: int, number: int) -> None:
    """Request large pictures, and read nothing."""
    _, writer = await asyncio.open_connection(host, port)
    writer.write(request("GET", f"/api/photos/{number % 50 + 1}/image") * 40)
    await asyncio.sleep(3600)


async def trickle_heads(host: str, port: int, number: int) -> None:
    """Send a header byte by byte."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET /api/library HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
    while not reader.at_eof():
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(1)


async def trickle_bodies(host: str, port: int, number: int) -> None:
    """Send a photo byte by byte."""
    reader, writer = await asyncio.open_connection(host, port)
    body = form(bytes(10_000_000))
    writer.write(upload(body)[: -len(body)])
    for byte in body:
        writer.write(bytes([byte]))
        await writer.drain()
        if reader.at_eof():
            return
        await asyncio.sleep(1)


async def idle(host: str, port: int, number: int) -> None:
    """Connect, and do nothing."""
    reader, _ = await asyncio.open_connection(host, port)
    await reader.read()


async def ask(host: str, port: int, data: bytes) -> None:
    """Send a request, and read the complete response."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(data.replace(b"Host:", b"Connection: close\r\nHost:", 1))
    await reader.read()
    writer.close()


async def slow_to_decode(host: str, port: int, number: int) -> None:
    """Send a photo that takes longer to decode than the limit."""
    await ask(host, port, upload(form(Path(os.environ["SLOW_PHOTO"]).read_bytes())))


async def verify(host: str, port: int, number: int) -> None:
    """Search with verification of the answers."""
    await ask(host, port, upload(form(Path(os.environ["QUERY"]).read_bytes(), verify="true", top="50")))


async def guess(host: str, port: int, number: int) -> None:
    """Try a wrong token."""
    await ask(host, port, request("GET", "/api/library", token="wrong"))


async def too_large(host: str, port: int, number: int) -> None:
    """Send more than the server accepts, in chunks."""
    reader, writer = await asyncio.open_connection(host, port)
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    writer.write(request("POST", "/api/search", kind, "Transfer-Encoding: chunked"))
    chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    while not reader.at_eof():
        writer.write(chunk)
        await writer.drain()
        await asyncio.sleep(0.05)


async def tiny_chunks(host: str, port: int, number: int) -> None:
    """Send chunks of one byte as fast as possible."""
    reader, writer = await asyncio.open_connection(host, port)
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    writer.write(request("POST", "/api/search", kind, "Transfer-Encoding: chunked"))
    while not reader.at_eof():
        writer.write(b"1\r\na\r\n" * 10_000)
        await writer.drain()


# Crowds by their printed names: the number of clients, and what each does repeatedly.
CROWDS: dict[str, tuple[int, Client]] = {
    "70 that never read": (70, never_read),
    "70 that trickle headers": (70, trickle_heads),
    "70 that trickle photos": (70, trickle_bodies),
    "140 idle": (140, idle),
    "1 slow to decode": (1, slow_to_decode),
    "1 that verifies": (1, verify),
    "8 that guess tokens": (8, guess),
    "2 that send too much": (2, too_large),
    "4 that send tiny chunks": (4, tiny_chunks),
}


def crowd(name: str, address: str) -> None:
    """Run the clients of a crowd until this process is killed."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    host, port = urlsplit(address).hostname or "", urlsplit(address).port or 0
    count, client = CROWDS[name]

    async def again(number: int) -> None:
        while True:
            with suppress(OSError):
                await client(host, port, number)
            await asyncio.sleep(0.1)

    async def everyone() -> None:
        await asyncio.gather(*map(again, range(count)))

    asyncio.run(everyone())


class Measured(NamedTuple):
    """Seconds of each search and of the longest health check, and the number of failures."""

    searches: list[float]
    health: float
    failures: int

    @property
    def p95(self) -> float:
        return float(np.quantile(self.searches, 0.95))


def measure(address: str, queries: list[bytes]) -> Measured:
    """Search for each query, one after another, with health checks in parallel."""
    done, waits, failures = threading.Event(), [0.0], 0

    def watch() -> None:
        while not done.wait(0.1):
            start = time.perf_counter()
            with suppress(httpx.HTTPError):
                answer = httpx.get(f"{address}/api/health", timeout=5)
                waits.append(time.perf_counter() - start if answer.status_code == 200 else np.inf)
                continue
            waits.append(np.inf)

    watcher = threading.Thread(target=watch)
    watcher.start()
    taken = []
    with httpx.Client(base_url=address, timeout=10, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        for query in queries:
            start = time.perf_counter()
            try:
                failures += client.post("/api/search", files={"photo": ("a.jpg", query)}).status_code != 200
            except httpx.HTTPError:
                failures += 1
            taken.append(time.perf_counter() - start)
    done.set()
    watcher.join()
    return Measured(taken, max(waits), failures)


@contextmanager
def serving(library: str) -> Iterator[str]:
    """Run a server on its own core; yields its address."""

    def bound() -> None:
        os.sched_setaffinity(0, {SERVER_CORE})
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))

    options = ["--library", library, "--port", "0", "--rate", "1e9", "--max-decode-seconds", str(DECODING)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "DOLG_TOKEN": TOKEN}
    command = [sys.executable, "-m", "src.serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=bound) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip().rstrip("/")
        finally:
            process.terminate()


def main() -> int:
    """Make the library, serve it, measure, and print."""
    parser = argparse.ArgumentParser(description="A server among slow clients.")
    parser.add_argument("--photos", default="../shared/data/provence")
    parser.add_argument("--searches", type=int, default=100)
    parser.add_argument("--only", nargs="*", choices=CROWDS, default=list(CROWDS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = str(Path(folder, "library"))
        embed_places([options.photos], library, model=MODEL, max_side=MAX_SIDE)
        names = [file.name for file in files_below(options.photos)]
        queries = [Path(names[7 * number % len(names)]).read_bytes() for number in range(options.searches)]
        blocks = np.random.default_rng(0).integers(0, 256, (SLOW_SIDES[1] // 40, SLOW_SIDES[0] // 40, 3), np.uint8)
        Image.fromarray(blocks.repeat(40, 0).repeat(40, 1)).save(slow := Path(folder, "slow.png"), compress_level=1)
        os.environ.update(SLOW_PHOTO=str(slow), QUERY=names[0])
        os.sched_setaffinity(0, {CLIENT_CORE})
        with serving(library) as address:
            measure(address, queries[:10])
            headers = {"Authorization": f"Bearer {TOKEN}"}
            with open(slow, "rb") as photo:
                print(httpx.post(f"{address}/api/search", files={"photo": photo}, headers=headers, timeout=10).text)
            good = True
            for name in options.only:
                quiet = measure(address, queries)
                others = multiprocessing.get_context("spawn").Process(target=crowd, args=(name, address), daemon=True)
                others.start()
                # Wait until all clients have connected.
                time.sleep(3)
                good = tell(name, measure(address, queries), quiet) and good
                others.kill()
                others.join()
    return 0 if good else 1


def tell(name: str, measured: Measured, quiet: Measured) -> bool:
    """Print a line; returns whether the results are within the limits."""
    ratio = measured.p95 / quiet.p95
    good = ratio <= SLOWER and measured.health <= HEALTH and not measured.failures
    print(
        f"{name}: p95 {quiet.p95 * 1000:.0f} ms, then {measured.p95 * 1000:.0f} ms, {ratio:.2f} times; "
        f"health {measured.health * 1000:.0f} ms; failures {measured.failures}{'' if good else '  (not held)'}",
        flush=True,
    )
    return good


if __name__ == "__main__":
    sys.exit(main())
