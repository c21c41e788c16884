"""Search time on the page and by the API: python experiments/search_page/measure.py LIBRARY QUERIES

Searches one server in turn with a plain HTTP client and a script in Chromium, from the request to the complete
response, and with the page, from the click to the frame that shows all answers. Thumbnails load later and do not count.
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page, sync_playwright

ROUNDS = 30
# Starts a search on the page and waits for its answers.
TIMED = """async (like) => {
    const { searchLike } = await import("./page/views.js");
    const status = document.getElementById("status");
    const before = performance.now();
    const over = new Promise((resolve) => new MutationObserver((_, observer) => {
        if (!status.textContent.includes("most similar first")) return;
        observer.disconnect();
        requestAnimationFrame(() => resolve(performance.now() - before));
    }).observe(status, { childList: true }));
    if (like) searchLike(like);
    else document.getElementById("search").click();
    return await over;
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


def main(library: str, queries: str) -> None:
    """Serve a library, search in turn, and print medians and their ratios."""
    command = [sys.executable, "-u", "-m", "src.serve", "--library", library, "--port", "0", "--rate", "1e9"]
    with subprocess.Popen([*command, "--read-only"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            measure(server.stdout.readline().strip(), sorted(Path(queries).glob("*.jpg"))[:ROUNDS])
        finally:
            server.terminate()


def measure(address: str, queries: list[Path]) -> None:
    """Measure both kinds of query: an uploaded photo, and a photo of the library."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.locator("#library .card").first.wait_for()
        ids = [photo["id"] for photo in listed(connection, len(queries))]
        of_library = [(asked(connection, {"like": id}), fetched(page, {"like": id}), timed(page, id)) for id in ids]
        tell("photo of the library", of_library)
        tell(
            "uploaded photo",
            [(asked(connection, {}, path), fetched(page, {}, path), sent(page, path)) for path in queries],
        )
        browser.close()


def tell(title: str, seconds: list[tuple[float, float, float]]) -> None:
    """Print medians in milliseconds; the first round is a warm-up."""
    plain, script, page = (statistics.median(each) * 1e3 for each in zip(*seconds[1:], strict=True))
    print(
        f"{title}: plain client {plain:.0f} ms, script in Chromium {script:.0f} ms, page {page:.0f} ms, "
        f"{page / plain:.2f} and {page / script:.2f} times as long (medians of {len(seconds) - 1})"
    )


def listed(connection: http.client.HTTPConnection, count: int) -> list[dict[str, int]]:
    """The first photos of the library."""
    connection.request("GET", f"/api/photos?limit={count}")
    return json.loads(connection.getresponse().read())["photos"]


def asked(connection: http.client.HTTPConnection, fields: dict[str, object], photo: Path | None = None) -> float:
    """Seconds of a search with a plain client."""
    parts = [(f'form-data; name="{name}"', str(value).encode()) for name, value in {"top": 24, **fields}.items()]
    if photo is not None:
        parts.append(('form-data; name="photo"; filename="photo.jpg"', photo.read_bytes()))
    body = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: {head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts
    )
    start = time.perf_counter()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    connection.request("POST", "/api/search", body + f"--{BOUNDARY}--\r\n".encode(), headers)
    response = connection.getresponse()
    response.read()
    assert response.status == 200
    return time.perf_counter() - start


def fetched(page: Page, fields: dict[str, object], photo: Path | None = None) -> float:
    """Seconds of a search with a script in Chromium."""
    return page.evaluate(FETCHED, [{"top": 24, **fields}, photo and list(photo.read_bytes())]) / 1e3


def timed(page: Page, like: int | None) -> float:
    """Seconds of a search on the page; returns only after its thumbnails have loaded."""
    seconds = page.evaluate(TIMED, like) / 1e3
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(300)
    return seconds


def sent(page: Page, photo: Path) -> float:
    """Seconds of a search for a photo that has already been chosen."""
    name = page.evaluate("location.hash")
    page.locator("#file").set_input_files(photo)
    page.wait_for_function("before => location.hash !== before", arg=name)
    page.locator("#status:has-text('most similar first'):not(.busy)").wait_for()
    page.wait_for_timeout(500)
    return timed(page, None)


if __name__ == "__main__":
    main(*sys.argv[1:])
