"""Screenshots of the search page: python experiments/search_page/shoot.py LIBRARY QUERIES FOLDER"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

QUERY = "106684d78bff7285.jpg"
Scheme = Literal["light", "dark"]
SHOTS: dict[str, tuple[int, int, Scheme]] = {"desktop": (1280, 900, "light"), "phone": (390, 844, "dark")}


def main(library: str, queries: str, folder: str) -> None:
    """Serve a library and take the screenshots."""
    command = [sys.executable, "-u", "-m", "src.serve", "--library", library, "--port", "0", "--read-only"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            shoot(server.stdout.readline().strip(), Path(queries, QUERY), Path(folder))
        finally:
            server.terminate()


def shoot(address: str, query: Path, folder: Path) -> None:
    """Take a screenshot of each kind."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, (width, height, scheme) in SHOTS.items():
            size: ViewportSize = {"width": width, "height": height}
            # Without smooth scrolling the page is in place immediately.
            context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
            page = context.new_page()
            page.goto(address)
            page.locator("#library .card").first.wait_for()
            if name == "desktop":
                wait_for_pictures(page)
                save(page.screenshot(), folder / "library.png")
            search(page, query)
            if name == "phone":
                page.mouse.wheel(0, 640)
                page.wait_for_timeout(500)
                wait_for_pictures(page)
            save(page.screenshot(), folder / f"{name}.png")
        browser.close()


def search(page: Page, query: Path) -> None:
    """Search for the middle part of a photo, and mark three answers."""
    page.locator("#file").set_input_files(query)
    page.locator("#status:has-text('most similar')").wait_for()
    # On a phone the page has scrolled to the answers.
    page.locator("#photo").scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    edges = page.locator("#photo").bounding_box()
    assert edges
    points = [
        (edges["x"] + edges["width"] * x, edges["y"] + edges["height"] * y) for x, y in ((0.15, 0.04), (0.98, 0.95))
    ]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=4)
    page.mouse.up()
    page.locator("#status:has-text('this part')").wait_for()
    for place, mark in ((1, "right"), (2, "right"), (5, "wrong")):
        page.locator(f".toggles .{mark}").nth(place).click()
        page.locator("#status:not(.busy)").wait_for()
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    wait_for_pictures(page)


def wait_for_pictures(page: Page) -> None:
    """Wait for the pictures in the viewport; others are loaded lazily."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('.results img')]"
        ".filter((one) => one.getBoundingClientRect().top < innerHeight)"
        ".every((one) => one.complete && one.naturalWidth)"
    )


def save(picture: bytes, path: Path) -> None:
    """Write a small PNG, with few colours."""
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
