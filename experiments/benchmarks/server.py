"""The server under load on loopback, compared with a bare one: searches per second, memory, and responses to overload.

    PYTHONPATH=. python experiments/benchmarks/server.py [--photos N] [--searches N] [--clients N]

`python -m src.serve` serves a library of synthetic photos in its own process, and a bare application of FastAPI,
onnxruntime and faiss serves the same descriptors without any checks. Both get the same searches in turn, one at a
time and from several clients that each wait for their answer. Processor time includes a server's decoders. Then the
library itself is searched, without a server; then by eight times as many clients, so that the queue overflows; then
by one client beyond its rate. Any status other than 200, 429 and 503, a broken connection, and a server that cannot
search afterwards count as failures. Memory is the peak of the server's process (VmHWM).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import faiss
import httpx
import numpy as np
from PIL import Image

from dolglab.data.photos import query_pixels
from dolglab.library.ingest import embed_places
from dolglab.library.search_engine import SearchEngine
from dolglab.sharing.networks import load_network
from dolglab.sharing.onnx_export import write_onnx

# The shortest possible search: no limits, no checks, decoding in the same process.
BARE = """
import json, socket, sys
import cv2, faiss, numpy as np, onnxruntime, simplejpeg, uvicorn
from fastapi import FastAPI, UploadFile
model, index, names, side = *sys.argv[1:4], int(sys.argv[4])
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
index, names = faiss.read_index(index), json.load(open(names))
app = FastAPI()
@app.post("/api/search")
def search(photo: UploadFile):
    image = simplejpeg.decode_jpeg(photo.file.read())
    factor = side / max(image.shape[:2])
    if factor < 1:
        height, width = (round(length * factor) for length in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    (descriptor,) = session.run(None, {"images": np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)})
    cosines, rows = index.search(descriptor, 20)
    return [{"name": names[row], "cosine": float(cosine)} for cosine, row in zip(cosines[0], rows[0])]
listener = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
"""
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
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the comparison with the bare application")
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
        compare(library, Path(folder), queries, options.clients, options.rounds)
        with served(library, OFTEN) as (address, process):
            ask(address, queries[:8], 1)
            print(f"memory of the server after its first searches: {memory(process):.0f} MB")
            told(f"{options.clients} clients", *timed(address, queries, options.clients))
            told(f"{8 * options.clients} clients", *timed(address, 2 * queries, 8 * options.clients))
            told("then, one client", *timed(address, queries[:20], 1))
            print(f"highest memory of the server: {memory(process):.0f} MB")
        with served(library, SELDOM) as (address, _):
            told(f"one client, {SELDOM} searches per minute allowed", *timed(address, queries[: SELDOM + 40], 1))


def jpeg(seed: int) -> bytes:
    """A photo of coloured cells."""
    cells = np.random.default_rng(seed).integers(0, 256, (HEIGHT // CELLS, WIDTH // CELLS, 3), np.uint8)
    held = io.BytesIO()
    Image.fromarray(cells.repeat(CELLS, 0).repeat(CELLS, 1)).save(held, "JPEG", quality=90)
    return held.getvalue()


def plain(library: str, queries: Sequence[bytes]) -> float:
    """Searches per second without a server."""
    engine = SearchEngine(library)
    engine.search([query_pixels(queries[0], "query", engine.max_side)])
    start = time.perf_counter()
    for query in queries:
        engine.search([query_pixels(query, "query", engine.max_side)])
    return len(queries) / (time.perf_counter() - start)


def compare(library: str, folder: Path, queries: Sequence[bytes], clients: int, rounds: int) -> None:
    """Print searches per second and processor time per search of the server and of the bare application."""
    engine = SearchEngine(library)
    keys = engine.library.keys()
    index = faiss.IndexFlatIP(engine.library.identity["dim"])
    index.add(engine.library.descriptors(keys))  # pyright: ignore[reportCallIssue]
    faiss.write_index(index, str(folder / "index.faiss"))
    found = engine.library.catalogue.photos(keys.tolist())
    (folder / "names.json").write_text(json.dumps([found[key].name for key in keys.tolist()]))
    write_onnx(load_network(MODEL), folder / "model.onnx")
    bare = [sys.executable, "-c", BARE, *(str(folder / name) for name in ("model.onnx", "index.faiss", "names.json"))]
    with served(library, OFTEN) as ours, running([*bare, str(MAX_SIDE)]) as plain:
        servers = {"bare": plain, "ours": ours}
        for count in (1, clients):
            rates: dict[str, list[float]] = {name: [] for name in servers}
            costs: dict[str, list[float]] = {name: [] for name in servers}
            for turn in range(rounds + 1):
                for name, (address, process) in servers.items():
                    before = processor_time(process)
                    asked, seconds = timed(address, queries, count)
                    # The first round also starts the decoders and imports.
                    if turn:
                        rates[name].append(sum(status == 200 for status, _ in asked) / seconds)
                        costs[name].append(1000 * (processor_time(process) - before) / len(asked))
            rate, cost = ({name: statistics.median(each) for name, each in all_.items()} for all_ in (rates, costs))
            print(
                f"{count} at a time: ours {rate['ours']:.1f} searches/s, bare {rate['bare']:.1f} (ratio "
                f"{rate['ours'] / rate['bare']:.2f}); processor time of one {cost['ours']:.1f} ms and "
                f"{cost['bare']:.1f} ms (ratio {cost['bare'] / cost['ours']:.2f})",
                flush=True,
            )


def processor_time(process: int) -> float:
    """Seconds of a process and its children, so far."""
    tasks = Path(f"/proc/{process}/task")
    below = {child for task in tasks.iterdir() for child in (task / "children").read_text().split()}
    times = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[11:13] for each in (process, *below)]
    return sum(int(ticks) for each in times for ticks in each) / os.sysconf("SC_CLK_TCK")


def served(library: str, rate: float) -> AbstractContextManager[tuple[str, int]]:
    """The address of our server, and its process."""
    return running([sys.executable, "-m", "src.serve", "--library", library, "--port", "0", "--rate", str(rate)])


@contextmanager
def running(command: list[str]) -> Iterator[tuple[str, int]]:
    """The address that a server prints, and its process."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


def timed(address: str, queries: Sequence[bytes], clients: int) -> tuple[list[Asked], float]:
    """The results of `ask`, and the total seconds."""
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
