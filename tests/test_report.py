import json
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from dolglab.commands.report import main
from dolglab.errors import UserError
from dolglab.results.card import make_card
from dolglab.results.pictures import write_pictures
from dolglab.results.report import card_paths
from warm_python import run_python

PROJECT = Path(__file__).parents[1]


def write_run(folder, method, time, **more):
    card = make_card(
        name=folder.name, method=method, rankings=[], protocol={"image_size": 64}, checkpoint=None, config={}
    )
    benchmark = {
        "name": "toy",
        "digest": "0" * 16,
        "queries": 1,
        "boxes": 0,
        "gallery": 4,
        "crop": "none",
        "difficulties": ["medium"],
        "map": {"medium": 0.5},
        "mp_at_k": {"medium": {"1": 1.0}},
        "ap": {"medium": [0.5]},
        **more,
        "bad_images": [],
        "seconds": 0.1,
    }
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps({**card, "time": time, "benchmarks": [benchmark]}))


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path / "runs" / "a", "later", "2025-02-01T00:00:00+00:00")
    write_run(tmp_path / "runs" / "b", "earlier", "2025-01-01T00:00:00+00:00")
    (tmp_path / "runs" / "a" / "metrics.csv").write_text("epoch,step,train/loss\n0,1,2.0\n0,2,1.0\n")
    return tmp_path / "runs"


def report(cards, out, *options):
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        page = main(compose("report", overrides=[f"cards={cards}", f"out={out}", *options]))
    assert page is not None
    return page


def test_the_description_begins_the_page_and_ends_the_output(runs, tmp_path, capsys):
    page = report(runs / "*/card.json", tmp_path / "out", "about=['Two of <them>.','And more.']")
    assert capsys.readouterr().out.endswith(f"Two of <them>.\nAnd more.\npage: {page}\n")
    html = page.read_text()
    assert html.index("Two of &lt;them&gt;.") < html.index("And more.") < html.index("<table>")
    table = (tmp_path / "out" / "table.md").read_text()
    assert table.index("And more.") < table.index("| method |")


def test_a_report_compares_two_runs(runs, tmp_path, capsys):
    page = report(runs / "*/card.json", tmp_path / "out")
    assert page == tmp_path / "out" / "report.html"
    printed = capsys.readouterr().out
    assert printed.index("earlier") < printed.index("later")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(run["method"], run["benchmarks"][0]["map"]) for run in results] == [
        ("earlier", {"medium": 0.5}),
        ("later", {"medium": 0.5}),
    ]
    assert "ap" not in results[0]["benchmarks"][0]
    html = page.read_text()
    assert "Training, chart: Loss by step" in html
    assert '<tr><th scope="row">1</th><td>2</td></tr>' in html
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| earlier | **50.00** (–) |\n| later | **50.00** (–) |" in table  # noqa: RUF001
    assert "Published" not in table
    assert r"earlier & \textbf{50.00} \\" in (tmp_path / "out" / "table.tex").read_text()


def test_all_origins_in_cards_are_reported(tmp_path, capsys):
    recall = [1 - step / 200 for step in range(101)]
    for name, seconds, notes in (("a", 0.02, []), ("b", 0.2, ["oracle shortlist"])):
        write_run(
            tmp_path / name,
            f"method {name}",
            f"2025-01-01T00:00:0{len(notes)}+00:00",
            notes=notes,
            stages={"rerank": "spatial"} if notes else {},
            costs={"image_seconds": seconds},
            precision_recall={"medium": recall},
            lookalikes={"wrong": 4.0, "siblings": seconds},
            ap={"medium": [0.4, 0.6, None]},
        )
    write_pictures(tmp_path / "b", [("matches of query 1", b"\xff\xd8")])
    out = tmp_path / "out"
    html = report(tmp_path / "*" / "card.json", out, "published=true", "against=a").read_text()
    printed = capsys.readouterr().out
    table, latex = (out / "table.md").read_text(), (out / "table.tex").read_text()
    for text in (html, printed, table, latex):
        assert "oracle shortlist" in text
        assert "rerank spatial" in text
        assert "Difference to method a, percentage points" in text
        assert "What it costs" in text
        assert "Wrong answers among the first ten, per query" in text
        assert "Published, on ROxford5k / RParis6k (not measured here)" in text
        assert "R101-DELG + SP, GLDv2-clean" in text
    assert "Precision and recall, chart: toy" in html
    assert "Accuracy and cost, chart: toy: mAP against time per image" in html
    assert 'alt="method b: matches of query 1"' in html
    assert sorted(path.name for path in (out / "figures").iterdir()) == [
        "accuracy_and_cost_toy_map_against_time_per_image.svg",
        "figures_and_intervals_toy_map.svg",
        "precision_and_recall_toy.svg",
    ]
    (short,) = json.loads((out / "results.json").read_text())[1]["benchmarks"]
    assert short["map_interval_95"] == {"medium": [0.4, 0.6]}
    assert (short["notes"], short["stages"]) == (["oracle shortlist"], {"rerank": "spatial"})
    assert (short["costs"], short["lookalikes"]) == ({"image_seconds": 0.2}, {"wrong": 4.0, "siblings": 0.2})


