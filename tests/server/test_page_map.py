"""The view "Map" in Chromium: by mouse, wheel, touch and keyboard, and as a list."""

from __future__ import annotations

import copy
import dataclasses
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

from dolglab.library.library import Library
from dolglab.library.map_making import make_map
from dolglab.library.search_engine import SearchEngine
from dolglab.server.app import build_app
from dolglab.server.isolation import IsolatedExecutor
from dolglab.server.security import Settings
from server.chromium import NEEDS_CHROMIUM, Visit, visits
from server.chromium import browser as browser
from server.conftest import OFTEN

pytestmark = NEEDS_CHROMIUM

# The id and position of each photo in the view as it opens.
PLACES = """async () => {
  const { points } = await import("./page/map_points.js");
  const { Camera } = await import("./page/map_camera.js");
  const map = points(await (await fetch("api/map")).json());
  const camera = new Camera();
  const { left, top, width, height } = document.getElementById("map-view").getBoundingClientRect();
  camera.resize(width, height);
  return [...map.ids].map((id, at) => {
    const [x, y] = camera.onScreen(map.x[at], map.y[at]);
    return [id, left + x, top + y];
  });
}"""
# The number of pixels of the canvas of each of some colours.
PIXELS = """(colours) => {
  const canvas = document.getElementById("map-canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const counts = colours.map(() => 0);
  for (let at = 0; at < data.length; at += 4) {
    const place = colours.indexOf(`rgb(${data[at]}, ${data[at + 1]}, ${data[at + 2]})`);
    if (place >= 0) counts[place]++;
  }
  return counts;
}"""
SWATCHES = "[...document.querySelectorAll('#map-legend .swatch')].map((one) => getComputedStyle(one).backgroundColor)"
# Differences between a canvas that is moved in steps and one that is drawn from scratch.
MOVED = """async () => {
  const { PointCanvas } = await import("./page/map_points.js");
  const { Camera } = await import("./page/map_camera.js");
  const count = 3000;
  const spread = (by) => Float64Array.from({ length: count }, (_, at) => (at * by) % 1);
  const codes = Uint8Array.from({ length: count }, (_, at) => at % 4);
  const points = { count, x: spread(0.618034), y: spread(0.754878), codes };
  const colours = [[200, 0, 0], [0, 150, 0], [0, 0, 250], [90, 90, 90]];
  const look = { ratio: 1.5, radius: 2.3, colours, paper: [255, 255, 250], behind: [false, false, false, true] };
  const moves = [[0, 0], [7, 0], [0, -5], [-31, 12], [3.3, -2.7], [0.2, 0.2], [-90, 60], [200, 10], [1, 1]];
  const camera = new Camera();
  camera.resize(161, 97);
  camera.zoomAt(3);
  const moved = new PointCanvas(document.createElement("canvas"));
  const differences = [];
  for (const [right, down] of moves) {
    camera.pan(right, down);
    const seen = [...moved.draw(points, camera, look)].sort();
    const fresh = new PointCanvas(document.createElement("canvas"));
    const wanted = [...fresh.draw(points, camera, look)].sort();
    const pixels = (of) => of.context.getImageData(0, 0, of.canvas.width, of.canvas.height).data;
    const theirs = pixels(fresh);
    const others = pixels(moved).filter((one, at) => one !== theirs[at]).length;
    differences.push(others + Number(String(seen) !== String(wanted)));
  }
  return differences;
}"""

Serve = Callable[[Path], str]


@pytest.fixture(scope="module")
def serve(finder: SearchEngine, decoder: IsolatedExecutor) -> Iterator[Serve]:
    """Serves a library; returns the address of the page."""
    started: list[tuple[uvicorn.Server, threading.Thread, Library]] = []

    def serve(folder: Path) -> str:
        own = copy.copy(finder)
        own.library = Library(folder)
        listener = socket.create_server(("127.0.0.1", 0))
        app = build_app(own, Settings(rate=OFTEN, read_only=True), decoder)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        started.append((server, thread, own.library))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield serve
    for server, thread, library in started:
        server.should_exit = True
        thread.join()
        library.close()


