"""A sweep's table and chart, from the folders of its jobs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from dolglab.io import write_text
from dolglab.results.card import write_card
from dolglab.sweeps.summary import Job, best_means, means, read_jobs, write_comparison, write_table


@pytest.fixture
def add_job(make_card_of, make_ranking):
    """A factory of job folders in a sweep, with settings and validation mAP (None if the job failed)."""

    def add(sweep: Path, number: int, swept: dict[str, str], score: float | None) -> None:
        folder = sweep / f"{number}_x"
        about = {"status": "failed" if score is None else "done", "reason": "no, memory" if score is None else ""}
        write_text(folder / "job.json", json.dumps({**about, "swept": swept}))
        if score is not None:
            card = make_card_of("DOLG", make_ranking(maps=(0.9, 0.75, 0.5)))
            card["validation_map"] = score
            write_card(card, folder / "card.json")

    return add


def test_the_table_has_a_row_per_job_in_numerical_order(tmp_path, add_job):
    for number, score in ((10, 0.5), (2, None), (9, 0.25)):
        add_job(tmp_path, number, {"margin.margin": str(number)}, score)
    with write_table(tmp_path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["job"] for row in rows] == ["2_x", "9_x", "10_x"]
    assert [row["margin.margin"] for row in rows] == ["2", "9", "10"]
    assert [row["status"] for row in rows] == ["failed", "done", "done"]
    assert [row["validation"] for row in rows] == ["", "25.00", "50.00"]
    assert [row["toy medium"] for row in rows] == ["", "75.00", "75.00"]
    assert rows[0]["reason"] == "no, memory"


def test_heat_maps_show_means_over_seeds_and_the_best_over_other_settings():
    jobs = [
        Job(Path(), {"m": m, "p": p, "seed": seed, "lr": lr}, "done", score=score)
        for m, p, seed, lr, score in [
            ("0.1", "3", "0", "1", 0.2),
            ("0.1", "3", "1", "1", 0.4),
            ("0.1", "3", "0", "2", 0.5),
            ("0.1", "3", "1", "2", 0.2),
            ("0.1", "10", "0", "1", 0.1),
        ]
    ]
    assert means(jobs, ["m", "p", "lr"])["0.1", "3", "2"] == pytest.approx(35)
    down, across, cells = best_means(jobs, ["m", "p", "lr"])
    assert (down, across) == (["0.1"], ["3", "10"])
    np.testing.assert_allclose(cells, [[35, 10]])


@pytest.mark.parametrize(
    ("varied", "shown"),
    [
        ([{"m": "0.1"}, {"m": "0.2"}], ["validation mAP (Medium), %", "0.2"]),
        ([{"m": "a", "p": "1"}, {"m": "b", "p": "2"}], ["25.00", "50.00"]),
        ([{"m": "a", "p": "1", "o": "x", "seed": "1"}, {"m": "b", "p": "2", "o": "y", "seed": "2"}], ["seeds", "best"]),
    ],
)
def test_the_comparison_shows_varied_settings(tmp_path, add_job, varied, shown):
    for number, (swept, score) in enumerate(zip(varied, (0.25, 0.5), strict=True)):
        add_job(tmp_path, number, swept, score)
    path = write_comparison(read_jobs(tmp_path), tmp_path)
    assert path is not None
    text = path.read_text()
    for words in shown:
        assert words in text


def test_nothing_is_drawn_without_differences_or_validation(tmp_path, add_job):
    add_job(tmp_path, 0, {"seed": "0"}, 0.5)
    add_job(tmp_path, 1, {"seed": "1"}, 0.5)
    add_job(tmp_path, 2, {"m": "1"}, None)
    assert write_comparison(read_jobs(tmp_path), tmp_path) is None
    assert write_comparison([], tmp_path) is None
