import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dolglab.results.pictures import BORDER, MAX_BYTES, NOTE_HEIGHT, Layout, chosen_queries, ranked_grid

GREEN, RED, GREY, BLUE = (46, 158, 79), (214, 59, 59), (154, 154, 154), (47, 111, 219)


def near(pixel, colour, tolerance=24):
    return max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) <= tolerance


def opened(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def border(image, row, column, thumb):
    """The border's four sides, in the middle of its width."""
    x, y = Layout(thumb).corner(row, column)
    inner, outer, half = BORDER // 2, thumb + BORDER + BORDER // 2, thumb // 2
    return [image.getpixel((x + a, y + b)) for a, b in ((inner, half), (outer, half), (half, inner), (half, outer))]


def test_borders_show_the_kind_of_an_image(make_ranking):
    ranking = make_ranking()
    ranking.evaluation["medium"]["ap"] = np.array([0.2, 0.9])
    image = opened(ranked_grid(ranking, thumb=60))
    # Query 1 comes first by AP; 0 is query 0's own image, which is not an answer, 3 its junk.
    expected = [[BLUE, GREEN, RED, GREEN, RED, RED], [BLUE, GREEN, GREEN, GREY, RED]]
    for row, colours in enumerate(expected):
        for column, colour in enumerate(colours):
            assert all(near(pixel, colour) for pixel in border(image, row, column, 60)), (row, column)


def test_under_hard_alone_easy_positives_are_junk(make_ranking):
    image = opened(ranked_grid(make_ranking(difficulties=("hard",)), thumb=60))
    for column, colour in enumerate([BLUE, GREY, GREEN, GREY, RED]):
        assert all(near(pixel, colour) for pixel in border(image, 0, column, 60)), column


def test_an_image_that_cannot_be_read_is_a_grey_cell_with_a_cross(make_ranking):
    file = io.BytesIO()
    Image.effect_noise((80, 80), 90).save(file, "JPEG")
    images = [file.getvalue()[:400], None, b"no image", b"", *[file.getvalue()] * 6]
    image = opened(ranked_grid(make_ranking(images=images), thumb=60))
    for column in (0, 1, 2, 3):
        x, y = Layout(60).corner(0, column)
        assert near(image.getpixel((x + BORDER + 5, y + BORDER + 30)), (189, 189, 189)), column
        assert near(image.getpixel((x + BORDER + 30, y + BORDER + 30)), (92, 92, 92), 40), column


@pytest.mark.parametrize(("crop", "drawn"), [("pil", True), ("none", False)])
def test_the_crop_box_is_drawn_on_the_query(make_ranking, crop, drawn):
    # 60 x 40 pixels in a cell of 120: twice the size, 20 pixels below the upper edge.
    image = opened(ranked_grid(make_ranking(crop=crop), thumb=120))
    x, y = (edge + BORDER for edge in Layout(120).corner(0, 0))
    for place in ((20, 60), (100, 60), (60, 30), (60, 90)):
        assert near(image.getpixel((x + place[0], y + place[1])), BLUE, 60) is drawn, place


def test_a_large_photo_is_scaled_with_its_aspect_ratio(make_ranking):
    photo = Image.new("RGB", (1600, 800), "red")
    ImageDraw.Draw(photo).rectangle((800, 0, 1600, 800), "lime")
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=95)
    image = opened(ranked_grid(make_ranking(images=[file.getvalue()] * 10), thumb=100))
    x, y = (edge + BORDER for edge in Layout(100).corner(0, 1))
    assert near(image.getpixel((x + 10, y + 50)), (255, 0, 0))
    assert near(image.getpixel((x + 90, y + 50)), (0, 255, 0))
    assert near(image.getpixel((x + 50, y + 10)), (237, 237, 237))


def test_rows_are_spread_over_the_queries_with_ap():
    ap = np.array([0.5, np.nan, 0.9, 0.1, 0.7, 0.3])
    assert chosen_queries(ap, 3) == [2, 0, 3]
    assert chosen_queries(ap, 9) == [2, 4, 0, 5, 3]
    assert chosen_queries(np.array([np.nan, np.nan]), 3) == [0]


def test_pictures_of_noise_fit_the_size_limit(make_ranking):
    random = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(file, "PNG")
    ranking = make_ranking(images=[file.getvalue()] * 10)
    assert len(ranked_grid(ranking, queries=2, thumb=224)) <= MAX_BYTES


def test_re_ranked_queries_have_a_row_before_and_after(make_ranking):
    ranking = make_ranking()
    ranking = replace(ranking, before=np.array([[6, 1, 3, 0, 4], [4, 6, 5, 7, 1]]))
    image = opened(ranked_grid(ranking, thumb=60))
    layout = Layout(60, per_query=2)
    # Query 1 has no AP and no row; 0 is query 0's own image, which is not an answer, 3 its junk.
    for row, colours in enumerate([[BLUE, RED, GREEN, GREY, RED], [None, GREEN, GREEN, GREY, RED]]):
        for column, colour in enumerate(colours):
            x, y = layout.corner(row, column)
            assert near(image.getpixel((x + 1, y + 30)), colour or (255, 255, 255)), (row, column)
    assert image.size == layout.corner(2, 5)


def test_rows_of_one_query_are_closer_than_those_of_two():
    layout = Layout(60, per_query=2)
    tops = [layout.corner(row, 0)[1] for row in range(4)]
    assert tops[1] - tops[0] == tops[3] - tops[2] < tops[2] - tops[1]


def test_a_moved_answer_shows_its_previous_rank(make_ranking):
    ranking = make_ranking()
    stayed = opened(ranked_grid(replace(ranking, before=ranking.top), thumb=60))
    before = np.array([[2, 0, 1, 3, 4], [4, 6, 5, 7, 1]])
    moved = opened(ranked_grid(replace(ranking, before=before), thumb=60))

    def label(image, column):
        x, y = Layout(60, per_query=2).corner(1, column)
        return np.asarray(image.crop((x - 4, y + 69, x + 72, y + 88)).convert("L"))

    for column, differs in ((1, True), (2, True), (3, False), (4, False)):
        dark = [int((label(image, column) < 128).sum()) for image in (stayed, moved)]
        assert (dark[1] > 1.5 * dark[0]) is differs, column


def test_a_shorter_previous_ranking_is_shown(make_ranking):
    ranking = replace(make_ranking(), before=np.array([[6, -1, -1], [4, 6, -1]]))
    assert opened(ranked_grid(ranking, thumb=60)).size == Layout(60, per_query=2).corner(2, 5)


def test_notes_are_above_the_picture(make_ranking):
    plain, noted = (opened(ranked_grid(make_ranking(), thumb=60, notes=notes)) for notes in ((), ["oracle " * 200]))
    assert noted.size == (plain.width, plain.height + NOTE_HEIGHT)
    head = np.asarray(noted.convert("L"))[:NOTE_HEIGHT]
    assert (head[:, : noted.width // 2] < 100).any()
    assert (head[:, -4:] > 200).all()
