"""Searching on the page in Chromium: by mouse, by keyboard, on a phone."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from server.chromium import NEEDS_CHROMIUM, Visit, served, visits
from server.chromium import browser as browser

TOKEN = "open sesame"
pytestmark = NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def address(embedded: Path) -> Iterator[str]:
    """A server of the library under a path prefix, which no link on the page may leave."""
    options = ["--rate", "10000", "--read-only", "--root-path", "/photos"]
    with served(embedded, *options, DOLG_TOKEN=TOKEN) as root:
        yield f"{root}photos/"


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """Opens the page; fails on faults, see `watch`."""

    def visited(**options: object) -> Page:
        page = opened(address, script=f"sessionStorage.setItem('token', '{TOKEN}')", **options)
        ready(page)
        return page

    with visits(browser) as opened:
        yield visited


@pytest.fixture(scope="session")
def photo(photos: Path) -> Path:
    return photos / "landmark 1" / "09.jpg"


def ready(page: Page) -> None:
    """Waits until the page has loaded the library and its first view."""
    expect(page.locator("#about")).to_contain_text("photos")
    expect(page.locator("#file")).to_be_enabled()


def names(page: Page) -> list[str]:
    return page.locator("#results .file").all_inner_texts()


def searched(page: Page, words: str) -> None:
    expect(page.locator("#status")).to_contain_text(words)


def test_a_photo_a_box_marks_and_an_export(visit: Visit, photo: Path, tmp_path: Path) -> None:
    page = visit()
    expect(page.get_by_role("button", name="Search", exact=True)).to_be_hidden()
    page.get_by_label("Choose a photo").set_input_files(photo)
    searched(page, "12 answers, most similar first")
    whole = page.locator("#results .score b").all_inner_texts()
    expect(page.locator("#results img").first).to_have_attribute("src", re.compile("^blob:"))
    assert page.evaluate("document.querySelector('#results img').decode().then(() => true)")

    edges = page.locator("#photo").bounding_box()
    assert edges
    page.mouse.move(edges["x"] + edges["width"] * 0.25, edges["y"] + edges["height"] * 0.25)
    page.mouse.down()
    page.mouse.move(edges["x"] + edges["width"] * 0.5, edges["y"] + edges["height"] * 0.5)
    page.mouse.move(edges["x"] + edges["width"] * 0.75, edges["y"] + edges["height"] * 0.75)
    page.mouse.up()
    searched(page, "12 answers for this part of the photo")
    # A quarter and three quarters of 112 x 96.
    assert [page.locator(f"[name={side}]").input_value() for side in ("x1", "y1", "x2", "y2")] == [
        "28",
        "24",
        "84",
        "72",
    ]
    assert page.locator("#results .score b").all_inner_texts() != whole

    before = names(page)
    page.get_by_role("button", name=f"right: {before[4]}").click()
    searched(page, "Re-ranked by 1 mark")
    assert names(page)[0] == before[4]
    page.get_by_role("button", name=f"wrong: {before[0]}").click()
    searched(page, "Re-ranked by 2 marks")
    assert names(page)[-1] == before[0]
    expect(page.get_by_role("button", name=f"wrong: {before[0]}")).to_have_attribute("aria-pressed", "true")

    page.get_by_role("button", name="Download as a training folder").click()
    expect(page.get_by_role("alert")).to_have_text("Enter what the photos show. It becomes the name of the folder.")
    page.get_by_label("What the photos show").fill("old/town")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as a training folder").click()
    searched(page, "Downloaded old_town.zip. To train, unpack several into one folder")
    assert download.value.suggested_filename == "old_town.zip"
    download.value.save_as(tmp_path / "marks.zip")
    with zipfile.ZipFile(tmp_path / "marks.zip") as packed:
        assert sorted(packed.namelist()) == sorted(
            {"old_town.csv", "old_town/09.jpg", f"old_town/{before[4].split('/')[1]}"}
        )
    page.get_by_role("button", name="Clear marks").click()
    searched(page, "original order")
    assert names(page) == before


def test_an_answer_is_opened(visit: Visit, photo: Path) -> None:
    page = visit()
    page.locator("#file").set_input_files(photo)
    searched(page, "12 answers")
    first, second = names(page)[:2]
    page.get_by_role("button", name=f"1: {first}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name=first)).to_be_visible()
    expect(dialog.get_by_text("are inliers of one transformation")).to_be_visible()
    expect(dialog.locator("img")).to_have_count(5)
    assert page.evaluate(
        "Promise.all([...document.querySelectorAll('#body img')].map((i) => i.decode())).then(() => 1)"
    )
    expect(dialog.locator("dt", has_text="year")).to_be_visible()
    dialog.get_by_role("button", name="Next").click()
    expect(dialog.get_by_role("heading", name=second)).to_be_visible()
    expect(dialog.get_by_text("are inliers of one transformation")).to_be_visible()
    dialog.get_by_role("button", name="More like this").click()
    expect(dialog).to_be_hidden()
    searched(page, "11 answers")
    assert second not in names(page)


def test_filters_and_details(visit: Visit, photo: Path) -> None:
    page = visit()
    page.locator("#file").set_input_files(photo)
    searched(page, "12 answers")
    page.get_by_label("year").select_option("1901")
    searched(page, "6 answers")
    page.get_by_label("Geometric verification").check()
    inliers = page.locator("#results .score small")
    expect(inliers.first).to_have_text(re.compile(r"\d+ inliers"))
    told = dict(zip(names(page), inliers.all_inner_texts(), strict=True))
    page.get_by_role("button", name=f"right: {names(page)[2]}").click()
    searched(page, "Re-ranked by 1 mark, without geometric verification")
    assert dict(zip(names(page), inliers.all_inner_texts(), strict=True)) == told
    expect(page.locator("#results .badge").first).to_have_text("right")
    assert page.locator("#results .rank").all_inner_texts() == ["1", "2", "3", "4", "5", "6"]


def test_a_tall_photo_is_seen_whole_and_can_be_searched_for(visit: Visit, photo: Path, tmp_path: Path) -> None:
    tall = tmp_path / "tall.png"
    Image.open(photo).resize((300, 900)).save(tall)
    page = visit(viewport={"width": 1280, "height": 720})
    page.locator("#file").set_input_files(tall)
    searched(page, "12 answers")
    expect(page.get_by_role("button", name="Search", exact=True)).to_be_in_viewport(ratio=1)
    expect(page.locator("#photo")).to_be_in_viewport(ratio=1)


def test_what_is_no_photo_is_said(visit: Visit, photo: Path, tmp_path: Path) -> None:
    page = visit()
    text = tmp_path / "<b>text 'é🙂=.jpg"
    text.write_text("just text")
    page.locator("#file").set_input_files(text)
    expect(page.get_by_role("alert")).to_have_text(
        f"Cannot search for {text.name}: not an image in a supported format: send a JPEG, PNG, WebP, AVIF, "
        "JPEG 2000, TIFF, GIF or BMP file. Choose another photo."
    )
    expect(page.get_by_role("button", name="Search", exact=True)).to_be_disabled()
    expect(page.locator("#preview")).to_be_hidden()
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(20_000_001))
    page.locator("#file").set_input_files(large)
    expect(page.get_by_role("alert")).to_have_text("large.jpg has 20.0 MB; the limit is 20 MB. Choose a smaller photo.")
    page.locator("#file").set_input_files(photo)
    searched(page, "12 answers")
    expect(page.locator("#error")).to_be_hidden()
    expect(page.get_by_role("button", name="Search", exact=True)).to_be_enabled()


def test_the_keyboard_alone(visit: Visit, photo: Path) -> None:
    page = visit()
    # Intercept file choosers before any key is pressed: Playwright enables this asynchronously.
    page.on("filechooser", lambda chooser: None)
    page.reload()
    ready(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the photos")).to_be_focused()
    for view in ("Photos", "Duplicates", "Map"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name=view, exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(photo)
    searched(page, "12 answers")
    page.keyboard.press("Tab")
    expect(page.get_by_role("application")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#part")).to_have_text("Box from 28, 24 to 84, 72")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    expect(page.locator("#part")).to_have_text("Box from 30, 24 to 86, 70")
    page.keyboard.press("Enter")
    searched(page, "answers for this part")
    page.keyboard.press("Escape")
    expect(page.locator("#part")).to_have_text("The whole photo")
    third = names(page)[2]
    page.get_by_role("button", name=f"3: {third}").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    searched(page, "Re-ranked by 1 mark")
    # The card moved and kept the focus.
    expect(page.get_by_role("button", name=f"right: {third}")).to_be_focused()
    assert names(page)[0] == third
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name=f"1: {third}")).to_be_focused()


def test_dropped_and_pasted_photos(visit: Visit, photo: Path) -> None:
    page = visit()
    give = """([kind, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], 'given.jpg', { type: 'image/jpeg' }));
        document.dispatchEvent(kind === 'drop' ? new DragEvent('drop', { dataTransfer: data, cancelable: true })
            : new ClipboardEvent('paste', { clipboardData: data }));
    }"""
    for kind in ("drop", "paste"):
        page.reload()
        ready(page)
        page.evaluate(give, [kind, list(photo.read_bytes())])
        searched(page, "12 answers")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(visit: Visit, photo: Path, scheme: str) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "color_scheme": scheme}
    page = visit(**phone)
    page.locator("#file").set_input_files(photo)
    searched(page, "12 answers")
    expect(page.locator(".shot").first).to_be_in_viewport(ratio=0.5)
    page.locator(".toggles .right").first.tap()
    searched(page, "Re-ranked by 1 mark")
    fits = "document.documentElement.scrollWidth <= 390"
    assert page.evaluate(fits)
    small = """[...document.querySelectorAll('button, select, summary, label.button, #query input, #marks input')]
        .filter((e) => e.checkVisibility() && !e.classList.contains('hidden') && e.type !== 'checkbox')
        .filter((e) => e.getBoundingClientRect().height < 44).map((e) => e.outerHTML)"""
    assert page.evaluate(small) == []
    page.locator(".shot").first.tap()
    expect(page.get_by_text("are inliers of one transformation")).to_be_visible()
    assert page.evaluate("document.querySelector('#detail').scrollWidth <= 390")
    assert page.evaluate(fits)


def test_the_token_is_asked_for(browser: Browser, address: str, photo: Path) -> None:
    page = browser.new_page()
    page.goto(address)
    for token in ("wrong", TOKEN):
        page.get_by_role("textbox", name="Token").fill(token)
        page.keyboard.press("Enter")
        if token == "wrong":
            expect(page.get_by_role("alert")).to_have_text("Wrong token.")
    ready(page)
    expect(page.locator("#about")).to_contain_text("12 photos")
    page.locator("#file").set_input_files(photo)
    searched(page, "12 answers")
    page.close()


def test_views_have_addresses(visit: Visit) -> None:
    page = visit()
    current = page.locator("nav [aria-current=page]")
    expect(current).to_have_text("Photos")
    for name in ("Duplicates", "Map"):
        page.get_by_role("link", name=name).click()
        expect(current).to_have_text(name)
        expect(page.locator(".view:visible")).to_have_id(name.lower())
    page.go_back()
    expect(current).to_have_text("Duplicates")
    page.go_forward()
    expect(page.locator(".view:visible")).to_have_id("map")
    page.reload()
    expect(current).to_have_text("Map")
