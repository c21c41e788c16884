"""Charts of cards: their contents and legibility."""

import re
from dataclasses import replace
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from dolglab.results.card_charts import (
    chart_sections,
    file_stem,
    interval_charts,
    precision_recall_charts,
    tradeoff_charts,
    write_charts,
)
from dolglab.results.chart_frames import Axis, Scale
from dolglab.results.charts import MAX_LINES, NARROW, WIDE, IntervalChart, LineChart, PointChart, as_file
from dolglab.results.metrics_log import Series

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def curved(make_ranking):
    def make(name="toy", costs=None, **options):
        curve = np.linspace(1, 0.2, 101)
        return replace(make_ranking(name, **options), curves={"easy": curve, "medium": curve**2}, costs=costs or {})

    return make


def words(drawing, width=WIDE):
    """The texts of a chart, in order."""
    root = ElementTree.fromstring(drawing.draw(width))
    return [part.text or "" for part in root.iter(f"{SVG}text")]


def text_at(drawing, words, width=WIDE):
    """The position of a text."""
    found = [part for part in ElementTree.fromstring(drawing.draw(width)).iter(f"{SVG}text") if part.text == words]
    return float(found[0].get("x")), float(found[0].get("y")) - 4.5


def lines_of(names=("a",), steps=(0.0, 1.0, 2.0), values=(1.0, 4.0, 2.0)):
    return LineChart({name: Series(list(steps), list(values)) for name in names}, Axis("step"), Axis("loss"))


def test_one_card_has_a_line_for_each_difficulty(make_card_of, curved):
    (chart,) = precision_recall_charts([make_card_of("A", curved())])
    assert chart.title == "toy"
    assert {"easy", "medium", "recall, %", "precision, %"} <= set(words(chart.drawing))
    assert "hard" not in words(chart.drawing)


def test_several_cards_have_a_chart_for_each_difficulty(make_card_of, curved):
    cards = [make_card_of("A", curved()), make_card_of("B", curved(crop="none")), make_card_of("C", curved("other"))]
    charts = list(precision_recall_charts(cards))
    assert [(chart.title, chart.note) for chart in charts] == [
        ("toy, easy", "B: queries not cropped"),
        ("toy, medium", "B: queries not cropped"),
        ("C: other", ""),
    ]
    assert charts[0].drawing.values().heading == ("recall, %", "A", "B")


def test_a_curve_without_queries_and_cards_without_curves_have_no_chart(make_card_of, make_ranking):
    empty = replace(make_ranking(), curves={"medium": np.full(101, np.nan)})
    assert not list(precision_recall_charts([make_card_of("A", empty), make_card_of("B", make_ranking())]))
    assert chart_sections([make_card_of("B", make_ranking())]) == []
    assert chart_sections([]) == []


def test_the_only_card_with_curves_is_named_among_others(make_card_of, make_ranking, curved):
    charts = precision_recall_charts([make_card_of("A", curved()), make_card_of("B", make_ranking())])
    assert [chart.title for chart in charts] == ["A: toy"]


def test_a_line_goes_through_its_values():
    drawing = lines_of()
    (path,) = ElementTree.fromstring(drawing.draw(WIDE)).iter(f"{SVG}path")
    drawn = [tuple(map(float, point.split())) for point in str(path.get("d")).removeprefix("M").split("L")]
    # Ticks are left of the axis, at the heights of their values.
    heights = {value: text_at(drawing, f"{value:g}")[1] for value in (1, 4)}
    expected = [heights[1], heights[4], heights[1] + (heights[4] - heights[1]) / 3]
    assert [y for _, y in drawn] == pytest.approx(expected, abs=0.2)
    assert drawn[1][0] - drawn[0][0] == pytest.approx(drawn[2][0] - drawn[1][0], abs=0.2)


def test_values_are_shown_on_hover_and_in_the_table():
    drawing = lines_of(("train", "<b>"), values=(1.25, 4.0, 2.0))
    said = words(drawing)
    for text in ("step 0", "train 1.25", "<b> 4", "step 2"):
        assert text in said
    assert drawing.values().heading == ("step", "train", "<b>")
    assert drawing.values().rows == (("0", "1.25", "1.25"), ("1", "4", "4"), ("2", "2", "2"))
    # Touch screens have no hover.
    assert "step 0" not in words(drawing, NARROW)


