"""Output of a search: on the terminal, as JSON, and as a page."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dolglab.data.photos import photo_pixels
from dolglab.errors import UserError
from dolglab.extraction.extractor import parts_of, similarity_terms
from dolglab.library.contents import Answer, Photo
from dolglab.library.ingest import embed
from dolglab.library.library import Library
from dolglab.library.listing import find_photos
from dolglab.library.local_engine import describe_files
from dolglab.library.search_engine import SearchEngine
from dolglab.library.search_results import common_folder, search_photos
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import DOLG, GlobalDescriptor
from dolglab.sharing.loading import LoadedExtractor
from photo_library.conftest import save

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def library(loaded: LoadedExtractor, folder: Path, tmp_path: Path) -> str:
    made = Library.open(tmp_path / "library", loaded.identity)
    embed(made, describe_files(loaded, find_photos([str(folder)])))
    made.close()
    return str(tmp_path / "library")


def test_json_has_the_requested_fields(library: str, folder: Path, capsys: Capture) -> None:
    query = folder / "a" / "1.jpg"
    search_photos([str(query)], library, top=3, rerank="spatial", explain=True, as_json=True)
    (found,) = json.loads(capsys.readouterr().out)
    assert found["query"] == str(query)
    first = found["answers"][0]
    assert first["photo"] == str(query)
    assert first["inliers"] == first["matches"] > 8
    # Pooling alone: no local branch and no last layer.
    assert first["terms"] == {
        "global": pytest.approx(first["cosine"], abs=1e-5),
        "local": None,
        "cross": None,
        "bias": None,
    }
    assert all(answer["inliers"] < first["inliers"] for answer in found["answers"][1:])


def test_the_page_shows_all_answers_despite_odd_names_and_missing_photos(
    library: str, folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    (odd,) = folder.glob("a/photo*")
    query = tmp_path / "<b>query.jpg"
    shutil.copy(odd, query)
    (folder / "b c" / "3.jpg").unlink()
    page = tmp_path / "page.html"
    search_photos([str(query)], library, explain=True, html=str(page))
    text = page.read_text()
    assert text.count("<li>") == 6
    assert "no longer there" in text
    assert "&lt;b&gt;query.jpg" in text
    assert "<b>query" not in text
    # Pictures of each existing photo and of the query, and three for each explanation.
    assert text.count('src="data:image/jpeg') == 5 + 1 + 3 * 5
    printed = capsys.readouterr().out
    assert "3.jpg (gone)" in printed
    # Only the terms that the network has.
    assert re.findall('<th scope="row">([^<]+)</th>', text) == ["global with global", "cosine"] * 5
    assert re.search(r"cosine +global +inliers", printed)


def test_a_query_without_answers_prints_one_line(library: str, folder: Path, capsys: Capture) -> None:
    query = str(folder / "a" / "0.jpg")
    search_photos([query], library, top=3, min_cosine=1.0, box="0,0,30,30")
    assert capsys.readouterr().out == f"{query}, part 0,0,30,30: no photo found with a cosine of at least 1\n"


def test_an_unreadable_query_does_not_stop_others(library: str, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    queries = tmp_path / "queries"
    shutil.copytree(folder / "a", queries)
    (queries / "0.jpg").write_text("text")
    save(queries / "small.png", 60, cell=4)
    search_photos([str(queries)], library, top=1, box="0,0,40,40", as_json=True, html=str(tmp_path / "page.html"))
    out, err = capsys.readouterr()
    assert [(one["query"], one["box"]) for one in json.loads(out)] == [
        (str(query), [0, 0, 40, 40]) for query in sorted(queries.glob("*.jpg")) if query.name != "0.jpg"
    ]
    broken, small = err.splitlines()
    assert broken.startswith(f"left out: {queries / '0.jpg'} cannot be read: not an image")
    assert small.endswith("small.png, of 24 x 16 pixels")
    assert (tmp_path / "page.html").read_text().count(", part 0,0,40,40</h1>") == 2


def test_unreadable_queries_only_are_a_user_error(library: str, folder: Path) -> None:
    for path in folder.glob("a/*.jpg"):
        path.write_text("text")
    with pytest.raises(UserError, match="none of the 3"):
        search_photos([str(folder / "a")], library, top=1)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"rerank": "magic"}, "--rerank.*magic"),
        ({"where": ["year"]}, "--where.*year"),
        ({"box": "1,2,3"}, "not 1,2,3"),
        ({"box": "0,0,900,900"}, r"0\.jpg, of 72 x 48"),
        ({"html": "/proc/page.html"}, r"/proc/page\.html"),
    ],
)
def test_mistakes_give_one_line(library: str, folder: Path, asked: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        search_photos([str(folder / "a" / "0.jpg")], library, **asked)


def test_verified_answers_are_sorted_by_inliers_and_missing_photos_stay(
    library: str, folder: Path, tmp_path: Path
) -> None:
    """The query is half of a photo, the only one with matching local features."""
    whole = tmp_path / "more" / "whole.jpg"
    save(whole, 50, cell=40)
    engine = SearchEngine(library)
    embed(engine.library, describe_files(engine.loaded, find_photos([str(whole)])))
    query = photo_pixels(str(whole), 64, (0, 0, 120, 160))
    (folder / "a" / "0.jpg").unlink()
    (plain,), (verified,) = engine.search([query], 7), engine.search([query], 7, verify=True)
    assert {answer.photo.name for answer in plain} == {answer.photo.name for answer in verified}
    by_name = {answer.photo.name: answer for answer in verified}
    assert by_name[str(folder / "a" / "0.jpg")].inliers is None
    counted = [answer.inliers or 0 for answer in verified]
    strong = [count for count in counted if count >= engine.verifier.method.min_inliers]
    assert counted[: len(strong)] == sorted(strong, reverse=True)


def test_terms_sum_to_the_cosine_and_equal_a_loop() -> None:
    torch.manual_seed(0)
    tiny_dolg = DOLG(Backbone("resnet18", pretrained=False), hidden=32, dim=16).eval()
    a, b = (torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    ours, theirs = parts_of(tiny_dolg, a), parts_of(tiny_dolg, b)
    assert ours is not None
    assert theirs is not None
    with torch.inference_mode():
        da, db = tiny_dolg(a)[0].double(), tiny_dolg(b)[0].double()
    torch.testing.assert_close(ours.whole, da, atol=1e-5, rtol=1e-5)
    terms = similarity_terms(ours, theirs)
    assert sum(terms) == pytest.approx(float(torch.cosine_similarity(da, db, dim=0)), abs=1e-6)
    weight, hidden = tiny_dolg.fc.weight.double(), tiny_dolg.fc_global.out_features
    with torch.no_grad():
        fa, fb = (tiny_dolg.fused(tiny_dolg.backbone(image))[0].double() for image in (a, b))
        both = (weight[:, :hidden] @ fa[:hidden]) @ (weight[:, :hidden] @ fb[:hidden])
    assert terms.global_ == pytest.approx(float(both / (da.norm() * db.norm())), abs=1e-6)
    assert abs(terms.local) > 1e-6


def test_a_network_without_a_local_branch_has_the_terms_of_its_layer() -> None:
    torch.manual_seed(0)
    network = GlobalDescriptor(Backbone("resnet18", pretrained=False), dim=16).eval()
    assert network.fc is not None
    a, b = (torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    ours, theirs = parts_of(network, a), parts_of(network, b)
    assert ours is not None
    assert theirs is not None
    terms = similarity_terms(ours, theirs)
    with torch.inference_mode():
        da, db, bias = network(a)[0].double(), network(b)[0].double(), network.fc.bias.double()
    norms = da.norm() * db.norm()
    assert terms.local is None
    assert terms.cross is None
    assert terms.global_ == pytest.approx(float((da - bias) @ (db - bias) / norms), abs=1e-6)
    assert terms.bias == pytest.approx(float(da @ db / norms) - terms.global_, abs=1e-6)


def test_the_common_folder_is_found() -> None:
    def folder_of(*names: str) -> str:
        return common_folder([Answer(Photo(name, 1, 1), 1.0) for name in names])

    assert folder_of("/a/bc/1.jpg", "/a/bd/2.jpg") == "/a/"
    assert folder_of("s3://x/1.jpg", "/a/2.jpg") == ""
    assert folder_of("/a/1.jpg") == "/a/"
    assert folder_of() == ""


def test_several_scales_have_no_terms(loaded: LoadedExtractor, library: str, folder: Path) -> None:
    engine = SearchEngine(library)
    query = photo_pixels(str(folder / "a" / "0.jpg"), 64)
    (answers,) = engine.search([query], 1)
    assert engine.explain(query, answers[0]).terms is not None
    engine.loaded = LoadedExtractor(loaded.describer, {**loaded.identity, "scales": [0.7071, 1.0]})
    assert engine.explain(query, answers[0]).terms is None


def test_the_network_is_free_between_the_photos(library: str, folder: Path) -> None:
    engine, turns = SearchEngine(library), []

    def take_turn(work: Callable[[], object]) -> object:
        turns.append(work)
        return work()

    query = photo_pixels(str(folder / "a" / "0.jpg"), 64)
    (answers,) = engine.search([query], 1)
    assert engine.explain(query, answers[0], take_turn).picture == engine.explain(query, answers[0]).picture
    assert len(turns) == 2
