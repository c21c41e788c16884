"""Charts of cards: what is drawn, and that it can be read."""

import re
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest

from dolglab.results.card_charts import (
    chart_sections,
    file_stem,
    precision_recall_charts,
    tradeoff_charts,
    write_charts,
)
from dolglab.results.charts import Series, ellipsize, line_chart, standalone, tradeoff_chart


@pytest.fixture
def curved(make_ranking):
    def make(name="toy", costs=None, **options):
        curve = np.linspace(1, 0.2, 101)
        return replace(make_ranking(name, **options), curves={"easy": curve, "medium": curve**2}, costs=costs or {})

    return make


def words(svg):
    """The texts of a chart, in their order."""
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    return [part.text.strip() for part in root.iter() if part.tag.endswith("text") and part.text]


def boxes(svg, names):
    """Where names stand: left, right, and the line they stand on, in letters of 8 points that are 5 wide at most."""
    found = {}
    pattern = r'<text style="[^"]*text-anchor: (\w+)[^"]*" x="([\d.-]+)" y="([\d.-]+)"[^>]*>([^<]*)<'
    for anchor, x, y, text in re.findall(pattern, svg):
        if text in names:
            left = float(x) - {"start": 0, "middle": 0.5, "end": 1}[anchor] * 5 * len(text)
            found[text] = (left, left + 5 * len(text), float(y))
    return found


def test_one_card_has_a_line_for_each_difficulty(make_card_of, curved):
    (chart,) = precision_recall_charts([make_card_of("A", curved())])
    assert chart.title == "toy"
    assert [word for word in words(chart.svg) if word in ("easy", "medium", "hard")] == ["easy", "medium"]
    assert {"recall, %", "precision, %"} <= set(words(chart.svg))


def test_several_cards_have_a_chart_for_each_difficulty(make_card_of, curved):
    cards = [make_card_of("A", curved()), make_card_of("B", curved(crop="none")), make_card_of("C", curved("other"))]
    charts = list(precision_recall_charts(cards))
    assert [(chart.title, chart.note) for chart in charts] == [
        ("toy, easy", "B: queries not cropped"),
        ("toy, medium", "B: queries not cropped"),
        ("C: other", ""),
    ]
    assert {"A", "B"} <= set(words(charts[0].svg))
    assert "C" not in words(charts[0].svg)


def test_a_line_is_where_its_curve_is(make_card_of, make_ranking):
    ranking = replace(make_ranking(), curves={"medium": np.full(101, 0.25)})
    (chart,) = precision_recall_charts([make_card_of("A", ranking)])
    (path,) = re.findall(r'<path d="([^"]*)"[^>]*stroke: #3b7dd8', chart.svg)
    (height,) = {float(y) for y in re.findall(r"[ML] [-\d.]+ ([-\d.]+)", path)}
    # Of the ticks called 0 and 100 the later ones are those of the precision.
    ticks = re.findall(r'<use [^>]*y="([\d.]+)"[^>]*/>\s*</g>.*?<text[^>]*>(\d+)</text>', chart.svg, re.DOTALL)
    places = {label: float(y) for y, label in ticks}
    assert height == pytest.approx(0.75 * places["0"] + 0.25 * places["100"], abs=0.1)


def test_a_curve_without_queries_and_cards_without_curves_have_no_chart(make_card_of, make_ranking):
    empty = replace(make_ranking(), curves={"medium": np.full(101, np.nan)})
    assert not list(precision_recall_charts([make_card_of("A", empty), make_card_of("B", make_ranking())]))
    assert chart_sections([make_card_of("B", make_ranking())]) == []
    assert chart_sections([]) == []


def test_costs_are_drawn_where_two_cards_have_them(make_card_of, curved):
    cards = [
        make_card_of("A", curved(costs={"image_seconds": 0.02, "image_bytes": 2048})),
        make_card_of("B", curved(costs={"image_seconds": 0.2})),
        make_card_of("C", curved(costs={"image_seconds": 0.0})),
    ]
    (chart,) = tradeoff_charts(cards)
    assert chart.title == "toy: medium mAP against time per image"
    assert {"A", "B", "seconds per image", "medium mAP, %"} <= set(words(chart.svg))
    assert "C" not in words(chart.svg)


