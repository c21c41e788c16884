"""Screenshots of the map: PYTHONPATH=. python experiments/library_map/shoot.py LIBRARY FOLDER"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from experiments.search_page.shoot import SHOTS, save
from playwright.sync_api import Page, ViewportSize, sync_playwright

FAMILY = "test-006"


def main(library: str, folder: str) -> None:
    """Serve a library and take the screenshots."""
    command = [sys.executable, "-u", "-m", "src.serve", "--library", library, "--port", "0", "--read-only"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            shoot(f"{server.stdout.readline().strip()}#map?column=family", Path(folder))
        finally:
            server.terminate()


def shoot(address: str, folder: Path) -> None:
    """Take a screenshot on a computer, with the tooltip of a photo, and on a phone, with one family highlighted."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, (width, height, scheme) in SHOTS.items():
            size: ViewportSize = {"width": width, "height": height}
            page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
            page.goto(address)
            page.locator("#map-status:has-text('in view')").wait_for()
            (point if name == "desktop" else stand_out)(page)
            page.wait_for_timeout(3000)
            save(page.screenshot(), folder / f"{name}.png")
        browser.close()


def point(page: Page) -> None:
    """Zoom in a little, and point at a photo."""
    edges = page.locator("#map-view").bounding_box()
    assert edges
    left, top = edges["x"] + edges["width"] * 0.6, edges["y"] + edges["height"] * 0.5
    page.mouse.move(left, top)
    page.mouse.wheel(0, -500)
    page.wait_for_timeout(3000)
    page.mouse.move(left + 150, top - 150, steps=3)


def stand_out(page: Page) -> None:
    """Press a family in the legend, and scroll back to the map."""
    page.get_by_role("button", name=FAMILY).click()
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")


if __name__ == "__main__":
    main(*sys.argv[1:])
