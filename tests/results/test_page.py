from html.parser import HTMLParser

import pytest

from src.contracts import BadImage
from src.results.card import make_card
from src.results.figures import curves_svg, ranked_grid
from src.results.page import outline, write_page


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def html(tmp_path, make_ranking):
    def make(method, skipped):
        ranking = make_ranking(bad=skipped)
        config = {"model": {"name": "<b>"}}
        return make_card(name="a", method=method, rankings=[ranking], protocol={}, checkpoint=None, config=config)

    metrics = tmp_path / "metrics.csv"
    metrics.write_text("epoch,step,train/loss,val/medium\n0,1,2.0,\n0,2,1.5,0.5\n")
    cards = [make("<script>alert(1)</script>", ()), make("GeM", (BadImage("<i>.jpg", "empty"),))]
    path = write_page(
        tmp_path / "deep" / "page.html",
        title="Toy & co",
        cards=cards,
        curves=curves_svg(metrics),
        grids=[('a "toy"', ranked_grid(make_ranking(), thumb=40))],
    )
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]
    return path.read_text(encoding="utf-8")


def test_the_page_asks_for_nothing(html):
    addresses = [
        value
        for _, attributes in Elements(html).found
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "srcset", "data", "action")
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "@import" not in html
    assert html.count("url(") == html.count("url(#")


def test_text_from_cards_is_escaped(html):
    elements = Elements(html)
    assert not elements.all("script")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert not elements.all("i")
    assert not elements.all("b")
    assert "<title>Toy &amp; co</title>" in html


def test_figures_are_inside_and_described(html):
    elements = Elements(html)
    (image,) = elements.all("img")
    assert image["src"].startswith("data:image/jpeg;base64,")
    assert image["alt"].startswith('a "toy"')
    assert len(elements.all("svg")) == 2
    charts = [a["aria-label"] for a in elements.all("div") if a.get("role") == "img"]
    assert charts == ["Chart over training steps: Loss", "Chart over training steps: Validation mAP"]


def test_every_heading_cell_says_what_it_heads(html):
    elements = Elements(html)
    assert {heading.get("scope") for heading in elements.all("th")} == {"col", "colgroup", "row"}
    assert [a["colspan"] for a in elements.all("th") if a["scope"] == "colgroup"] == ["3"]


def test_notes_are_where_their_marks_point(html):
    elements = Elements(html)
    targets = {attributes["href"] for attributes in elements.all("a")}
    assert targets == {"#note-1"}
    assert '<li id="note-1">1 image skipped</li>' in html


def test_a_page_without_figures(tmp_path, make_ranking):
    card = make_card(name="a", method="m", rankings=[make_ranking()], protocol={}, checkpoint=None, config={})
    text = write_page(tmp_path / "page.html", title="t", cards=[card]).read_text()
    headings = [line for line in text.splitlines() if line.startswith("<h2")]
    assert headings == ['<h2 id="results">Results</h2>', '<h2 id="runs">Runs</h2>']


def test_a_run_that_was_not_evaluated_has_a_page_without_tables(tmp_path):
    card = make_card(name="a", method="m", rankings=[], protocol={"resize": "released"}, checkpoint=None, config={})
    text = write_page(tmp_path / "page.html", title="t", cards=[card]).read_text()
    assert "<table" not in text
    assert "Protocol: resize released" in text


def test_outline():
    value = {"a": {"b": [1, 2.5], "c": None}, "d": [{"e": True}, []], "f": {}, "g": "text"}
    assert list(outline(value)) == [
        "a:",
        "  b: [1, 2.5]",
        "  c: null",
        "d:",
        "  -",
        "    e: true",
        "  - []",
        "f: {}",
        "g: text",
    ]
