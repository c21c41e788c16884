"""GLDv2's two figures compared with independently computed values, and with a plain loop."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from dolglab.data.gldv2_benchmarks import read_recognition_solution, read_retrieval_solution
from dolglab.errors import UserError
from dolglab.measures import gldv2_map_at_k, global_average_precision

USAGES = ("Public", "Private")


@pytest.mark.parametrize("usage", USAGES)
def test_both_figures_equal_reference_values(parity: Path, usage: str) -> None:
    folder = parity / "gldv2"
    expected = json.loads((folder / "expected.json").read_text())[usage]
    retrieval = read_retrieval_solution(folder / "retrieval_solution_v2.1.csv")[usage]
    assert len(retrieval) == expected["queries"]
    ranked = json.loads((folder / "retrieval_predictions.json").read_text())
    assert gldv2_map_at_k(ranked, retrieval) == pytest.approx(expected["map_at_100"], abs=1e-9)
    recognition = read_recognition_solution(folder / "recognition_solution_v2.1.csv")[usage]
    answers = json.loads((folder / "recognition_predictions.json").read_text())
    pairs = {image: (answer["class"], answer["score"]) for image, answer in answers.items()}
    assert global_average_precision(pairs, recognition) == pytest.approx(expected["gap"], abs=1e-9)


def plain_ap(answers: list[str], positives: set[str], k: int) -> float:
    seen: set[str] = set()
    hits, total = 0, 0.0
    for rank in range(min(k, len(answers))):
        if answers[rank] in seen:
            continue
        seen.add(answers[rank])
        if answers[rank] in positives:
            hits += 1
            total += hits / (rank + 1)
    return total / min(len(positives), k)


@pytest.mark.parametrize("k", [1, 3, 100])
def test_map_equals_a_plain_loop(k: int) -> None:
    rng = random.Random(0)
    names = [f"{n:016x}" for n in range(30)]
    solution = {f"q{n}": set(rng.sample(names, rng.randint(1, 12))) for n in range(20)}
    predictions = {query: rng.choices(names, k=rng.randint(0, 40)) for query in list(solution)[3:]}
    expected = sum(plain_ap(predictions.get(q, []), p, k) for q, p in solution.items()) / len(solution)
    assert gldv2_map_at_k({**predictions, "other": names}, solution, k) == pytest.approx(expected, abs=1e-12)


def test_gap_equals_a_computation_by_hand() -> None:
    solution = {"a": {1}, "b": {2, 3}, "c": set(), "d": {4}}
    # b right, c wrong, a wrong; d has no answer, and e is not in the set.
    predictions = {"a": (9, 0.1), "b": (3, 0.9), "c": (1, 0.5), "e": (1, 1.0)}
    assert global_average_precision(predictions, solution) == pytest.approx(1 / 3)
    # With equal scores the smaller image id comes first.
    assert global_average_precision({"a": (1, 0.5), "b": (9, 0.5)}, solution) == pytest.approx(1 / 3)
    assert global_average_precision({"a": (9, 0.5), "b": (2, 0.5)}, solution) == pytest.approx(1 / 6)


def test_undefined_figures_are_refused() -> None:
    for solution in ({}, {"q": set()}):
        with pytest.raises(UserError, match="retrieval"):
            gldv2_map_at_k({}, solution)
        with pytest.raises(UserError, match="recognition"):
            global_average_precision({}, solution)
    with pytest.raises(UserError, match="score"):
        global_average_precision({"a": (1, float("nan"))}, {"a": {1}})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("id,images,Usage\n1,,Public\n", "id,landmarks,Usage"),
        ("", "id,landmarks,Usage"),
        ("id,landmarks,Usage\n1,x,Public\n", "image 1: 'x'"),
        ("id,landmarks,Usage\n1,2,public\n", "usage 'public'"),
        ("id,landmarks,Usage\n1,2,Public\n1,3,Private\n", "image 1 "),
        ("id,landmarks,Usage\n1,2\n", "usage ''"),
    ],
)
def test_a_solution_of_another_form_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=why):
        read_recognition_solution(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"gone\.csv"):
        read_retrieval_solution(tmp_path / "gone.csv")


def test_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("\ufeffid,images,Usage\r\n1,2 3,Public\r\n4,None,Ignored\r\n".encode())
    found = read_retrieval_solution(tmp_path / "a.csv")
    assert found == {"Public": {"1": frozenset({"2", "3"})}, "Private": {}, "Ignored": {"4": frozenset()}}
