"""The queries that a page shows, with their answers."""

import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dolglab.contracts import GroundTruth
from dolglab.errors import UserError
from dolglab.measures import RevisitedMeasure
from dolglab.results.first_answers import KEPT, answers_file, read_answers, write_answers
from dolglab.results.page import write_page
from dolglab.results.query_sections import run_sections, telling_queries, telling_sections
from rankings import Pictures, encoded

NAN = np.nan


def chosen(*ap, names=None):
    return telling_queries(np.array(ap), names or [f"m{place}" for place in range(len(ap))])


def test_a_found_a_gained_and_a_lost_query_are_shown():
    best = [0.9, 0.8, 0.9, 0.1, 0.2]
    other = [0.9, 0.7, 0.2, 0.6, 0.2]
    assert list(chosen(best, other).values()) == [0, 2, 3]
    assert list(chosen(best, other, names=["A", "B"])) == [
        "Both methods find it",
        "Largest gain of A over B",
        "Largest loss of A to B",
    ]


def test_gains_are_over_the_next_method_and_all_methods_must_find_it():
    found = chosen([0.9, 0.9, 0.6], [0.9, 0.5, 0.7], [0.1, 0.8, 0.6])
    # Query 0 is lost by the third; query 2 is best of the worst.
    assert list(found.values()) == [2, 1]
    assert next(iter(found)) == "All methods find it"


def test_without_a_loss_a_query_that_all_fail_is_shown():
    found = chosen([0.9, 0.6, 0.3, 0.2], [0.9, 0.5, 0.1, 0.2])
    assert list(found.items())[2] == ("Both methods fail", 3)


def test_only_queries_that_match_their_title_are_shown():
    # No query is found, gained or lost; all fail.
    assert chosen([0.1, 0.2], [0.1, 0.2]) == {"Both methods fail": 0}
    # All are found, none gained, lost or failed.
    assert chosen([0.8, 0.9], [0.8, 0.9]) == {"Both methods find it": 1}
    assert chosen([NAN, 0.2], [NAN, 0.1]) == {"Largest gain of m0 over m1": 1}
    assert chosen([NAN], [NAN]) == {}


@pytest.fixture
def photos(make_ranking):
    """A ranking in which each photo is a query for the others; even ones show one landmark, odd ones another."""

    def make(ap, images=None):
        count = len(ap)
        rows = np.arange(count)
        same = tuple(rows[(rows % 2 == row % 2) & (rows != row)] for row in rows)
        none = (np.empty(0, np.int64),) * count
        ranking = make_ranking(difficulties=("medium",))
        benchmark = replace(
            ranking.benchmark,
            name="photos",
            source=Pictures(images or [encoded("white", (400, 300))] * count),
            num_gallery=count,
            queries=rows,
            boxes=np.full((count, 4), NAN),
            ground_truth=GroundTruth(same, none, tuple(rows[row : row + 1] for row in rows)),
            crop="none",
            measure=RevisitedMeasure(),
        )
        scores = {**ranking.evaluation["medium"], "map": float(np.nanmean(ap)), "ap": np.array(ap)}
        # Each photo answers its own query first, as descriptors have it.
        top = np.array([[row, *(other for other in rows if other != row)] for row in rows])
        return replace(ranking, benchmark=benchmark, evaluation={"medium": scores}, top=top)

    return make


def test_a_query_is_not_among_its_answers(tmp_path, photos):
    write_answers(tmp_path, photos([0.5] * 9))
    kept = read_answers(tmp_path, "photos")
    assert sorted(kept) == list(range(9))
    for query in kept.values():
        assert len(query.answers) == 6
        assert query.query.name not in [answer.name for answer in query.answers]
    assert [answer.kind for answer in kept[0].answers] == ["negative", "positive"] * 3
    # Rows 0, 2, 4, 6 and 8 show one landmark, the other four another.
    assert [query.right for _, query in sorted(kept.items())] == [4, 3] * 4 + [4]


def test_right_photos_are_counted_at_the_shown_difficulty(tmp_path, make_ranking):
    for name, difficulties, expected in (("a", ("easy", "medium", "hard"), 2), ("b", ("hard",), 1)):
        write_answers(tmp_path / name, make_ranking(difficulties=difficulties))
        assert {query.right for query in read_answers(tmp_path / name, "toy").values()} == {expected}


def test_a_query_says_how_many_photos_are_right_if_that_is_known(tmp_path, photos, make_card_of):
    ranking = photos([0.5] * 4)
    write_answers(tmp_path, ranking)
    card = make_card_of("A", ranking)

    def said():
        hardest, _ = run_sections(card, tmp_path)
        page = write_page(tmp_path / "page.html", title="A", cards=[card], summaries=[], hardest=hardest)
        return page.read_text().count("1 right photo in the gallery")

    assert said() == 4
    path = answers_file(tmp_path, "photos")
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    listing = json.loads(files["answers.json"])
    for row in listing["queries"].values():
        del row["right"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (files | {"answers.json": json.dumps(listing)}).items():
            archive.writestr(name, data)
    assert said() == 0


def test_photos_are_small_and_stored_once(tmp_path, photos):
    path = write_answers(tmp_path, photos([0.5] * 9))
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names)) == 10
    (answer, *_) = read_answers(tmp_path, "photos")[3].answers
    with Image.open(io.BytesIO(answer.photo)) as image:
        assert (image.format, image.size) == ("JPEG", (180, 135))


