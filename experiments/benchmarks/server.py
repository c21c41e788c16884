"""The server under load on loopback: searches a second, how long they take, memory, and what overload is answered.

    PYTHONPATH=. python experiments/benchmarks/server.py [--photos N] [--searches N] [--clients N]

A library of made-up photos is served by `python -m src.serve` in a process of its own. First as many searches, from so
many clients that each wait for their answer; beside it the plain reference: the same searches one after another by the
library itself, without a server. Then eight times as many clients, so that the queue overflows; then one client beyond
its rate. Anything but 200, 429 and 503, a connection that breaks, and a server that does not search afterwards count
as failures. Memory is the highest of the server's process (VmHWM).
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from dolglab.data.photos import query_pixels
from dolglab.library.ingest import embed_places
from dolglab.library.search_engine import SearchEngine

MODEL, MAX_SIDE = "efficientnet_lite0", 512
WIDTH, HEIGHT, CELLS = 640, 480, 40
OFTEN, SELDOM = 1e9, 60
Asked = tuple[int, float]


def main() -> None:
    """Make the library, ask, print."""
    parser = argparse.ArgumentParser(description="The server under load.")
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos = [jpeg(seed) for seed in range(options.photos)]
        (root := Path(folder, "photos")).mkdir()
        for number, photo in enumerate(photos):
            (root / f"{number:04d}.jpg").write_bytes(photo)
        library = str(Path(folder, "library"))
        embed_places([str(root)], library, model=MODEL, max_side=MAX_SIDE)
        queries = [photos[number % len(photos)] for number in range(options.searches)]
        print(f"\nthe library itself, one after another: {plain(library, queries):.1f} searches/s")
        with served(library, OFTEN) as (address, process):
            ask(address, queries[:8], 1)
            print(f"memory of the server after its first searches: {memory(process):.0f} MB")
            told(f"{options.clients} clients", *timed(address, queries, options.clients))
            told(f"{8 * options.clients} clients", *timed(address, 2 * queries, 8 * options.clients))
            told("then, one client", *timed(address, queries[:20], 1))
            print(f"highest memory of the server: {memory(process):.0f} MB")
        with served(library, SELDOM) as (address, _):
            told(f"one client, {SELDOM} searches a minute allowed", *timed(address, queries[: SELDOM + 40], 1))


def jpeg(seed: int) -> bytes:
    """A photo of coloured cells."""
    cells = np.random.default_rng(seed).integers(0, 256, (HEIGHT // CELLS, WIDTH // CELLS, 3), np.uint8)
    held = io.BytesIO()
    Image.fromarray(cells.repeat(CELLS, 0).repeat(CELLS, 1)).save(held, "JPEG", quality=90)
    return held.getvalue()


def plain(library: str, queries: Sequence[bytes]) -> float:
    """Searches a second without a server."""
    engine = SearchEngine(library)
    engine.search([query_pixels(queries[0], "query", engine.max_side)])
    start = time.perf_counter()
    for query in queries:
        engine.search([query_pixels(query, "query", engine.max_side)])
    return len(queries) / (time.perf_counter() - start)


@contextmanager
def served(library: str, rate: float) -> Iterator[tuple[str, int]]:
    """The address of a server, and its process."""
    command = [sys.executable, "-m", "src.serve", "--library", library, "--port", "0", "--rate", str(rate)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


def timed(address: str, queries: Sequence[bytes], clients: int) -> tuple[list[Asked], float]:
    """What `ask` gives, and seconds for all of it."""
    start = time.perf_counter()
    return ask(address, queries, clients), time.perf_counter() - start


def ask(address: str, queries: Sequence[bytes], clients: int) -> list[Asked]:
    """Status (0 for a broken connection) and seconds of each search."""
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    with httpx.Client(base_url=address, timeout=60, limits=limits) as client, ThreadPoolExecutor(clients) as pool:

        def one(query: bytes) -> Asked:
            start = time.perf_counter()
            try:
                status = client.post("/api/search", files={"photo": ("query.jpg", query)}).status_code
            except httpx.HTTPError:
                status = 0
            return status, time.perf_counter() - start

        return list(pool.map(one, queries))


def told(what: str, asked: Sequence[Asked], seconds: float) -> None:
    """Print a line."""
    found = np.array([taken for status, taken in asked if status == 200])
    counts = Counter(status for status, _ in asked)
    failures = sum(count for status, count in counts.items() if status not in (200, 429, 503))
    print(
        f"{what}: {len(found)} of {len(asked)} answered, {len(found) / seconds:.1f} searches/s, "
        f"median {np.median(found) * 1000:.0f} ms, p95 {np.quantile(found, 0.95) * 1000:.0f} ms; "
        f"429: {counts[429]}, 503: {counts[503]}, failures: {failures}"
    )


def memory(process: int) -> float:
    """The highest resident memory so far, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) / 1000


if __name__ == "__main__":
    main()