def test_names_of_near_points_do_not_lie_on_each_other():
    names = [f"method {letter}" for letter in "abcdef"]
    points = [(name, 0.02 * 1.04**place, 0.6 + 0.004 * place) for place, name in enumerate(names)]
    svg = tradeoff_chart([*points, ("far", 2.0, 0.2)], "seconds")
    found = boxes(svg, names)
    assert len(found) == 6
    for one, other in combinations(names, 2):
        (left, right, base), (left2, right2, base2) = found[one], found[other]
        assert right <= left2 or right2 <= left or abs(base - base2) >= 7, (one, other)


def test_points_in_one_place_and_one_point_are_drawn():
    svg = tradeoff_chart([("a", 5.0, 0.5), ("b", 5.0, 0.5)], "bytes")
    assert {"a", "b", "bytes", "mAP, %"} <= set(words(svg))
    assert "far" in words(tradeoff_chart([("far", 1e9, 0.0)], "bytes"))


def test_a_long_name_stands_on_several_lines():
    found = words(tradeoff_chart([("local features, aggregated and re-ranked", 1.0, 0.5), ("b", 2.0, 0.4)], "s"))
    assert "local features," in found
    assert "aggregated and re-ranked" in found


def test_many_lines_differ_by_colour_or_style_and_all_are_named():
    lines = {f"method {number}": Series([0.0, 1.0], [number, number + 1.0]) for number in range(16)}
    svg = line_chart(lines)
    drawn = re.findall(r"stroke-dasharray: ([^;]*);[^\"]*stroke: (#\w+)|stroke: (#\w{6}); stroke-width: 1\.5", svg)
    assert len(set(drawn)) == 16
    assert [word for word in words(svg) if word.startswith("method")] == list(lines)


def test_a_chart_is_the_same_each_time_and_takes_the_colour_of_the_page():
    points = [("a", 1.0, 0.5), ("b", 2.0, 0.4)]
    assert tradeoff_chart(points, "s") == tradeoff_chart(points, "s")
    assert "currentColor" in tradeoff_chart(points, "s")


def test_charts_as_files_are_dark_on_white(tmp_path, make_card_of, curved):
    cards = [make_card_of(name, curved(costs={"image_bytes": 10}, crop="none")) for name in "AB"]
    paths = write_charts(tmp_path / "figures", chart_sections(cards))
    assert sorted(path.name for path in paths) == [
        "accuracy_and_cost_toy_medium_map_against_memory_per_image.svg",
        "precision_and_recall_toy_easy.svg",
        "precision_and_recall_toy_medium.svg",
    ]
    for path in paths:
        root = ElementTree.fromstring(path.read_text())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("style") == "background: #ffffff; color: #1f1e1b"
        _, top, _, height = map(float, str(root.get("viewBox")).split())
        heading = [part for part in root if part.tag.endswith("text")]
        said = " ".join(str(part.text) for part in heading)
        assert file_stem(said) == f"{path.stem}_queries_not_cropped"
        assert all(top < float(str(part.get("y"))) < 0 < height + top for part in heading)


def test_names_of_files_and_short_names():
    assert file_stem("A/b: c (d), 5 %") == "a_b_c_d_5"
    assert (ellipsize("abc", 3), ellipsize("abcd", 3)) == ("abc", "ab…")
    with pytest.raises(ValueError, match="viewBox"):
        standalone("<svg></svg>")


def test_the_only_card_with_curves_is_named_among_others(make_card_of, make_ranking, curved):
    charts = precision_recall_charts([make_card_of("A", curved()), make_card_of("B", make_ranking())])
    assert [chart.title for chart in charts] == ["A: toy"]
