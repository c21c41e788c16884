"""Time and memory of the map: python experiments/library_map/measure.py LIBRARY, a library from `synthetic.py`.

Prints the time and memory of `dolglab library map`, the time from opening the page to the drawn map, and the intervals
between frames during a drag and a zoom by wheel, by `requestAnimationFrame` in headless Chromium without a GPU.
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from urllib.request import urlopen

import numpy as np
from playwright.sync_api import Page, sync_playwright

OPENED, MOVES = 5, 180
# Milliseconds of a frame, above which one was dropped: 1.5 times the interval at 60 Hz.
DROPPED = 1.5 * 1000 / 60
FIRST_DRAW = """
() => new Promise((done) => {
  const look = () => {
    const canvas = document.getElementById("map-canvas");
    // A canvas is 300 pixels wide until something is drawn on it, which is visible in the next frame.
    if (canvas && canvas.width !== 300) requestAnimationFrame(() => done(performance.now()));
    else requestAnimationFrame(look);
  };
  look();
})
"""
RECORD = """
() => {
  window.frames = [];
  const note = (now) => { window.frames.push(now); window.recording = requestAnimationFrame(note); };
  window.recording = requestAnimationFrame(note);
}
"""
RECORDED = "() => { cancelAnimationFrame(window.recording); return window.frames; }"


def main(library: str) -> None:
    """Measure and print."""
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{os.cpu_count()} cores, load {load} before the measurement")
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "dolglab", "library", "map", "--library", library], check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = f"{time.monotonic() - start:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of processor time"
    mapped = sum(path.stat().st_size for path in Path(library, "segments").glob("*.flat"))
    print(f"library map: {took}, {used.ru_maxrss / 1024:.0f} MiB at most, of which files {mapped / 2**20:.0f}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen([sys.executable, str(Path(__file__).with_name("serve.py")), library, str(port)]) as server:
        try:
            address = f"http://127.0.0.1:{port}/"
            wait_for(f"{address}api/health")
            measure_page(f"{address}#map")
        finally:
            server.terminate()
    print(f"load {' '.join(f'{one:.1f}' for one in os.getloadavg())} at the end")


def wait_for(address: str) -> None:
    """Wait until a server responds."""
    while True:
        try:
            return urlopen(address).close()
        except OSError:
            time.sleep(0.2)


def measure_page(address: str) -> None:
    """Open the map and move it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        seconds = []
        for _ in range(OPENED + 1):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page = context.new_page()
            page.goto(address, wait_until="commit")
            seconds.append(page.evaluate(FIRST_DRAW) / 1000)
            context.close()
        rest = ", ".join(f"{one:.2f}" for one in seconds[1:])
        print(f"opened: {seconds[0]:.2f} s at first, then {rest} s (median {median(seconds[1:]):.2f})")
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto("about:blank")
        print_frames("an empty page, dragged", page, drag)
        page.goto(address)
        page.evaluate(FIRST_DRAW)
        print_frames("all photos, dragged", page, drag)
        print_frames("zoomed by the wheel", page, zoom)
        page.wait_for_timeout(3000)
        print(page.locator("#map-status").inner_text())
        print_frames("thumbnails, dragged", page, drag)
        browser.close()


def drag(page: Page) -> None:
    """Drag the map to and fro."""
    page.mouse.move(450, 450)
    page.mouse.down()
    for left, top in ((650, 380), (300, 520), (450, 450)):
        page.mouse.move(left, top, steps=MOVES // 3)
    page.mouse.up()


def zoom(page: Page) -> None:
    """Turn the wheel until single photos are visible."""
    page.mouse.move(450, 450)
    for _ in range(60):
        page.mouse.wheel(0, -36)
        page.wait_for_timeout(16)


def print_frames(what: str, page: Page, move: Callable[[Page], None]) -> None:
    """Print the intervals between frames during a movement in milliseconds."""
    page.evaluate(RECORD)
    move(page)
    gaps = np.diff(page.evaluate(RECORDED))
    long = np.count_nonzero(gaps > DROPPED)
    times = f"median {np.median(gaps):.1f} ms, p95 {np.percentile(gaps, 95):.1f}, longest {gaps.max():.1f}"
    print(f"{what}: {len(gaps)} frames, {times}; {long} longer than {DROPPED:.0f} ms")


if __name__ == "__main__":
    main(sys.argv[1])
