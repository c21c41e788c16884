"""The view "Photos" in Chromium: browsing, searching by a photo of the library, adding and removing photos."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from dolglab.library.contents import Photo
from dolglab.library.library import Library
from dolglab.server.security import Settings
from exif_bytes import LATITUDE, LATITUDE_REF, LONGITUDE, LONGITUDE_REF, TAKEN, exif_bytes, in_jpeg
from server.chromium import NEEDS_CHROMIUM, OpenLibrary
from server.chromium import browser as browser
from server.chromium import visit_library as visit_library

pytestmark = NEEDS_CHROMIUM

DROP = """(files) => {
    const data = new DataTransfer();
    for (const [name, bytes] of files) data.items.add(new File([new Uint8Array(bytes)], name));
    document.dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true }));
}"""


def status(page: Page, words: str | re.Pattern[str]) -> None:
    expect(page.locator("#status")).to_contain_text(words)


def grid(page: Page) -> list[str]:
    return page.locator("#library .file").all_inner_texts()


def answers(page: Page) -> list[str]:
    return page.locator("#results .file").all_inner_texts()


def fill(library: Path, count: int, column: str = "number") -> None:
    """Add photos without files, each with its own value of a column."""
    own = Library(library)
    photos = [
        Photo(f"/nowhere/{number:03d}.jpg", 1, 1, (96, 112), metadata={column: f"value {number:05d}"})
        for number in range(count)
    ]
    own.add(photos, own.descriptors(own.keys()[:1]).repeat(count, 0))
    own.close()


def add_columns(library: Path, *columns: str) -> None:
    """Add columns of two values to the photos of a library."""
    own = Library(library)
    with own.catalogue.change() as change:
        for number, photo in enumerate(own.catalogue.page(0, 100, {})):
            change.set_metadata(photo.name, dict(photo.metadata) | dict.fromkeys(columns, f"value {number % 2}"))
    own.close()


def test_the_page_opens_with_photos_and_a_click_searches_for_similar_ones(visit_library: OpenLibrary) -> None:
    page = visit_library()
    status(page, "12 photos, sorted by path")
    names = grid(page)
    assert names == [f"landmark {landmark}/{photo:02d}.jpg" for landmark in range(3) for photo in range(4)]
    expect(page.locator("#library img").first).to_have_attribute("src", re.compile("^blob:"))
    page.locator("#library img").first.evaluate("image => image.decode()")
    page.locator("#library .shot").nth(5).click()
    status(page, "11 answers, most similar first")
    assert grid(page) == []
    assert names[5] not in answers(page)
    first = answers(page)[0]
    page.get_by_role("button", name=f"More like this: {first}").click()
    expect(page.locator("#results .file").first).not_to_have_text(first)
    assert first not in answers(page)
    page.go_back()
    expect(page.locator("#results .file").first).to_have_text(first)
    page.go_back()
    status(page, "12 photos, sorted by path")
    assert grid(page) == names
    page.go_forward()
    expect(page.locator("#results .file").first).to_have_text(first)


def test_a_photo_is_opened_from_the_grid(visit_library: OpenLibrary) -> None:
    page = visit_library()
    page.get_by_role("button", name="Open: landmark 1/01.jpg").click()
    dialog = page.locator("#detail")
    expect(dialog.get_by_role("heading", name="landmark 1/01.jpg")).to_be_visible()
    expect(dialog.locator("dd", has_text="1901")).to_be_visible()
    dialog.get_by_role("button", name="Next").click()
    expect(dialog.get_by_role("heading", name="landmark 1/02.jpg")).to_be_visible()
    dialog.get_by_role("button", name="More like this").click()
    status(page, "11 answers")
    page.locator("#results .shot").first.click()
    expect(dialog.get_by_text("are inliers of one transformation")).to_be_visible()


def test_folders_and_values_stay_while_photos_are_searched_for(visit_library: OpenLibrary) -> None:
    page = visit_library()
    page.get_by_label("Folder").select_option("landmark 1")
    status(page, "4 photos, sorted by path")
    page.get_by_label("year").select_option("1901")
    status(page, "2 photos, sorted by path")
    page.locator("#library .shot").first.click()
    status(page, "1 answer, most similar first")
    page.get_by_label("Folder").select_option("any")
    status(page, "5 answers")
    page.reload()
    status(page, "5 answers")
    expect(page.get_by_label("year")).to_have_value("1901")
    page.get_by_role("link", name="Photos", exact=True).click()
    status(page, "12 photos")
    expect(page.get_by_label("year")).to_have_value("")


def test_a_part_of_a_photo_of_the_library_is_searched_for(visit_library: OpenLibrary) -> None:
    page = visit_library("#photos?like=6")
    status(page, "11 answers, most similar first")
    whole = page.locator("#results .score b").all_inner_texts()
    page.get_by_role("application").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    status(page, "11 answers for this part of the photo")
    assert page.locator("#results .score b").all_inner_texts() != whole
    page.locator(".toggles .right").first.click()
    status(page, "Re-ranked by 1 mark")
    assert len(answers(page)) == 11


def test_the_grid_has_pages(own: Path, visit_library: OpenLibrary) -> None:
    fill(own, 120)
    page = visit_library()
    status(page, "Photos 1 to 60 of 132, sorted by path.")
    page.get_by_role("link", name="Next").click()
    status(page, "Photos 61 to 120 of 132, sorted by path.")
    page.get_by_label("Page, of 3").fill("3")
    page.keyboard.press("Enter")
    status(page, "Photos 121 to 132 of 132, sorted by path.")
    assert len(grid(page)) == 12
    page.go_back()
    status(page, "Photos 61 to 120")
    page.get_by_role("link", name="Previous").click()
    status(page, "Photos 1 to 60")


def test_values_of_a_large_column_are_searched(own: Path, visit_library: OpenLibrary) -> None:
    fill(own, 10_000)
    page = visit_library()
    status(page, "of 10,012")
    assert page.locator("option").count() < 200
    field = page.get_by_label("number")
    field.press_sequentially("0777")
    expect(page.locator("#proposals-number option")).to_have_count(11)
    field.fill("value 07770")
    field.press("Enter")
    status(page, "1 photo, sorted by path")
    assert grid(page) == ["nowhere/7770.jpg"]
    # The card says that the file is missing.
    expect(page.locator("#library .shot")).to_contain_text("this photo's file is missing")
    page.locator("#library .more").click()
    status(page, "No photo matches these filters.")
    page.get_by_label("number").fill("")
    page.keyboard.press("Enter")
    status(page, "24 answers")


@pytest.mark.parametrize("count", [0, 1])
def test_libraries_of_no_and_one_photo_are_shown(own: Path, visit_library: OpenLibrary, count: int) -> None:
    library = Library(own)
    library.remove(list(library.catalogue.names())[count:])
    page = visit_library()
    status(page, ["The library is empty.", "1 photo, sorted by path."][count])
    if count:
        page.locator("#library .shot").click()
        status(page, "There is no other photo in the library.")


def test_photos_are_added_and_one_is_removed(visit_library: OpenLibrary, photos: Path, tmp_path: Path) -> None:
    page = visit_library()
    status(page, "12 photos")
    text = tmp_path / "text.jpg"
    text.write_text("just text")
    new = [photos / "landmark 4" / f"{number:02d}.jpg" for number in range(3)]
    page.get_by_label("Add photos").set_input_files([new[0], text, *new[1:]])
    expect(page.locator("#added")).to_have_text("3 of 4 photos added, 1 not added:")
    expect(page.locator("#failures li")).to_have_count(1)
    expect(page.locator("#failures")).to_contain_text("text.jpg: not an image in a supported format")
    status(page, "15 photos")
    expect(page.locator("#about")).to_contain_text("15 photos")
    expect(page.get_by_label("Folder").locator("option", has_text="added-photos (3)")).to_have_count(1)
    page.get_by_role("button", name="Close").click()

    page.evaluate(DROP, [[file.name, list(file.read_bytes())] for file in new[:2]])
    expect(page.locator("#question")).to_have_text("Add 2 photos to the library?")
    page.get_by_role("button", name="Cancel").click()
    status(page, "15 photos")

    page.get_by_label("Folder").select_option("added-photos")
    status(page, "3 photos")
    page.get_by_role("button", name="Open: ").first.click()
    page.get_by_role("button", name="Remove from the library").click()
    expect(page.locator("#question")).to_contain_text("Remove added-photos/00.jpg from the library?")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Remove from the library").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    status(page, "2 photos")
    assert grid(page) == ["added-photos/01.jpg", "added-photos/02.jpg"]


def test_several_photos_are_removed_together(visit_library: OpenLibrary, own: Path) -> None:
    page = visit_library()
    status(page, "12 photos")
    boxes = page.locator("#library").get_by_role("checkbox")
    expect(boxes).to_have_count(0)
    page.get_by_role("button", name="Select", exact=True).click()
    expect(boxes).to_have_count(12)
    remove = page.get_by_role("button", name="Remove from the library")
    expect(remove).to_be_disabled()
    page.get_by_label("Select landmark 0/01.jpg").check()
    page.get_by_label("Folder").select_option(label="landmark 2 (4)")
    status(page, "4 photos")
    page.get_by_role("button", name="Select this page").click()
    expect(page.locator("#selected")).to_have_text("5 photos selected")
    page.get_by_label("Select landmark 2/03.jpg").focus()
    page.keyboard.press("Space")
    expect(page.locator("#selected")).to_have_text("4 photos selected")
    paths = {name for name in Library(own).catalogue.names() if "landmark 2" in name}

    # One of them is removed elsewhere in the meantime.
    Library(own).remove([next(path for path in paths if path.endswith("00.jpg"))])
    remove.click()
    expect(page.locator("#question")).to_contain_text("Remove 4 photos from the library?")
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.locator("#added")).to_have_text("3 of 4 photos removed, 1 not removed:")
    expect(page.locator("#failures li")).to_contain_text("landmark 2/00.jpg: the library has no photo")
    status(page, "1 photo")
    assert grid(page) == ["landmark 2/03.jpg"]
    # No file is deleted, as none was added by the page.
    assert all(Path(path).is_file() for path in paths)
    page.get_by_role("button", name="Select", exact=True).click()
    expect(boxes).to_have_count(0)


def test_an_added_photo_brings_date_and_place(visit_library: OpenLibrary, photos: Path, tmp_path: Path) -> None:
    gps = {LATITUDE_REF: "N", LATITUDE: [(43, 1)] * 3, LONGITUDE_REF: "E", LONGITUDE: [(5, 1)] * 3}
    path = tmp_path / "dated.jpg"
    data = (photos / "landmark 4" / "00.jpg").read_bytes()
    path.write_bytes(in_jpeg(data, exif_bytes({TAKEN: "2019:07:04 12:34:56"}, gps)))
    page = visit_library()
    status(page, "12 photos")
    expect(page.get_by_role("link", name="Places")).to_be_hidden()
    page.get_by_label("Add photos").set_input_files([path])
    status(page, "13 photos")
    # The library had no such columns before.
    page.get_by_label("taken from").fill("2019-07")
    page.keyboard.press("Tab")
    status(page, "1 photo, sorted by path")
    assert grid(page) == ["added-photos/dated.jpg"]
    page.get_by_role("link", name="Places").click()
    expect(page.locator("#places-said")).to_have_text("1 photo with a location.")
    page.locator("#places-map").press("Enter")
    expect(page.locator("#places-photos .card")).to_contain_text("2019-07-04 12:34:56")


def test_a_read_only_server_offers_no_changes(visit_library: OpenLibrary, photos: Path) -> None:
    page = visit_library(settings=Settings(rate=1e9, read_only=True))
    status(page, "12 photos")
    expect(page.get_by_label("Add photos")).to_be_hidden()
    expect(page.get_by_role("button", name="Select", exact=True)).to_be_hidden()
    page.get_by_role("button", name="Open: ").first.click()
    expect(page.get_by_role("button", name="More like this", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Remove from the library")).to_be_hidden()
    page.keyboard.press("Escape")
    new = [photos / "landmark 4" / f"{number:02d}.jpg" for number in range(2)]
    page.evaluate(DROP, [[file.name, list(file.read_bytes())] for file in new])
    expect(page.locator("#error")).to_contain_text("does not accept new photos")


def test_answers_of_a_previous_photo_are_cleared(visit_library: OpenLibrary, photos: Path, tmp_path: Path) -> None:
    page = visit_library()
    status(page, "12 photos")
    page.locator("#file").set_input_files(photos / "landmark 1" / "09.jpg")
    status(page, "12 answers")
    page.locator(".toggles .right").first.click()
    status(page, "Re-ranked")
    text = tmp_path / "text.jpg"
    text.write_text("just text")
    page.locator("#file").set_input_files(text)
    expect(page.locator("#error")).to_contain_text("Cannot search for text.jpg")
    assert answers(page) == []
    expect(page.locator("#marks")).to_be_hidden()
    page.go_back()
    # With the marks of the earlier query.
    status(page, "Re-ranked by 1 mark")


def test_answers_are_stale_while_a_search_runs(visit_library: OpenLibrary) -> None:
    page = visit_library("#photos?like=6")
    status(page, "11 answers")
    held: list[Route] = []
    page.route("**/api/search", lambda route: held.append(route))
    page.locator("#results .more").first.click()
    expect(page.locator("#results")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#results")).to_have_attribute("inert", "")
    status(page, "Searching")
    held[0].continue_()
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    assert page.evaluate("document.querySelector('#results').inert") is False


def test_two_tabs_have_separate_marks(visit_library: OpenLibrary) -> None:
    first = visit_library("#photos?like=6")
    status(first, "11 answers")
    first.locator(".toggles .right").nth(1).click()
    status(first, "Re-ranked by 1 mark")
    second = first.context.new_page()
    second.goto(first.url)
    status(second, "11 answers")
    expect(second.locator("#marks")).to_be_hidden()
    second.locator(".toggles .wrong").nth(2).click()
    status(second, "Re-ranked by 1 mark")
    expect(second.locator("#marked")).to_have_text("0 right, 1 wrong.")
    expect(first.locator("#marked")).to_have_text("1 right, 0 wrong.")


def test_a_reload_that_would_lose_marks_asks_first(visit_library: OpenLibrary) -> None:
    page = visit_library("#photos?like=6")
    status(page, "11 answers")
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.reload()
    status(page, "11 answers")
    assert asked == []
    page.locator(".toggles .right").first.click()
    status(page, "Re-ranked by 1 mark")
    page.reload()
    status(page, "11 answers")
    assert asked == ["beforeunload"]


def test_without_javascript_the_page_says_so(visit_library: OpenLibrary) -> None:
    page = visit_library(java_script_enabled=False)
    # Playwright does not see text inside a noscript element.
    expect(page.locator("noscript .alert")).to_be_visible()
    expect(page.locator("noscript code")).to_have_text("dolglab search PHOTO --library LIBRARY")
    for control in ("main", "nav"):
        expect(page.locator(control).first).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (1280, 720), (390, 844)])
def test_nothing_overlaps(own: Path, visit_library: OpenLibrary, width: int, height: int, scheme: str) -> None:
    # One column more than fit at 1280 x 900.
    add_columns(own, "format", "source")
    page = visit_library(viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=width < 500)
    covered = """() => [...document.querySelectorAll('a, button, label.button, select, input:not(.hidden), .status')]
        .filter((one) => one.checkVisibility() && !one.closest('dialog:not([open])'))
        .filter((one) => !(document.querySelector('dialog[open]') && !one.closest('dialog')))
        .filter((one) => {
            const { left, right, top, bottom } = one.getBoundingClientRect();
            if (bottom < 0 || top > innerHeight || right - left < 2 || one.closest('.skip')) return false;
            const [x, y] = [(left + right) / 2, Math.min((top + bottom) / 2, innerHeight - 1)];
            const seen = one.closest('.settings')?.getBoundingClientRect();
            if (seen && (y < seen.top || y > seen.bottom)) return false;
            const at = document.elementFromPoint(x, y);
            return right > innerWidth + 1 || left < -1 || (at && !one.contains(at) && !at.contains(one));
        }).map((one) => one.outerHTML)"""
    status(page, "12 photos")
    assert page.evaluate(covered) == []
    page.locator("#library .shot").first.click()
    status(page, "11 answers")
    page.locator(".toggles .right").first.click()
    status(page, "Re-ranked")
    page.evaluate("scrollTo(0, 0)")
    assert page.evaluate(covered) == []
    assert page.evaluate(f"document.documentElement.scrollWidth <= {width}")
    page.locator("#results .shot").first.click()
    expect(page.get_by_text("are inliers of one transformation")).to_be_visible()
    drawn = page.locator("#body .wide img")
    drawn.evaluate("image => image.decode()")
    high, wide = drawn.evaluate("image => [image.naturalHeight, image.naturalWidth]")
    # Stacked on a phone, and never wider than the dialog.
    assert (high > wide) == (width < 500)
    assert drawn.evaluate("image => image.clientWidth <= image.closest('#body').clientWidth")


def test_a_click_sends_its_search_before_anything_is_drawn(visit_library: OpenLibrary) -> None:
    page = visit_library()
    status(page, "12 photos")
    sent = """() => {
        const fetched = [], send = fetch;
        window.fetch = (...options) => (fetched.push(options[0]), send(...options));
        document.querySelector('#library .shot').click();
        return [fetched, document.querySelectorAll('#library .card').length];
    }"""
    # The grid stays until the answers are there, and then makes room for them.
    assert page.evaluate(sent) == [["api/search"], 12]
    status(page, "11 answers")
    assert grid(page) == []
    expect(page).to_have_url(re.compile(r"#photos\?like=1$"))
