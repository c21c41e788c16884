"""Search time on the page and by the API: python experiments/search_page/measure.py LIBRARY QUERIES [CHECKOUT ...]

Searches one server in turn with a plain HTTP client and a script in Chromium, from the request to the complete
response, and with the page, from the click until it has the answers' data, until they are in the document, and until
the frame with them is drawn. Thumbnails load later and do not count. Several checkouts of this repository take turns.
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page, sync_playwright

ROUNDS = 30
# Clicks on an element. Milliseconds until the page has the answers' data, until they are in the document, until drawn.
TIMED = """async (selector) => {
    const results = document.getElementById("results");
    const json = Response.prototype.json;
    const times = [];
    const note = () => times.push(performance.now() - clicked);
    Response.prototype.json = async function () {
        const found = await json.call(this);
        if (this.url.endsWith("api/search")) note();
        return found;
    };
    const drawn = new Promise((resolve) => new MutationObserver((_, observer) => {
        if (!times.length || !results.children.length) return;
        observer.disconnect();
        note();
        // A message sent at the start of a frame arrives once the frame is drawn.
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = resolve;
        requestAnimationFrame(() => port2.postMessage(null));
    }).observe(results, { childList: true }));
    const button = document.querySelector(selector);
    const clicked = performance.now();
    button.click();
    await drawn;
    note();
    Response.prototype.json = json;
    return times;
}"""
# Calls the API as the page does.
FETCHED = """async ([fields, bytes]) => {
    const body = new FormData();
    for (const [name, value] of Object.entries(fields)) body.append(name, value);
    if (bytes) body.append("photo", new File([new Uint8Array(bytes)], "photo.jpg"));
    const before = performance.now();
    await (await fetch("api/search", { method: "POST", body })).json();
    return performance.now() - before;
}"""
BOUNDARY = "a-line-that-no-photo-has"


class Server:
    """A server of a library, a plain client of it, and its page."""

    def __init__(self, address: str, page: Page) -> None:
        self.client = http.client.HTTPConnection(urlsplit(address).netloc)
        self.page = page
        page.goto(address)
        self.rest()

    def photos(self, count: int) -> list[int]:
        """Ids of the first photos of the library."""
        self.client.request("GET", f"/api/photos?limit={count}")
        return [photo["id"] for photo in json.loads(self.client.getresponse().read())["photos"]]

    def ask(self, fields: Mapping[str, object], photo: Path | None = None) -> tuple[float, list[int]]:
        """Milliseconds of a search with the plain client, and the ids of its answers."""
        parts = [(f'form-data; name="{name}"', str(value).encode()) for name, value in {"top": 24, **fields}.items()]
        if photo is not None:
            parts.append(('form-data; name="photo"; filename="photo.jpg"', photo.read_bytes()))
        body = b"".join(
            f"--{BOUNDARY}\r\nContent-Disposition: {head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts
        )
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        start = time.perf_counter()
        self.client.request("POST", "/api/search", body + f"--{BOUNDARY}--\r\n".encode(), headers)
        response = self.client.getresponse()
        found = response.read()
        spent = time.perf_counter() - start
        return spent * 1e3, [answer["id"] for answer in json.loads(found)["answers"]]

    def compare(self, fields: Mapping[str, object], button: str, photo: Path | None = None) -> list[float]:
        """Milliseconds of a search with the plain client, with a script, and on the page, see `TIMED`."""
        plain, _ = self.ask(fields, photo)
        script = self.page.evaluate(FETCHED, [{"top": 24, **fields}, photo and list(photo.read_bytes())])
        shown = self.page.evaluate(TIMED, button)
        self.rest()
        return [plain, script, *shown]

    def choose(self, photo: Path) -> None:
        """Choose a photo on the page, which searches for it a first time."""
        self.page.locator("#file").set_input_files(photo)
        self.page.locator("#results .card").first.wait_for()
        self.rest()

    def browse(self) -> None:
        """Return to the grid."""
        self.page.evaluate("location.hash = '#photos'")
        self.page.locator("#library .card").first.wait_for()
        self.rest()

    def rest(self) -> None:
        """Wait for all that the page still fetches."""
        self.page.wait_for_load_state("networkidle")
        self.page.wait_for_timeout(300)


def main(library: str, queries: str, *checkouts: str) -> None:
    """Serve a library, search in turn, and print medians and their ratios."""
    command = [sys.executable, "-u", "-m", "src.serve", "--library", str(Path(library).absolute()), "--port", "0"]
    with ExitStack() as stack, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        servers = {}
        for checkout in checkouts or (".",):
            # Without the PYTHONPATH of another checkout.
            process = stack.enter_context(
                subprocess.Popen(
                    [*command, "--rate", "1e9", "--read-only"], stdout=subprocess.PIPE, text=True, cwd=checkout, env={}
                )
            )
            stack.callback(process.terminate)
            assert process.stdout
            address = process.stdout.readline().strip()
            servers[checkout] = Server(address, browser.new_page(viewport={"width": 1280, "height": 900}))
        measure(servers, sorted(Path(queries).glob("*.jpg"))[:ROUNDS])
        browser.close()


def measure(servers: Mapping[str, Server], queries: list[Path]) -> None:
    """Measure each kind of query: a photo in the grid, one among the answers, and an uploaded photo."""
    times = defaultdict[str, list[list[float]]](list)
    ids = next(iter(servers.values())).photos(len(queries))
    for place, (id, query) in enumerate(zip(ids, queries, strict=True), 1):
        for checkout, server in servers.items():
            _, (first, *_) = server.ask({"like": id})
            in_grid = server.compare({"like": id}, f"#library li:nth-child({place}) .more")
            among = server.compare({"like": first}, "#results li:first-child .more")
            server.choose(query)
            uploaded = server.compare({}, "#search", query)
            server.browse()
            for kind, each in (("photo in the grid", in_grid), ("among the answers", among), ("uploaded", uploaded)):
                times[f"{kind}, {checkout}"].append(each)
    for title, rounds in sorted(times.items()):
        tell(title, rounds)


def tell(title: str, rounds: list[list[float]]) -> None:
    """Print medians, and their ratios to the script's; the first round is a warm-up."""
    plain, script, *shown = (statistics.median(each) for each in zip(*rounds[1:], strict=True))
    stages = zip(("data", "in the document", "drawn"), shown, strict=True)
    page = ", ".join(f"{stage} {time:.1f} ms ({time / script:.2f})" for stage, time in stages)
    print(f"{title}: plain client {plain:.1f} ms, script {script:.1f} ms; page: {page}; medians of {len(rounds) - 1}")


if __name__ == "__main__":
    main(*sys.argv[1:])