def test_hover_strips_cover_the_chart_once():
    root = ElementTree.fromstring(lines_of(steps=(0.0, 1.0, 5.0)).draw(WIDE))
    strips = [part for part in root.iter(f"{SVG}rect") if part.get("class") == "hit"]
    edges = [(float(part.get("x")), float(part.get("x")) + float(part.get("width"))) for part in strips]
    assert len(edges) == 3
    for (_, end), (start, _) in pairwise(edges):
        assert end == pytest.approx(start, abs=0.2)


def test_tooltips_stay_inside_the_chart():
    drawing = lines_of(("a method with a long name, longer than others " * 2,), steps=range(50), values=range(50))
    boxes = [
        part for part in ElementTree.fromstring(drawing.draw(WIDE)).iter(f"{SVG}rect") if part.get("class") == "box"
    ]
    assert len(boxes) == 50
    assert all(float(part.get("x")) >= 0 for part in boxes)
    assert all(float(part.get("x")) + float(part.get("width")) <= WIDE for part in boxes)


def test_a_missing_value_is_not_shown_on_hover():
    lines = {"a": Series([0, 1], [3.0, 4.0]), "b": Series([1, 2], [5.0, 6.0])}
    drawing = LineChart(lines, Axis("epoch", whole=True), Axis())
    assert drawing.values().rows == (("0", "3", ""), ("1", "4", "5"), ("2", "", "6"))


def test_one_point_and_a_level_line_are_drawn():
    for values in ((2.0,), (0.0,)):
        root = ElementTree.fromstring(lines_of(steps=(5.0,), values=values).draw(WIDE))
        assert [part for part in root.iter(f"{SVG}circle") if part.get("r") == "3.5"]
    assert "NaN" not in lines_of(values=(3.0, 3.0, 3.0)).draw(WIDE)


def test_a_long_curve_is_thinned_by_means():
    drawing = lines_of(steps=range(50_000), values=[step % 2 for step in range(50_000)])
    assert len(drawing.draw(WIDE)) < 60_000
    assert len(drawing.values().rows) == 60
    assert {value for _, value in drawing.values().rows} <= {"0.5", "0.4976", "0.5024"}


def test_all_lines_of_a_chart_differ_by_colour_or_dash_and_are_named():
    names = [f"method {number}" for number in range(MAX_LINES)]
    drawing = lines_of(names)
    strokes = re.findall(r'<path class="line ([^"]*)"', drawing.draw(WIDE))
    assert len(set(strokes)) == MAX_LINES
    assert [word for word in words(drawing, NARROW) if word.startswith("method")] == names


def test_axes_have_round_ticks():
    assert Scale.of(Axis(), [0.1, 0.93], 0, 100).ticks == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Scale.of(Axis(bounds=(0, 100)), [], 0, 100).ticks == (0, 20, 40, 60, 80, 100)
    assert Scale.of(Axis(whole=True), [1, 3], 0, 100).ticks == (1, 2, 3)
    assert Scale.of(Axis(log=True), [0.01, 100], 0, 100).ticks == pytest.approx([0.01, 0.1, 1, 10, 100])
    scale = Scale.of(Axis(log=True), [1, 100], 0, 90)
    assert scale.place(10) == pytest.approx(45)


def test_costs_are_drawn_if_two_cards_have_them(make_card_of, curved):
    cards = [
        make_card_of("A", curved(costs={"image_seconds": 0.02, "image_bytes": 2048})),
        make_card_of("B", curved(costs={"image_seconds": 0.2})),
        make_card_of("C", curved(costs={"image_seconds": 0.0})),
    ]
    (chart,) = tradeoff_charts(cards)
    assert chart.title == "toy: Medium mAP against time per image"
    assert chart.drawing.values().heading == ("", "seconds per image", "Medium mAP, %")
    assert chart.drawing.values().rows == (("A", "0.02", "75"), ("B", "0.2", "75"))


def test_names_of_near_points_do_not_overlap():
    names = [f"method {letter}" for letter in "abcdef"]
    points = [(name, 0.02 * 1.04**place, 60 + 0.4 * place) for place, name in enumerate(names)]
    drawing = PointChart((*points, ("far", 2.0, 20.0)), Axis("seconds", log=True), Axis("mAP, %"))
    root = ElementTree.fromstring(drawing.draw(WIDE))
    drawn = [part for part in root.findall(f"{SVG}text") if part.get("class") == "name"]
    boxes = [(float(part.get("x")), float(part.get("y")), 7 * len(part.text)) for part in drawn]
    for (x, y, wide), (x2, y2, wide2) in combinations(boxes, 2):
        assert x + wide <= x2 or x2 + wide2 <= x or abs(y - y2) >= 14
    # Points without a visible name show it on hover.
    assert set(names) <= set(words(drawing))


