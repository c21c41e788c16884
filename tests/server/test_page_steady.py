"""What stays on the page in Chromium: the layout while it is used, the box in the URL, the position in the history."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect

from dolglab.library.contents import Photo
from dolglab.library.library import Library
from server.chromium import NEEDS_CHROMIUM, OpenLibrary
from server.chromium import browser as browser
from server.chromium import visit_library as visit_library

pytestmark = NEEDS_CHROMIUM


def status(page: Page, words: str) -> None:
    expect(page.locator("#status")).to_contain_text(words)


def cosines(page: Page) -> list[str]:
    return page.locator("#results .score b").all_inner_texts()


def draw_by_keyboard(page: Page) -> None:
    page.get_by_role("application").press("ArrowRight")
    page.keyboard.press("Enter")
    status(page, "11 answers for this part of the photo")


def top_of(locator: Locator) -> float:
    return locator.evaluate("one => one.getBoundingClientRect().top")


def stands(locator: Locator, top: float) -> None:
    """Waits until an element is that far from the top of the viewport."""
    locator.page.wait_for_function(
        "([one, top]) => Math.abs(one.getBoundingClientRect().top - top) < 2", arg=[locator.element_handle(), top]
    )


def add_photos(library: Path, count: int) -> None:
    own = Library(library)
    photos = [Photo(f"/nowhere/{number:03d}.jpg", 1, 1, (96, 112)) for number in range(count)]
    own.add(photos, own.descriptors(own.keys()[:1]).repeat(count, 0))
    own.close()


def test_the_first_click_after_the_keyboard_counts(visit_library: OpenLibrary) -> None:
    page = visit_library("#photos?like=6")
    status(page, "11 answers")
    summary = page.get_by_text("Coordinates of the box")
    expect(page.get_by_role("application")).to_be_visible()
    expect(page.locator("#draw")).to_be_visible()
    before = top_of(summary)
    draw_by_keyboard(page)
    expect(page.locator("#keys")).to_be_visible()
    assert top_of(summary) == before
    for click in (summary, page.get_by_label("Geometric verification")):
        page.get_by_role("application").press("ArrowRight")
        edges = click.bounding_box()
        assert edges
        page.mouse.click(edges["x"] + edges["width"] / 2, edges["y"] + edges["height"] / 2)
    expect(page.locator("#preview details")).to_have_attribute("open", "")
    expect(page.get_by_label("Geometric verification")).to_be_checked()
    expect(page.locator("#keys")).to_be_hidden()


def test_the_panel_does_not_move_when_the_picture_arrives(visit_library: OpenLibrary) -> None:
    page = visit_library()
    status(page, "12 photos")
    held: list[Route] = []
    page.route("**/image", lambda route: held.append(route))
    page.locator("#library .shot").nth(5).click()
    status(page, "11 answers")
    before = top_of(page.locator("#verify"))
    expect(page.get_by_role("application")).to_be_hidden()
    held[0].continue_()
    expect(page.get_by_role("application")).to_be_visible()
    assert top_of(page.locator("#verify")) == before


def test_a_box_is_part_of_the_url(visit_library: OpenLibrary) -> None:
    page = visit_library("#photos?like=6")
    status(page, "11 answers, most similar first")
    whole, entries = cosines(page), page.evaluate("history.length")
    draw_by_keyboard(page)
    part = cosines(page)
    assert part != whole
    expect(page).to_have_url(re.compile(r"#photos\?like=6&box=28,24,84,72$"))
    assert page.evaluate("history.length") == entries
    page.reload()
    status(page, "11 answers for this part of the photo")
    assert cosines(page) == part
    expect(page.locator("#part")).to_have_text("Box from 28, 24 to 84, 72")
    expect(page.locator("#box")).to_be_visible()

    # The box stays with the query: filters keep it, another query has none, and the way back brings it.
    page.get_by_label("year").select_option("1901")
    status(page, "answers for this part of the photo")
    expect(page).to_have_url(re.compile(r"year%3D1901&like=6&box=28,24,84,72$"))
    page.locator("#results .more").first.click()
    expect(page).to_have_url(re.compile(r"year%3D1901&like=\d+$"))
    expect(page.locator("#box")).to_be_hidden()
    for _ in range(2):
        page.go_back()
    status(page, "11 answers for this part of the photo")
    assert cosines(page) == part
    page.get_by_text("Coordinates of the box").click()
    page.get_by_role("button", name="Search the whole photo").click()
    status(page, "11 answers, most similar first")
    assert cosines(page) == whole
    expect(page).to_have_url(re.compile(r"#photos\?like=6$"))


def test_the_box_of_a_file_comes_back(visit_library: OpenLibrary, photos: Path) -> None:
    page = visit_library()
    status(page, "12 photos")
    page.locator("#file").set_input_files(photos / "landmark 1" / "09.jpg")
    status(page, "12 answers, most similar first")
    page.get_by_role("application").press("ArrowRight")
    page.keyboard.press("Enter")
    status(page, "12 answers for this part of the photo")
    part = cosines(page)
    page.locator("#results .more").first.click()
    status(page, "11 answers, most similar first")
    page.go_back()
    status(page, "12 answers for this part of the photo")
    assert cosines(page) == part


@pytest.mark.parametrize("box", ["0,0,113,96", "20,20,20,40", "-1,0,20,20", "0,0,20", "a,b,c,d", "1e9,0,2,2"])
def test_an_invalid_box_is_dropped(visit_library: OpenLibrary, box: str) -> None:
    page = visit_library(f"#photos?like=6&box={box}")
    status(page, "11 answers, most similar first")
    expect(page).to_have_url(re.compile(r"#photos\?like=6$"))
    expect(page.locator("#part")).to_have_text("The whole photo")


def test_a_box_of_the_url_needs_no_picture(visit_library: OpenLibrary) -> None:
    page = visit_library()
    page.route("**/image", lambda route: route.abort())
    page.goto(f"{page.url}#photos?like=6&box=28%2C24%2C84%2C72")
    status(page, "11 answers for this part of the photo")
    page.get_by_label("Geometric verification").check()
    expect(page.locator("#results .score small").first).to_have_text(re.compile(r"\d+ inliers"))
    status(page, "11 answers for this part of the photo")


def test_a_box_is_in_pixels_of_the_embedded_photo(visit_library: OpenLibrary, photos: Path, tmp_path: Path) -> None:
    """Here at most 128 pixels on its longer side; the picture on the page has at most 1600."""
    large = tmp_path / "large.jpg"
    Image.open(photos / "landmark 4" / "00.jpg").resize((2000, 1500)).save(large)
    page = visit_library()
    status(page, "12 photos")
    page.get_by_label("Add photos").set_input_files([large])
    status(page, "13 photos")
    page.get_by_role("button", name="More like this: added-photos/large.jpg").click()
    status(page, "12 answers")
    page.get_by_role("application").press("ArrowRight")
    page.keyboard.press("Enter")
    status(page, "12 answers for this part of the photo")
    expect(page).to_have_url(re.compile("box=32,24,96,72$"))
    page.locator("#results .shot").first.click()
    query = page.locator("#body .pair img").first
    query.evaluate("image => image.decode()")
    # The crop of the picture of 1600 x 1200 pixels.
    assert query.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [800, 600]


@pytest.mark.parametrize("width", [1280, 390])
def test_the_way_back_leads_to_the_same_photos(own: Path, visit_library: OpenLibrary, width: int) -> None:
    add_photos(own, 120)
    page = visit_library(viewport={"width": width, "height": 800})
    status(page, "Photos 1 to 60 of 132")
    card = page.locator("#library .card").nth(44)
    card.scroll_into_view_if_needed()
    card.get_by_role("button", name="More like this").scroll_into_view_if_needed()
    page.wait_for_function("() => history.state.place > 40")
    left = top_of(card)
    card.get_by_role("button", name="More like this").click()
    status(page, "24 answers")
    page.locator("#results .card").nth(10).scroll_into_view_if_needed()
    page.wait_for_function("() => history.state.place > 4")
    answer = top_of(page.locator("#results .card").nth(10))
    page.go_back()
    status(page, "Photos 1 to 60 of 132")
    stands(card, left)
    page.go_forward()
    status(page, "24 answers")
    stands(page.locator("#results .card").nth(10), answer)
    page.go_back()
    stands(card, left)
    page.reload()
    stands(card, left)
    page.get_by_role("link", name="Next").click()
    status(page, "Photos 61 to 120")
    expect(page.locator("#library .card").first).to_be_in_viewport()