@pytest.fixture(scope="module")
def mapped(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with a map."""
    folder = shutil.copytree(embedded, tmp_path_factory.mktemp("mapped") / "library")
    make_map(Library(folder))
    return folder


@pytest.fixture(scope="module")
def address(serve: Serve, mapped: Path) -> str:
    return serve(mapped)


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """Opens the map; fails on faults, see `watch`."""
    with visits(browser) as visited:
        yield lambda where=address, **options: visited(where, "#map", **options)


def status(page: Page, words: str | re.Pattern[str]) -> None:
    expect(page.locator("#map-status")).to_contain_text(words)


def named(page: Page, address: str, number: int) -> str:
    return page.request.get(f"{address}api/photos/{number}").json()["name"]


def farthest(page: Page) -> tuple[int, float, float]:
    """The rightmost photo, which no other covers, and its position."""
    return max(page.evaluate(PLACES), key=lambda place: place[1])


def test_moved_pixels_equal_a_new_drawing(visit: Visit) -> None:
    page = visit()
    status(page, "12 of 12")
    assert page.evaluate(MOVED) == [0] * 9


def test_photos_have_the_colours_of_their_values(visit: Visit) -> None:
    page = visit()
    status(page, "12 of 12 photos in view.")
    expect(page.locator("#map-legend button")).to_have_text([re.compile(f"landmark {one}\\s*4") for one in range(3)])
    swatches = page.evaluate(SWATCHES)
    assert len(set(swatches)) == 3
    assert min(page.evaluate(PIXELS, swatches)) > 0
    second = page.locator("#map-legend button").nth(1)
    second.click()
    expect(second).to_have_attribute("aria-pressed", "true")
    page.wait_for_function(f"() => {{ const n = ({PIXELS})({swatches}); return !n[0] && n[1] && !n[2]; }}")
    second.click()
    page.wait_for_function(f"() => ({PIXELS})({swatches}).every((one) => one)")

    page.get_by_label("Colour by").select_option("year")
    expect(page.locator("#map-legend .value")).to_have_text(["1900", "1901"])
    assert page.url.endswith("#map?column=year")
    page.go_back()
    expect(page.locator("#map-legend .value")).to_have_text([f"landmark {one}" for one in range(3)])


def test_the_mouse_shows_opens_drags_and_zooms(visit: Visit, address: str) -> None:
    page = visit()
    status(page, "12 of 12")
    number, left, top = farthest(page)
    name = named(page, address, number)
    page.mouse.move(left, top)
    expect(page.locator("#map-tip")).to_contain_text(name)
    expect(page.locator("#map-picture")).to_be_visible()
    page.mouse.click(left, top)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name=name)).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()

    # A zoom by wheel keeps the point under the mouse in place.
    page.mouse.move(left, top)
    for _ in range(4):
        page.mouse.wheel(0, -300)
    status(page, re.compile("^[1-9] of 12"))
    page.mouse.move(left + 40, top + 40)
    page.mouse.move(left, top)
    expect(page.locator("#map-tip")).to_contain_text(name)

    page.mouse.down()
    page.mouse.move(left - 150, top + 60, steps=5)
    page.mouse.up()
    expect(dialog).to_be_hidden()
    page.mouse.move(left - 150, top + 61)
    expect(page.locator("#map-tip")).to_contain_text(name)
    page.get_by_role("button", name="Show all photos").click()
    status(page, "12 of 12")
    for _ in range(8):
        page.get_by_role("button", name="Zoom in").click()
    status(page, re.compile("^[0-9] of 12"))


def test_the_map_works_by_keyboard_alone(visit: Visit) -> None:
    page = visit()
    status(page, "12 of 12")
    page.get_by_role("application", name="Map of the photos").focus()
    for _ in range(4):
        page.keyboard.press("+")
    status(page, re.compile(r"^\d of 12"))
    page.keyboard.press("0")
    status(page, re.compile(r"12 of 12 photos in view. At the centre: landmark \d/\d\d.jpg"))
    before = page.locator("#map-status").inner_text()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#map-status")).not_to_have_text(before)
    status(page, "At the centre")
    name = page.locator("#map-status").inner_text().partition("centre: ")[2].removesuffix(".")
    expect(page.locator("#map-tip")).to_contain_text(name)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("heading", name=name)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("application", name="Map of the photos")).to_be_focused()


def test_the_photos_are_also_listed(visit: Visit) -> None:
    page = visit()
    status(page, "12 of 12")
    page.get_by_text("Photos near the centre").click()
    listed = page.locator("#map-photos button")
    expect(listed).to_have_count(12)
    first, second = listed.all_inner_texts()[:2]
    listed.first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name=first)).to_be_visible()
    dialog.get_by_role("button", name="Next").click()
    expect(dialog.get_by_role("heading", name=second)).to_be_visible()


def test_the_map_zooms_by_pinching_on_a_phone(visit: Visit) -> None:
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, color_scheme="dark")
    status(page, "12 of 12")
    assert page.evaluate("document.documentElement.scrollWidth <= 390")
    small = """[...document.querySelectorAll('#map button, #map select, #map summary')]
        .filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 44).map((e) => e.outerHTML)"""
    assert page.evaluate(small) == []
    box = page.locator("#map-view").bounding_box()
    assert box
    left, top = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)

    def send(kind: str, *apart: float) -> None:
        points = [{"x": left + one, "y": top, "id": place} for place, one in enumerate(apart)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", -15, 15)
    for step in range(15, 150, 15):
        send("touchMove", -step, step)
    send("touchEnd")
    status(page, re.compile(r"^\d of 12"))


def test_the_canvas_has_the_pixels_of_the_screen(visit: Visit) -> None:
    page = visit(device_scale_factor=2)
    status(page, "12 of 12")
    for size in ({"width": 1280, "height": 900}, {"width": 800, "height": 600}):
        page.set_viewport_size(size)
        page.wait_for_function("""() => {
            const { width, height } = document.getElementById("map-view").getBoundingClientRect();
            const canvas = document.getElementById("map-canvas");
            return canvas.width === Math.round(2 * width) && canvas.height === Math.round(2 * height);
        }""")


def test_a_stale_map_and_a_missing_map_are_reported(
    visit: Visit, serve: Serve, embedded: Path, mapped: Path, tmp_path: Path
) -> None:
    page = visit(serve(embedded))
    expect(page.get_by_text("This library has no map yet")).to_be_visible()
    expect(page.get_by_text("dolglab library map")).to_be_visible()
    expect(page.locator("#map-found")).to_be_hidden()

    older = shutil.copytree(mapped, tmp_path / "older")
    library = Library(older)
    library.remove([next(library.catalogue.names())])
    (photo, key), *_ = next(library.catalogue.pages())
    with library.change() as change:
        change.put([dataclasses.replace(photo, changed=photo.changed + 1)], [key])
    page = visit(serve(older))
    status(page, "10 of 10 photos in view.")
    expect(page.locator("#map-old")).to_have_text(
        "1 photo not on the map: added or changed since it was made. Run dolglab library map to update it."
    )