def test_coincident_points_are_drawn():
    drawing = PointChart((("a", 5.0, 50.0), ("b", 5.0, 50.0)), Axis("bytes", log=True), Axis("mAP, %"))
    assert {"a", "b", "bytes", "mAP, %"} <= set(words(drawing))
    assert "far" in words(PointChart((("far", 1e9, 0.0),), Axis("bytes", log=True), Axis("mAP, %")))


def test_intervals_are_drawn_at_their_values():
    drawing = IntervalChart((("A", 50.0, (40.0, 70.0)), ("B", 30.0, None)), Axis("mAP, %"))
    root = ElementTree.fromstring(drawing.draw(WIDE))
    ticks = {float(part.text): float(part.get("x")) for part in root.iter(f"{SVG}text") if part.text in ("40", "70")}
    unit = (ticks[70.0] - ticks[40.0]) / 30
    whisker = next(part for part in root.iter(f"{SVG}line") if part.get("class") == "line c0")
    assert float(whisker.get("x1")) == pytest.approx(ticks[40.0], abs=0.1)
    assert float(whisker.get("x2")) == pytest.approx(ticks[70.0], abs=0.1)
    places = [float(part.get("cx")) for part in root.iter(f"{SVG}circle")]
    assert places == pytest.approx([ticks[40.0] + 10 * unit, ticks[40.0] - 10 * unit], abs=0.2)
    assert {"50.00 (40.0 to 70.0)", "30.00"} <= set(words(drawing, NARROW))


def test_figures_of_several_cards_are_sorted_with_intervals(make_card_of, make_ranking):
    cards = []
    for method, ap in (("A", [0.1, 0.3]), ("B", [0.5, 0.9])):
        ranking = make_ranking()
        ranking.evaluation["medium"].update(ap=np.array(ap), map=float(np.mean(ap)))
        cards.append(make_card_of(method, ranking))
    (chart,) = interval_charts(cards)
    assert chart.title == "toy: Medium mAP"
    assert chart.drawing.values().rows == (("B", "70.00 (50.0 to 90.0)"), ("A", "20.00 (10.0 to 30.0)"))
    assert list(interval_charts(cards[:1])) == []


def test_only_the_best_of_hundreds_of_cards_are_drawn_with_a_note(make_card_of, curved):
    costs = {"image_bytes": 10}
    cards = [make_card_of(f"m{place}", curved(maps=(0.5, place / 300, 0.1), costs=costs)) for place in range(200)]
    for section in chart_sections(cards):
        for chart in section.charts:
            assert "of 200" in chart.note
            assert len(chart.drawing.draw(WIDE)) < 150_000
    (intervals, *_) = interval_charts(cards)
    assert intervals.drawing.values().rows[0][0] == "m199"


def test_chart_files_are_dark_on_white_with_fixed_colours(tmp_path, make_card_of, curved):
    cards = [make_card_of(name, curved(costs={"image_bytes": 10}, crop="none")) for name in "AB"]
    paths = write_charts(tmp_path / "figures", chart_sections(cards))
    assert sorted(path.name for path in paths) == [
        "accuracy_and_cost_toy_medium_map_against_memory_per_image.svg",
        "figures_and_intervals_toy_medium_map.svg",
        "precision_and_recall_toy_easy.svg",
        "precision_and_recall_toy_medium.svg",
    ]
    for path in paths:
        text = path.read_text()
        root = ElementTree.fromstring(text)
        assert root.tag == f"{SVG}svg"
        assert "var(" not in text
        left, top, width, height = map(float, str(root.get("viewBox")).split())
        (ground, *_) = root.findall(f"{SVG}rect")
        assert [float(ground.get(key)) for key in ("x", "y", "width", "height")] == [left, top, width, height]
        assert ground.get("fill") == "#ffffff"
        heading = [part.text for part in root.findall(f"{SVG}text")[:2]]
        assert file_stem(" ".join(heading)) == f"{path.stem}_queries_not_cropped"


def test_charts_are_reproducible():
    assert lines_of().draw(WIDE) == lines_of().draw(WIDE)
    assert as_file(lines_of(), "t") == as_file(lines_of(), "t")


def test_titles_become_file_names():
    assert file_stem("A/b: c (d), 5 %") == "a_b_c_d_5"
