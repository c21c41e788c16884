"""Duplicates, dates and places on the page, in a real Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from dolglab.library.ingest import embed_places
from exif_bytes import LATITUDE, LATITUDE_REF, LONGITUDE, LONGITUDE_REF, TAKEN, exif_bytes, in_jpeg
from server.chromium import NEEDS_CHROMIUM, PATIENCE, served, watch
from server.chromium import browser as browser

pytestmark = NEEDS_CHROMIUM

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def folder(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos of each of two landmarks, taken in two years at two places, and copies of two."""
    root = tmp_path_factory.mktemp("overviews") / "photos"
    for landmark in range(2):
        for number in range(6):
            path = root / f"landmark {landmark}" / f"{number:02}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            gps = {
                LATITUDE_REF: "N",
                LATITUDE: [(43 + landmark, 1), (number, 1), (0, 1)],
                LONGITUDE_REF: "E",
                LONGITUDE: [(5, 1), (number, 1), (0, 1)],
            }
            exif = exif_bytes({TAKEN: f"{2018 + landmark}:0{number + 1}:01 12:00:00"}, gps)
            path.write_bytes(in_jpeg((photos / f"landmark {landmark}" / path.name).read_bytes(), exif))
    (root / "copies").mkdir()
    for number in range(2):
        shutil.copy(root / "landmark 0" / f"{number:02}.jpg", root / "copies" / f"copy {number}.jpg")
    return root


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """A server of a library of these photos."""
    library = folder.parent / "library"
    embed_places([str(folder)], str(library), model="efficientnet_lite0", max_side=128)
    with served(library, "--rate", "10000") as root:
        yield root


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Open]:
    """Opens a view; fails on faults, see `watch`, and if the page scrolls sideways."""
    faults: list[str] = []
    pages: list[Page] = []

    def visited(view: str, **options: object) -> Page:
        page = browser.new_page(**({"viewport": {"width": 1280, "height": 900}} | options))
        page.set_default_timeout(PATIENCE)
        watch(page, faults, address)
        pages.append(page)
        page.goto(f"{address}#{view}")
        return page

    expect.set_options(timeout=PATIENCE)
    yield visited
    for page in pages:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.close()
    assert faults == []


def downloaded(page: Page, button: str) -> list[str]:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return Path(download.value.path()).read_text().splitlines()


def test_groups_are_shown_chosen_from_and_listed(visit: Open, folder: Path) -> None:
    page = visit("duplicates?least=0.99")
    expect(page.locator("#compared")).to_contain_text("out of 14 photos")
    first = page.locator(".cluster").first
    expect(first.locator(".card")).to_have_count(2)
    expect(first).to_contain_text("identical file")
    expect(first).to_contain_text(re.compile(r"\d+ \S \d+"))
    expect(page.locator(".cluster img").first).to_have_attribute("src", re.compile("^blob:"))
    assert page.evaluate("document.querySelector('.cluster img').decode().then(() => true)")
    kept = first.get_by_role("checkbox", checked=True)
    expect(kept).to_have_count(1)
    paths = downloaded(page, "Download paths (text)")
    assert all(Path(path).is_file() for path in paths)
    assert len(paths) >= 2

    # At least one photo is kept.
    kept.click()
    expect(page.locator("#compared")).to_contain_text("Tick another one first")
    expect(first.get_by_role("checkbox", checked=True)).to_have_count(1)
    # Another one is kept instead, also after a reload.
    ends = tuple(f"/{name}" for name in first.locator(".file").all_inner_texts())
    named = {path for path in paths if path.endswith(ends)}
    first.get_by_role("checkbox", checked=False).click()
    first.get_by_role("checkbox").first.click()
    page.reload()
    expect(page.locator(".cluster").first.get_by_role("checkbox").first).not_to_be_checked()
    other = set(downloaded(page, "Download paths (text)"))
    assert len(other) == len(paths)
    assert named
    assert not named & other
    page.get_by_role("button", name="Undo 2 choices").click()
    expect(page.locator(".cluster").first.get_by_role("checkbox").first).to_be_checked()
    rows = downloaded(page, "Download table (CSV)")
    assert rows[0] == "cluster,photo,bytes"
    assert len(rows) == len(paths) + 1

    page.get_by_label("Minimum cosine similarity").select_option("0.90")
    expect(page).to_have_url(re.compile("least=0.90"))
    page.go_back()
    expect(page.get_by_label("Minimum cosine similarity")).to_have_value("0.99")


def test_invalid_parameters_of_the_address_have_defaults(visit: Open) -> None:
    page = visit("duplicates?least=x&page=y")
    expect(page.locator("#compared")).to_contain_text("out of 14 photos")
    expect(page.get_by_label("Minimum cosine similarity")).to_have_value("0.98")


