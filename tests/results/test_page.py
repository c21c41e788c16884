from html.parser import HTMLParser

import numpy as np
import pytest

from dolglab.contracts import BadImage
from dolglab.results.card import make_card
from dolglab.results.card_charts import Chart, ChartSection, training_charts
from dolglab.results.comparison_tables import summarize
from dolglab.results.pictures import ranked_grid
from dolglab.results.published import published_summary
from dolglab.results.report import outline, write_page


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
        summaries=[summarize(cards), published_summary()],
        curves=training_charts(tmp_path),
        charts=[ChartSection("Toys & games", "How <to> read", (Chart("<toy>", "<svg></svg>", "<noted>"),))],
        grids=[('a "toy"', ranked_grid(make_ranking(), thumb=40))],
        pictures=[('"matches"', ranked_grid(make_ranking(), thumb=40))],
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
    grid, picture = elements.all("img")
    assert grid["src"].startswith("data:image/jpeg;base64,")
    assert grid["alt"].startswith('a "toy"')
    assert picture["alt"] == '"matches"'
    assert len(elements.all("svg")) == 3
    charts = [a["aria-label"] for a in elements.all("div") if a.get("role") == "img"]
    assert charts == ["Toys & games, chart: <toy>", "Training, chart: Loss", "Training, chart: Validation mAP"]
    assert "&lt;noted&gt;" in html
    assert "How &lt;to&gt; read" in html


def test_every_heading_cell_says_what_it_heads(html):
    elements = Elements(html)
    assert {heading.get("scope") for heading in elements.all("th")} == {"col", "colgroup", "row"}
    assert [a["colspan"] for a in elements.all("th") if a["scope"] == "colgroup"] == ["3", "3", "4", "4"]


def test_wide_tables_can_be_scrolled_by_keyboard_and_are_named(html):
    regions = [a for a in Elements(html).all("div") if a.get("class") == "scroll"]
    assert len(regions) == len(Elements(html).all("table")) + 1
    assert all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in regions)


def test_notes_are_where_their_marks_point(html):
    elements = Elements(html)
    targets = {attributes["href"].removeprefix("#") for attributes in elements.all("a")}
    places = [attributes["id"] for attributes in elements.all("li") if "id" in attributes]
    assert targets == set(places) == {"note-1", "note-a", "note-b", "note-c"}
    assert len(set(places)) == len(places)
    assert '<li id="note-1"><span>1</span> 1 image skipped</li>' in html


def test_sections_have_headings_of_their_own(html):
    elements = Elements(html)
    labelled = [a["aria-labelledby"] for a in elements.all("section")]
    assert labelled == [a["id"] for a in elements.all("h2")]
    assert len(set(labelled)) == len(labelled) == 7


def test_intervals_stand_below_their_figures(tmp_path, make_card_of, make_ranking):
    ranking = make_ranking()
    ranking.evaluation["medium"]["ap"] = np.array([0.2, 0.8])
    cards = [make_card_of("m", ranking)]
    text = write_page(tmp_path / "page.html", title="t", cards=cards, summaries=[summarize(cards)]).read_text()
    assert "<td>75.00<small>20.0–80.0</small></td>" in text  # noqa: RUF001


def test_a_page_without_figures(tmp_path, make_ranking):
    card = make_card(name="a", method="m", rankings=[make_ranking()], protocol={}, checkpoint=None, config={})
    text = write_page(tmp_path / "page.html", title="t", cards=[card], summaries=[summarize([card])]).read_text()
    headings = [line for line in text.splitlines() if line.startswith("<h2")]
    assert headings == ['<h2 id="results-1">Results</h2>', '<h2 id="runs">Runs</h2>']


def test_a_run_that_was_not_evaluated_has_a_page_without_tables(tmp_path):
    card = make_card(name="a", method="m", rankings=[], protocol={"resize": "released"}, checkpoint=None, config={})
    text = write_page(tmp_path / "page.html", title="t", cards=[card], summaries=[summarize([card])]).read_text()
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
