import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageDraw

from src.contracts import InputError
from src.results.figures import BORDER, MAX_BYTES, cell_corner, chosen_queries, curves_svg, ranked_grid
from src.results.series import read_series

GREEN, RED, GREY, BLUE = (46, 158, 79), (214, 59, 59), (154, 154, 154), (47, 111, 219)

METRICS = """\
epoch,step,train/loss,train/target_cosine,val/toy/easy,val/toy/hard,val/toy/medium,pooling/p,lr-AdamW
0,9,8.0,0.1,,,,3.0,0.1
0,19,6.0,,,,,,0.1
0,19,,,0.5,0.1,0.3,,
1,29,5.0,0.3,,,,nan,0.1
1,39,99.0,,,,,,
epoch,step,train/loss,train/nontarget_cosine,val/toy/easy,val/toy/hard,val/toy/medium,train/images_per_second
1,29,4.0,0.0,,,,250
1,35,3.0,,,,,260
2,45,2.0,,0.7,0.2,0.4
"""


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(METRICS)
    return path


def near(pixel, colour, tolerance=24):
    return max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) <= tolerance


def opened(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def border(image, row, column, thumb):
    """The border's four sides, in the middle of its width."""
    x, y = cell_corner(row, column, thumb)
    inner, outer, half = BORDER // 2, thumb + BORDER + BORDER // 2, thumb // 2
    return [image.getpixel((x + a, y + b)) for a, b in ((inner, half), (outer, half), (half, inner), (half, outer))]


def test_a_resumed_run_replaces_what_it_does_again(metrics):
    series = read_series(metrics)
    assert (series["train/loss"].steps, series["train/loss"].values) == ([9, 19, 29, 35, 45], [8, 6, 4, 3, 2])
    assert (series["val/toy/medium"].steps, series["val/toy/medium"].values) == ([19, 45], [0.3, 0.4])
    assert series["pooling/p"].values == [3.0]
    assert series["train/images_per_second"].values == [250, 260]


def test_curves_have_a_chart_for_each_group_with_data(metrics):
    titles = [title for title, _ in curves_svg(metrics)]
    assert titles == [
        "Loss",
        "Validation mAP, toy",
        "Cosine to the class weights",
        "GeM exponent p",
        "Learning rate",
        "Throughput",
    ]


def test_curves_are_elements_in_the_colour_of_the_page_and_the_same_each_time(metrics):
    curves = curves_svg(metrics)
    assert curves == curves_svg(metrics)
    for _, svg in curves:
        assert svg.startswith("<svg")
        assert "currentColor" in svg
        ElementTree.fromstring(svg.replace("xlink:href", "href"))
    legend = dict(curves)["Validation mAP, toy"]
    assert legend.index(">easy<") < legend.index(">medium<") < legend.index(">hard<")


def test_several_benchmarks_have_a_chart_each_and_one_point_is_a_marker(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,val/a/medium,validation/b/medium,val/medium\n0,5,0.5,0.6,0.7\n")
    curves = curves_svg(path)
    assert [t for t, _ in curves] == ["Validation mAP, a", "Validation mAP, b", "Validation mAP"]
    assert all("stroke-linejoin" in svg and "<use" in svg for _, svg in curves)


def test_a_long_curve_is_thinned(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss\n" + "".join(f"{step},{step % 7}\n" for step in range(50_000)))
    ((_, svg),) = curves_svg(path)
    assert len(svg) < 60_000


def test_no_metrics_no_curves(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,other\n0,1,2\n")
    assert curves_svg(path) == []
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="step"):
        curves_svg(path)
    with pytest.raises(InputError, match="not found"):
        curves_svg(tmp_path / "absent.csv")


def test_borders_say_what_an_image_is(make_ranking):
    ranking = make_ranking()
    ranking.evaluation["medium"]["ap"] = np.array([0.2, 0.9])
    image = opened(ranked_grid(ranking, thumb=60))
    # Query 1 comes first by AP; 0 is query 0's own image, 3 its junk.
    expected = [[BLUE, GREEN, RED, GREEN, RED, RED], [BLUE, GREEN, GREY, GREEN, GREY, RED]]
    for row, colours in enumerate(expected):
        for column, colour in enumerate(colours):
            assert all(near(pixel, colour) for pixel in border(image, row, column, 60)), (row, column)


def test_under_hard_alone_easy_positives_are_junk(make_ranking):
    image = opened(ranked_grid(make_ranking(difficulties=("hard",)), thumb=60))
    for column, colour in enumerate([BLUE, GREY, GREY, GREEN, GREY, RED]):
        assert all(near(pixel, colour) for pixel in border(image, 0, column, 60)), column


def test_an_image_that_cannot_be_read_is_a_grey_cell_with_a_cross(make_ranking):
    file = io.BytesIO()
    Image.effect_noise((80, 80), 90).save(file, "JPEG")
    images = [file.getvalue()[:400], None, b"no image", b"", *[file.getvalue()] * 6]
    image = opened(ranked_grid(make_ranking(images=images), thumb=60))
    for column in (0, 1, 2, 3, 4):
        x, y = cell_corner(0, column, 60)
        assert near(image.getpixel((x + BORDER + 5, y + BORDER + 30)), (189, 189, 189)), column
        assert near(image.getpixel((x + BORDER + 30, y + BORDER + 30)), (92, 92, 92), 40), column


@pytest.mark.parametrize(("crop", "drawn"), [("pil", True), ("none", False)])
def test_the_crop_box_is_drawn_where_the_query_was_cropped(make_ranking, crop, drawn):
    # 60 x 40 pixels in a cell of 120: twice the size, 20 pixels below the upper edge.
    image = opened(ranked_grid(make_ranking(crop=crop), thumb=120))
    x, y = (edge + BORDER for edge in cell_corner(0, 0, 120))
    for place in ((20, 60), (100, 60), (60, 30), (60, 90)):
        assert near(image.getpixel((x + place[0], y + place[1])), BLUE, 60) is drawn, place


def test_a_large_photo_is_scaled_with_its_sides(make_ranking):
    photo = Image.new("RGB", (1600, 800), "red")
    ImageDraw.Draw(photo).rectangle((800, 0, 1600, 800), "lime")
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=95)
    image = opened(ranked_grid(make_ranking(images=[file.getvalue()] * 10), thumb=100))
    x, y = (edge + BORDER for edge in cell_corner(0, 1, 100))
    assert near(image.getpixel((x + 10, y + 50)), (255, 0, 0))
    assert near(image.getpixel((x + 90, y + 50)), (0, 255, 0))
    assert near(image.getpixel((x + 50, y + 10)), (237, 237, 237))


def test_rows_are_spread_over_the_queries_and_leave_out_those_without_ap():
    ap = np.array([0.5, np.nan, 0.9, 0.1, 0.7, 0.3])
    assert chosen_queries(ap, 3).tolist() == [2, 0, 3]
    assert chosen_queries(ap, 9).tolist() == [2, 4, 0, 5, 3]
    assert chosen_queries(np.array([np.nan, np.nan]), 3).tolist() == [0]


def test_noise_still_fits_the_page(make_ranking):
    random = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(file, "PNG")
    ranking = make_ranking(images=[file.getvalue()] * 10)
    assert len(ranked_grid(ranking, queries=2, thumb=224)) <= MAX_BYTES
