from html.parser import HTMLParser

import numpy as np
import pytest

from dolglab.contracts import BadImage
from dolglab.results.card import make_card
from dolglab.results.card_charts import Chart, ChartSection
from dolglab.results.chart_frames import Axis
from dolglab.results.charts import PointChart
from dolglab.results.comparison_tables import summarize
from dolglab.results.first_answers import write_answers
from dolglab.results.page import MAX_PICTURES, outline, write_page
from dolglab.results.pictures import ranked_grid
from dolglab.results.published import published_summary
from dolglab.results.query_sections import run_sections, telling_sections
from dolglab.results.training_charts import training_charts


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
        write_answers(tmp_path, ranking)
        config = {"model": {"name": "<b>"}}
        return make_card(name="a", method=method, rankings=[ranking], protocol={}, checkpoint=None, config=config)

    metrics = tmp_path / "metrics.csv"
    metrics.write_text("epoch,step,train/loss,val/medium\n0,1,2.0,\n0,2,1.5,0.5\n")
    cards = [make("<script>alert(1)</script>", ()), make("GeM", (BadImage("<i>.jpg", "empty"),))]
    hardest, _ = run_sections(cards[1], tmp_path)
    toys = PointChart((("<toy>", 1.0, 5.0), ("other", 2.0, 6.0)), Axis("<cost>", log=True), Axis("mAP, %"))
    path = write_page(
        tmp_path / "deep" / "page.html",
        title="Toy & co",
        cards=cards,
        summaries=[summarize(cards), published_summary()],
        telling=telling_sections(cards, [tmp_path, tmp_path]),
        charts=[
            ChartSection("Toys & games", "How <to> read", (Chart("<toy>", toys, "<noted>"),)),
            ChartSection("Training", "", tuple(training_charts(tmp_path))),
        ],
        hardest=hardest,
        pictures=[('"matches"', ranked_grid(make_ranking(), thumb=40))],
    )
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]
    return path.read_text(encoding="utf-8")


def test_the_page_makes_no_requests(html):
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


def test_pictures_are_embedded_and_described(html):
    elements = Elements(html)
    *answers, picture = elements.all("img")
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in (*answers, picture))
    assert picture["alt"] == '"matches"'
    # One query has an AP: as one that both methods find, and as the hardest of one.
    described = [image["alt"] for image in answers]
    assert described.count("query: folder/image_0.png") == 2
    assert described.count("answer 1, right: folder/image_1.png") == 3
    assert "answer 4, wrong: folder/image_4.png" in described
    # A query's own photo is not among its answers.
    assert not [words for words in described if words.startswith("answer") and "image_0" in words]


def test_kinds_of_answers_are_readable_without_colour(html):
    for words in ("✓ right", "✗ wrong", "○ not counted"):
        assert f"<span>{words}</span>" in html


def test_charts_are_described_and_have_their_values_in_a_table(html):
    elements = Elements(html)
    # One for a wide screen and one for a narrow one.
    assert len(elements.all("svg")) == 8
    charts = [a["aria-label"].partition(". ")[0] for a in elements.all("div") if a.get("role") == "img"]
    assert charts == [
        "Toys & games, chart: <toy>",
        "Training, chart: Loss by epoch",
        "Training, chart: Loss by step",
        "Training, chart: Validation mAP by epoch",
    ]
    assert '<tr><th scope="row">&lt;toy&gt;</th><td>1</td><td>5</td></tr>' in html
    assert '<tr><th scope="row">1</th><td>2</td></tr>' in html
    assert "&lt;noted&gt;" in html
    assert "How &lt;to&gt; read" in html


def test_conclusion_queries_and_tables_are_in_this_order(html):
    places = [html.index(part) for part in ('<div class="conclusion">', 'id="telling"', "<table>")]
    assert places == sorted(places)


def test_figures_equal_those_of_the_cards(html, make_card_of, make_ranking):
    (benchmark,) = make_card_of("GeM", make_ranking())["benchmarks"]
    for value in benchmark["map"].values():
        assert f"<td><strong>{100 * value:.2f}</strong>" in html


def test_pictures_that_do_not_fit_are_left_out_and_counted(tmp_path, make_card_of, make_ranking):
    card = make_card_of("m", make_ranking())
    large = b"\xff\xd8" + bytes(MAX_PICTURES // 4)
    pictures = [(f"picture {place}", large) for place in range(5)]
    path = write_page(tmp_path / "p.html", title="t", cards=[card], summaries=[summarize([card])], pictures=pictures)
    elements = Elements(path.read_text())
    assert [image["alt"] for image in elements.all("img")] == ["picture 0", "picture 1"]
    assert "; 3 are left out" in path.read_text()
    assert path.stat().st_size < MAX_PICTURES + 100_000


def test_every_heading_cell_has_a_scope(html):
    elements = Elements(html)
    assert {heading.get("scope") for heading in elements.all("th")} == {"col", "colgroup", "row"}
    assert [a["colspan"] for a in elements.all("th") if a["scope"] == "colgroup"] == ["3", "3", "4", "4"]


def test_wide_tables_can_be_scrolled_by_keyboard_and_are_named(html):
    regions = [a for a in Elements(html).all("div") if a.get("class") == "scroll"]
    assert len(regions) == len(Elements(html).all("table"))
    assert all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in regions)


def test_marks_link_to_their_notes(html):
    elements = Elements(html)
    targets = {attributes["href"].removeprefix("#") for attributes in elements.all("a")}
    places = [attributes["id"] for attributes in elements.all("li") if "id" in attributes]
    assert targets == set(places) == {"note-1", "note-a", "note-b", "note-c"}
    assert len(set(places)) == len(places)
    assert '<li id="note-1"><span>1</span> 1 image skipped</li>' in html


def test_sections_have_headings(html):
    elements = Elements(html)
    labelled = [a["aria-labelledby"] for a in elements.all("section")]
    assert labelled == [a["id"] for a in elements.all("h2")]
    assert len(set(labelled)) == len(labelled) == 8


def test_intervals_are_below_their_figures(tmp_path, make_card_of, make_ranking):
    ranking = make_ranking()
    ranking.evaluation["medium"]["ap"] = np.array([0.2, 0.8])
    cards = [make_card_of("m", ranking)]
    text = write_page(tmp_path / "page.html", title="t", cards=cards, summaries=[summarize(cards)]).read_text()
    assert "<td>75.00<small>20.0–80.0</small></td>" in text  # noqa: RUF001


def test_a_page_without_figures_is_valid(tmp_path, make_ranking):
    card = make_card(name="a", method="m", rankings=[make_ranking()], protocol={}, checkpoint=None, config={})
    text = write_page(tmp_path / "page.html", title="t", cards=[card], summaries=[summarize([card])]).read_text()
    headings = [line for line in text.splitlines() if line.startswith("<h2")]
    assert headings == ['<h2 id="results-1">Results</h2>', '<h2 id="runs">Runs</h2>']


def test_a_run_that_was_not_evaluated_has_a_page_without_tables(tmp_path):
    card = make_card(name="a", method="m", rankings=[], protocol={"resize": "released"}, checkpoint=None, config={})
    text = write_page(tmp_path / "page.html", title="t", cards=[card], summaries=[summarize([card])]).read_text()
    assert "<table" not in text
    assert "Protocol: resize released" in text


def test_outline_shows_nested_settings():
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
