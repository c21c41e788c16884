import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from src.errors import InputError
from src.report import card_paths, main
from src.results.card import make_card

PROJECT = Path(__file__).parents[1]


def write_run(folder, method, time):
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
    (tmp_path / "runs" / "b" / "grids").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "runs" / "b" / "grids" / "toy.jpg")
    return tmp_path / "runs"


def report(cards, out):
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        return main(compose("report", overrides=[f"cards={cards}", f"out={out}"]))


def test_a_report_of_two_runs(runs, tmp_path, capsys):
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
    assert "<figcaption>later: Loss</figcaption>" in html
    assert "<figcaption>earlier: toy</figcaption>" in html
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| earlier | **50.00** |\n| later | **50.00** |" in table


def test_cards_by_list_folder_and_file_are_each_taken_once(runs):
    found = card_paths([str(runs / "b"), str(runs / "*"), str(runs / "a" / "card.json")])
    assert found == [runs / "b" / "card.json", runs / "a" / "card.json"]


def test_a_folder_called_like_a_pattern_is_itself(runs):
    (runs / "a").rename(runs / "run[1]")
    assert card_paths([str(runs / "run[1]")]) == [runs / "run[1]" / "card.json"]


def test_cards_must_be_named(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        report("null", tmp_path)
    assert capsys.readouterr().err == "error: say which cards to compare, such as cards='outputs/demo/*/card.json'\n"


def test_no_card_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no result card at"):
        card_paths([str(tmp_path / "*")])


def test_the_command_leaves_nothing_but_its_report(runs, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    command = [sys.executable, "-m", "src.report", f"cards=[{runs}/a,{runs}/b]"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "50.00" in done.stdout
    assert sorted(path.name for path in work.iterdir()) == ["report.html", "results.json", "table.md"]