def test_a_cropped_query_has_its_box_and_re_ranking_both_answers(tmp_path, make_ranking):
    ranking = replace(make_ranking(), before=np.array([[0, 2, 1, -1, -1], [4, 6, 5, 7, 1]]))
    write_answers(tmp_path, ranking)
    kept = read_answers(tmp_path, "toy")
    with Image.open(io.BytesIO(kept[0].query.photo)) as image:
        blue = np.asarray(image.convert("RGB")).astype(int)
    assert ((blue[..., 2] - blue[..., 0]) > 60).any()
    assert [answer.name for answer in kept[0].before] == ["folder/image_2.png", "folder/image_1.png"]


def test_unreadable_photos_have_no_thumbnail(tmp_path, photos):
    write_answers(tmp_path, photos([0.5] * 4, [encoded("white"), None, b"no image", encoded("red")]))
    kept = read_answers(tmp_path, "photos")
    assert [answer.photo is None for answer in kept[0].answers] == [True, True, False]
    assert kept[1].query.photo is None


def test_all_runs_store_the_same_queries_and_their_own_worst(tmp_path, photos):
    generator = np.random.default_rng(0)
    kept = []
    for name in "ab":
        ap = generator.random(3 * KEPT)
        write_answers(tmp_path / name, photos(ap))
        found = set(read_answers(tmp_path / name, "photos"))
        assert set(np.argsort(ap)[:6]) <= found
        kept.append(found)
    assert len(kept[0] & kept[1]) >= KEPT
    assert max(map(len, kept)) <= KEPT + 14


@pytest.mark.parametrize("damage", [b"no zip", b""])
def test_a_damaged_file_is_named(tmp_path, photos, damage):
    path = write_answers(tmp_path, photos([0.5] * 4))
    path.write_bytes(damage)
    with pytest.raises(UserError, match=r"photos\.zip"):
        read_answers(tmp_path, "photos")


def test_an_encrypted_file_is_named(tmp_path, photos):
    path = write_answers(tmp_path, photos([0.5] * 4))
    content = bytearray(path.read_bytes())
    # The flags of the first entry in the central directory.
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"photos\.zip"):
        read_answers(tmp_path, "photos")


def test_a_listing_of_something_else_is_named(tmp_path):
    path = answers_file(tmp_path, "photos")
    path.parent.mkdir()
    for listing in ([], {}, {"names": {}, "queries": {"0": {"query": 1, "answers": []}}}, {"queries": {"a": {}}}):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("answers.json", json.dumps(listing))
        with pytest.raises(UserError, match=r"photos\.zip"):
            read_answers(tmp_path, "photos")


def test_methods_are_shown_side_by_side_best_first(tmp_path, photos, make_card_of):
    rankings = {"A": photos([0.1, 0.2, 0.9, 0.4]), "B": photos([0.9, 0.3, 0.9, 0.3])}
    for name, ranking in rankings.items():
        write_answers(tmp_path / name, ranking)
    cards = [make_card_of(name, ranking) for name, ranking in rankings.items()]
    (section,) = telling_sections(cards, [tmp_path / name for name in rankings])
    assert (section.title, section.hint) == ("photos", "")
    shown = [(query.query.name, [(row.method, row.ap) for row in query.rows]) for query in section.queries]
    assert shown == [
        ("folder/image_2.png", [("B", 90.0), ("A", 90.0)]),
        ("folder/image_0.png", [("B", 90.0), ("A", 10.0)]),
        ("folder/image_3.png", [("B", 30.0), ("A", 40.0)]),
    ]


def test_few_of_hundreds_of_methods_are_shown_with_a_note(tmp_path, photos, make_card_of):
    write_answers(tmp_path, photos([0.5, 0.6]))
    cards = [make_card_of(f"m{place}", photos([place / 300, 0.6])) for place in range(200)]
    (section,) = telling_sections(cards, [tmp_path] * 200)
    assert section.hint == "the best 4 of 200 methods"
    assert {row.method for query in section.queries for row in query.rows} == {"m199", "m198", "m197", "m196"}


def test_one_method_and_runs_without_answers_have_no_telling_queries(tmp_path, photos, make_card_of):
    ranking = photos([0.5, 0.6])
    card = make_card_of("A", ranking)
    assert telling_sections([card, make_card_of("B", ranking)], [tmp_path, tmp_path]) == []
    write_answers(tmp_path, ranking)
    assert telling_sections([card], [tmp_path]) == []
    assert telling_sections([make_card_of("A")], [tmp_path]) == []
    # Runs with different queries are not paired.
    assert telling_sections([card, make_card_of("B", photos([0.5, 0.6, 0.7]))], [tmp_path, tmp_path]) == []


def test_a_run_shows_its_hardest_queries_and_others_from_the_best_on(tmp_path, photos, make_card_of):
    ap = [place / 20 for place in range(20)]
    ranking = photos(ap)
    write_answers(tmp_path, ranking)
    hardest, others = run_sections(make_card_of("A", ranking), tmp_path)
    figures = [[query.rows[0].ap for query in section.queries] for section in (*hardest, *others)]
    assert figures[0] == pytest.approx([0, 5, 10, 15, 20, 25])
    assert figures[1] == sorted(figures[1], reverse=True)
    assert figures[1][0] == pytest.approx(95)
    assert not set(figures[0]) & set(figures[1])
    assert run_sections(make_card_of("A", ranking), tmp_path / "absent") == ([], [])