def test_a_photo_of_a_group_can_be_opened_and_searched_for(visit: Open) -> None:
    page = visit("duplicates?least=0.99")
    name = page.locator(".cluster .file").first.inner_text()
    page.get_by_role("button", name=f"More like this: {name}").click()
    expect(page).to_have_url(re.compile("#photos.*like="))
    expect(page.locator("#results .card").first).to_be_visible()


def test_photos_of_a_period_are_shown(visit: Open) -> None:
    page = visit("photos")
    page.get_by_label("taken from").fill("2019-02")
    page.keyboard.press("Tab")
    expect(page).to_have_url(re.compile("2019-02"))
    page.get_by_label("taken to").fill("2019-04")
    page.keyboard.press("Tab")
    expect(page.locator("#status")).to_contain_text("3 photos")
    page.go_back()
    page.go_back()
    expect(page.locator("#status")).to_contain_text("14 photos")
    expect(page.get_by_label("taken from")).to_have_value("")


def test_a_box_on_the_map_selects_photos(visit: Open) -> None:
    page = visit("photos")
    page.get_by_role("link", name="Places").click()
    expect(page.locator("#places-said")).to_contain_text("14 photos")
    edges = page.locator("#places-map").bounding_box()
    assert edges
    # The northern half contains the second landmark.
    page.mouse.move(edges["x"] + 12, edges["y"] + 12)
    page.mouse.down()
    page.mouse.move(edges["x"] + edges["width"] - 12, edges["y"] + edges["height"] / 2)
    page.mouse.up()
    expect(page.locator("#places-said")).to_contain_text("6 of 14")
    expect(page.locator("#places-photos .file").first).to_contain_text("landmark 1/")
    page.get_by_role("button", name="Search within selection").click()
    expect(page.locator("#status")).to_contain_text("6 photos")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_keyboard_selects_on_a_phone(visit: Open, scheme: str) -> None:
    page = visit("places", viewport={"width": 390, "height": 844}, color_scheme=scheme)
    expect(page.locator("#places-said")).to_contain_text("14 photos")
    page.locator("#places-map").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#places-said")).to_contain_text("14 of 14")
    page.keyboard.press("Escape")
    expect(page.locator("#places-photos .card")).to_have_count(0)
    for _ in range(4):
        page.keyboard.press("+")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    # There are no photos between the two places.
    expect(page.locator("#places-said")).to_contain_text("0 of 14")
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    expect(page.locator("#places-said")).to_contain_text("14 of 14")


def test_fingers_zoom_move_and_select(visit: Open) -> None:
    page = visit("places", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    said = page.locator("#places-said")
    expect(said).to_contain_text("14 photos")
    touch = page.context.new_cdp_session(page)

    def send(kind: str, *fingers: tuple[float, float]) -> None:
        """Pixels from the centre of the map."""
        edges = page.locator("#places-map").bounding_box()
        assert edges
        left, top = edges["x"] + edges["width"] / 2, edges["y"] + edges["height"] / 2
        points = [{"x": left + x, "y": top + y, "id": place} for place, (x, y) in enumerate(fingers)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", (-15, 0), (15, 0))
    for step in range(15, 150, 15):
        send("touchMove", (-step, 0), (step, 0))
    # The finger that stays draws no box.
    send("touchEnd", (-140, 0))
    send("touchMove", (100, 100))
    send("touchEnd")
    expect(said).to_have_text("14 photos with a location.")
    # There are no photos between the two places.
    page.locator("#places-map").press("Enter")
    expect(said).to_contain_text("0 of 14")

    page.get_by_role("button", name="All places").tap()
    # A finger draws a box, and two move the map: its northern half goes out of view.
    half = page.locator("#places-map").evaluate("map => map.clientHeight / 2 - 12")
    send("touchStart", (-170, -half))
    for step in range(0, 171, 10):
        send("touchMove", (-170 + 2 * step, -half + step * half / 170))
    send("touchEnd")
    expect(said).to_contain_text("6 of 14")
    page.get_by_role("button", name="Clear selection").tap()
    send("touchStart", (-15, 0), (15, 0))
    for step in range(0, int(half), 20):
        send("touchMove", (-15, -step), (15, -step))
    send("touchEnd")
    page.locator("#places-map").press("Enter")
    expect(said).to_contain_text("8 of 14")


def test_a_selected_photo_opens(visit: Open) -> None:
    page = visit("places")
    expect(page.locator("#places-said")).to_contain_text("14 photos")
    page.locator("#places-map").press("Enter")
    page.locator("#places-photos .shot").first.click()
    expect(page.locator("#title")).to_contain_text(".jpg")
