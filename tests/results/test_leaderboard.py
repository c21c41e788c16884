"""The leaderboard's rows, compared with cards and publications, and its page."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from dolglab.contracts import Ranked
from dolglab.errors import UserError
from dolglab.measures import ground_truth_ids_of
from dolglab.results.boards import Run, make_boards, training_of
from dolglab.results.card import make_card
from dolglab.results.leaderboard import write_leaderboard
from dolglab.results.published import ROWS, Published
from dolglab.results.report import finish_run


def published(method, figures, kind="claimed", source="paper"):
    return Published(method, kind, source, None, None, False, {"roxford5k": figures})


@pytest.fixture
def make_run(tmp_path, make_ranking):
    """A factory of runs that measured a method on a benchmark."""

    def make(method, name="roxford5k", run="run", *, maps=(0.9, 0.75, 0.5), protocol=None, **ranking):
        measured = replace(make_ranking(name, maps=maps), **ranking)
        card = make_card(
            name=run, method=method, rankings=[measured], protocol=protocol or {}, checkpoint=None, config={}
        )
        finish_run(tmp_path / "runs" / run, card, [measured])
        return Run(
            json.loads(json.dumps(card)), tmp_path / "runs" / run, f"cards/{run}/card.json", f"models/{method}.html"
        )

    return make


def values(row, part):
    return {difficulty: figure.value for difficulty, figure in getattr(row, part).items()}


def test_a_row_has_claimed_remeasured_and_own_figures(make_run):
    sources = [
        published("GeM", {"medium": 80.0, "hard": 60.0}),
        published("GeM", {"hard": 55.0}, "remeasured", "issue [R]"),
        published("DELG", {"medium": 70.0, "hard": 40.0}),
    ]
    (board,) = make_boards([make_run("GeM")], sources)
    assert board.figures == {"medium": "Medium", "hard": "Hard"}
    gem, delg = board.rows
    assert values(gem, "claimed") == {"medium": 80.0, "hard": 60.0}
    assert values(gem, "remeasured") == {"hard": 55.0}
    assert values(gem, "here") == {"easy": 90.0, "medium": 75.0, "hard": 50.0}
    assert gem.here["hard"].address == "cards/run/card.json"
    assert (delg.model, delg.here, delg.measured) == ("DELG", {}, False)
    notes = [board.notes[mark] for figure in (gem.claimed["hard"], gem.remeasured["hard"]) for mark in figure.marks]
    assert notes[0].startswith("Yang et al.")
    assert "third party" in notes[1]


def test_sources_with_different_claims_have_separate_rows(make_run):
    sources = [published("DOLG", {"medium": 81.5}), published("DOLG", {"medium": 83.22}, source="README")]
    boards = make_boards([], sources)
    assert [values(row, "claimed")["medium"] for row in boards[0].rows] == [83.22, 81.5]
    everything = make_boards([])
    claimed = sum(len(row.figures) for row in ROWS if row.kind == "claimed")
    assert sum(bool(row.claimed) for board in everything for row in board.rows) == claimed


def test_a_table_has_all_given_columns_and_names_the_best(make_run):
    runs = [make_run("A", run="a"), make_run("B", run="b", maps=(0.9, 0.2, 0.5))]
    for run, ap in zip(runs, ([0.8, 0.7], [0.3, 0.1]), strict=True):
        run.card["benchmarks"][0]["ap"]["medium"] = ap
    alone, claimed = (make_boards(runs, rows)[0] for rows in ([], [published("GeM", {"medium": 80.0})]))
    assert alone.parts == {"here": "here"}
    assert claimed.parts == {"claimed": "claimed", "here": "here"}
    (line,) = alone.conclusion
    assert "A (75.00 %) is best, ahead of B (20.00 %): +55.00 points" in line
    (elsewhere,) = make_boards([], [published("GeM", {"medium": 80.0})])
    # Nothing was measured here, and its column says so.
    assert list(elsewhere.parts) == ["claimed", "here"]
    assert elsewhere.conclusion == ()


def test_different_protocols_have_notes(make_run):
    costs = {"image_seconds": 0.01, "image_bytes": 2048.0, "dimensions": 512.0}
    runs = [
        make_run("A", run="a", costs=costs, protocol={"image_size": 1024, "scales": [1.0]}),
        make_run("B", run="b", protocol={"image_size": 512, "scales": [1.0]}, notes=("oracle shortlist",)),
        make_run("C", run="c", protocol={"image_size": 512, "scales": [1.0]}, stages={"rerank": {"rerank": "spatial"}}),
    ]
    (board,) = make_boards(runs, [])
    rows = {row.model: row for row in board.rows}
    said = {name: [board.notes[mark] for mark in row.marks] for name, row in rows.items()}
    assert "image size 1024" in said["A"][0]
    assert "image size 512" in said["B"][0]
    assert "rerank spatial" in said["C"][0]
    assert [board.notes[mark] for mark in rows["B"].here["medium"].marks] == ["oracle shortlist"]
    assert (rows["A"].dimensions, rows["A"].milliseconds, rows["A"].bytes) == (512, 10.0, 2048.0)
    assert (rows["B"].dimensions, rows["B"].stage, rows["C"].stage) == (None, "single stage", "re-ranked")


def test_benchmarks_with_one_name_and_different_images_are_separate(make_run, make_ranking):
    one, two = make_run("A", run="a"), make_run("A", run="b")
    two.card["benchmarks"][0]["digest"] = "of other images"
    assert len(make_boards([one, two], [])) == 2


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ({"config": {"evaluate": {"model": {"backbone": {"name": "resnet50.tv_in1k"}}}}}, "backbone alone (tv_in1k)"),
        ({"config": {"evaluate": {"model": None}}}, "nothing"),
        ({"config": {"evaluate": {"model": {"_target_": "a.load_network", "source": "b"}}}}, "not stated"),
        ({"config": {"evaluate": {"model": None, "descriptors": "theirs.npy"}}}, "not stated"),
        ({"config": {"evaluate": {"model": None, "features": {"_target_": "a.rootsift.RootSIFT"}}}}, "nothing"),
        (
            {"config": {"evaluate": {"model": None, "features": {"_target_": "a.xfeat.XFeat"}}}},
            "MegaDepth and COCO (matching)",
        ),
        (
            {
                "training": {"landmarks": 81313},
                "config": {"train": {"data": {"_target_": "a.LandmarkDataModule.from_gldv2", "root": "data/gldv2"}}},
            },
            "GLDv2, 81,313 landmarks",
        ),
        (
            {
                "training": {"landmarks": 120},
                "config": {"train": {"data": {"_target_": "a.from_gldv2", "root": "data/demo_world", "hint": "draw"}}},
            },
            "demo_world, 120 landmarks",
        ),
        (
            {"training": {"landmarks": 12}, "config": {"data": {"_target_": "a.b", "root": "x/provence"}}},
            "provence, 12 landmarks",
        ),
    ],
)
def test_training_data_is_stated(card, expected):
    assert training_of(card) == expected


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_is_self_contained_and_its_links_work(tmp_path, make_run, make_ranking, capsys):
    ids = ground_truth_ids_of(make_ranking().benchmark.ground_truth)
    ranks = (np.array([1, 2, 3]), np.array([0, 4]))
    ranked = Ranked(np.zeros((2, 1), np.int64), np.zeros((2, 1), np.float32), ids, ranks)
    rankings = dict.fromkeys(("easy", "medium", "hard"), ranked)
    for method, run, name in (("<b>GeM</b>", "a/1", "roxford5k"), ("DOLG", "b", "x/y"), ("DOLG", "c", "x/y")):
        make_run(method, name, run, rankings=rankings)
    files = sorted((tmp_path / "runs").glob("**/card.json"))
    edited = tmp_path / "runs" / "b" / "card.json"
    edited.write_text(edited.read_text().replace("0.75", "0.76"))
    html = write_leaderboard([*files, tmp_path / "gone.json"], tmp_path / "out").read_text()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert str(edited) in said[0]
    assert "gone.json" in said[1]
    assert "&lt;b&gt;GeM" in html
    assert "<b>GeM" not in html
    assert not re.search(r"https?://", html)
    page = Page(html)
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    addresses = [link for link in links if not link.startswith("#")]
    assert len(addresses) == 6
    assert all((tmp_path / "out" / address).is_file() for address in addresses)
    assert (tmp_path / "out" / "cards" / "a_1" / "rankings" / "roxford5k.npz").is_file()
    rows = [attributes for tag, attributes in page.tags if tag == "tr" and "data-stage" in attributes]
    assert {row["data-measured"] for row in rows} == {"yes", "no"}
    model = (tmp_path / "out" / "models" / "dolg.html").read_text()
    assert "../index.html" in model
    assert 'id="hardest"' in model


def test_cards_with_one_name_are_reported_and_numbered(tmp_path, make_run, capsys):
    make_run("GeM", run="a")
    make_run("GeM", run="b/a")
    for file in (tmp_path / "runs").glob("**/card.json"):
        card = json.loads(file.read_text())
        del card["sha256"]
        file.write_text(json.dumps({**card, "name": "same"}))
    html = write_leaderboard(sorted((tmp_path / "runs").glob("**/card.json")), tmp_path / "out").read_text()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("2 cards have the name same on roxford5k: ")
    assert html.count("cards/same/card.json") == html.count("cards/same_2/card.json") == 2


def test_without_cards_there_is_no_page(tmp_path):
    with pytest.raises(UserError, match="none"):
        write_leaderboard([tmp_path / "gone.json"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