def test_pictures_are_of_each_method_the_best_first(tmp_path):
    for name, figure in (("a", 0.3), ("b", 0.9), ("c", 0.5)):
        write_run(
            tmp_path / name, f"method {name}", f"2025-01-0{ord(name) - 96}T00:00:00+00:00", map={"medium": figure}
        )
        write_pictures(tmp_path / name, [("attention", b"\xff\xd8")])
    html = report(tmp_path / "*" / "card.json", tmp_path / "out").read_text()
    assert re.findall(r'alt="method (.): attention"', html) == ["b", "c", "a"]


def test_against_must_name_a_row(runs, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        report(runs / "*", tmp_path / "out", "against=3")
    error = capsys.readouterr().err
    assert error.startswith("error: against=3 ")
    assert error.endswith(" b, a\n")
    assert not (tmp_path / "out").exists()


def test_cards_by_list_folder_and_file_are_each_used_once(runs):
    found = card_paths([str(runs / "b"), str(runs / "*"), str(runs / "a" / "card.json")])
    assert found == [runs / "b" / "card.json", runs / "a" / "card.json"]


def test_a_killed_run_is_reported_and_left_out(runs, capsys):
    (runs / "killed").mkdir()
    (runs / "killed" / "metrics.csv").write_text("epoch,step,train/loss\n0,1,2.0\n")
    assert len(card_paths([str(runs / "*")])) == 2
    assert str(runs / "killed") in capsys.readouterr().err
    with pytest.raises(UserError, match="killed"):
        card_paths([str(runs / "killed")])


def test_a_report_of_hundreds_of_runs_stays_small(tmp_path):
    for place in range(200):
        run = tmp_path / "runs" / f"{place:03}"
        write_run(
            run, f"method {place}", "2025-01-01T00:00:00+00:00", map={"medium": place / 200}, ap={"medium": [0.5]}
        )
        (run / "metrics.csv").write_text("epoch,step,train/loss\n" + "".join(f"0,{s},{s}\n" for s in range(50)))
        write_pictures(run, [("matches of query 1", b"\xff\xd8" + bytes(100_000))])
    page = report(tmp_path / "runs" / "*", tmp_path / "out")
    assert page.stat().st_size < 12_000_000
    assert "the first 12 of 200 runs" in page.read_text()


def test_a_folder_named_like_a_pattern_is_found(runs):
    (runs / "a").rename(runs / "run[1]")
    assert card_paths([str(runs / "run[1]")]) == [runs / "run[1]" / "card.json"]


def test_cards_are_required(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        report("null", tmp_path)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "cards=" in error
    assert error.count("\n") == 1


def test_a_missing_card_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "*"))):
        card_paths([str(tmp_path / "*")])


@pytest.mark.process
def test_the_command_writes_only_its_report(runs, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    done = run_python(["-m", "src.report", f"cards=[{runs}/a,{runs}/b]"], cwd=work, PYTHONPATH=str(PROJECT))
    assert done.returncode == 0, done.stderr
    assert "50.00" in done.stdout
    assert "outputs/report/report.html" in done.stdout
    left = sorted(path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file())
    names = ["figures/figures_and_intervals_toy_map.svg", "report.html", "results.json", "table.md", "table.tex"]
    assert left == [f"outputs/report/{name}" for name in names]
