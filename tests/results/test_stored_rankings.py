"""Figures of every benchmark, recomputed from stored rankings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from data.benchmarks import layouts
from dolglab.contracts import Benchmark, Ranked, Ranking
from dolglab.data.benchmarks.disc21 import disc21_benchmark
from dolglab.data.benchmarks.holidays import holidays_benchmark
from dolglab.data.benchmarks.ilias import ilias_benchmark
from dolglab.data.benchmarks.instre import instre_benchmark
from dolglab.data.benchmarks.met import met_benchmark
from dolglab.data.benchmarks.places import msls_benchmark, places_benchmark
from dolglab.data.benchmarks.products import products_benchmark
from dolglab.data.gldv2_benchmarks import GLDv2Recognition, GLDv2Retrieval
from dolglab.errors import UserError
from dolglab.results.card import make_card, read_card, write_card
from dolglab.results.stored_rankings import digest_of, rankings_file, read_rankings, stored_arrays, write_rankings
from dolglab.results.verification import verify
from dolglab.retrieval.ranking import exact_ranking


def gldv2(kind: str, root: Path) -> Benchmark:
    """Three queries: one is in the private half; the last shows no landmark and only counts in GAP."""
    found = places_benchmark(layouts.places(root), "small")
    usages = np.array(["public", "private", "public" if kind == "GAP" else "ignored"])
    shown = (frozenset({3, 7}), frozenset({7}), frozenset())
    recognition = GLDv2Recognition(usages, np.array([3, 3, 7, 9, 7]), shown, 2)
    measure = recognition if kind == "GAP" else GLDv2Retrieval(usages, 3)
    return replace(found, measure=measure, difficulties=("public", "private"))


BENCHMARKS: dict[str, Callable[[Path], Benchmark]] = {
    "ilias": lambda root: ilias_benchmark(layouts.ilias(root), "full"),
    "ilias groups": lambda root: ilias_benchmark(layouts.ilias(root), groups=True),
    "places": lambda root: places_benchmark(layouts.places(root), "small"),
    "msls": lambda root: msls_benchmark(layouts.msls(root), "msls"),
    "instre": lambda root: instre_benchmark(layouts.instre(root)),
    "holidays": lambda root: holidays_benchmark(layouts.holidays(root)),
    "met": lambda root: met_benchmark(layouts.met(root)),
    "disc21": lambda root: disc21_benchmark(layouts.disc21(root)),
    "sop": lambda root: products_benchmark(layouts.products(root)),
    "gldv2 retrieval": partial(gldv2, "mAP@100"),
    "gldv2 recognition": partial(gldv2, "GAP"),
}


@pytest.fixture(params=BENCHMARKS)
def ranking(request: pytest.FixtureRequest, tmp_path: Path) -> Ranking:
    """Rankings of random descriptors with some equal scores; each difficulty has a different first answer."""
    benchmark = BENCHMARKS[request.param](tmp_path / "images")
    measure, truth = benchmark.measure, benchmark.ground_truth
    rng = np.random.default_rng(1)

    def ranked() -> Ranked:
        descriptors = rng.integers(-1, 3, (len(benchmark.source), 4)).astype(np.float32)
        gallery = descriptors[: benchmark.num_gallery]
        return exact_ranking(gallery, descriptors[benchmark.queries], measure.ground_truth_ids(truth), len(gallery))

    rankings = dict.fromkeys(benchmark.difficulties, ranked())
    figures = measure.figures(truth, rankings)
    top = next(iter(rankings.values())).top_k
    return Ranking(benchmark=benchmark, top=top, rankings=rankings, **vars(figures))


def test_figures_are_reproduced(ranking: Ranking, tmp_path: Path) -> None:
    path = write_rankings(tmp_path, ranking)
    assert path is not None
    stored = read_rankings(path)
    assert stored.digest == digest_of(stored_arrays(ranking))
    assert stored.figures.answers == ranking.answers
    assert stored.figures.notes == ranking.notes
    assert list(stored.figures.evaluation) == list(ranking.evaluation)
    for difficulty, scores in ranking.evaluation.items():
        for name, value in scores.items():
            np.testing.assert_array_equal(stored.figures.evaluation[difficulty][name], value)


def test_a_card_is_reproduced_until_card_or_rankings_are_edited(ranking: Ranking, tmp_path: Path) -> None:
    card = make_card(name="run", method="GeM", rankings=[ranking], protocol={}, checkpoint=None, config={})
    path, name = write_card(card, tmp_path / "card.json"), ranking.benchmark.name
    file = rankings_file(tmp_path, name)
    assert not verify(path)
    write_rankings(tmp_path, ranking)
    assert verify(path)

    edited = read_card(path)
    difficulty = next(d for d, value in edited["benchmarks"][0]["map"].items() if value is not None)
    edited["benchmarks"][0]["map"][difficulty] += 0.01
    assert not verify(write_card(edited, tmp_path / "edited.json"))

    # Slightly lower scores hardly change a figure, but are not those of the card.
    with np.load(file) as kept:
        arrays = dict(kept)
    np.savez_compressed(file, **{**arrays, "scores.0": arrays["scores.0"] - np.float32(0.25)})
    assert not verify(path)


def test_a_measure_of_a_missing_package_is_named(ranking: Ranking, tmp_path: Path) -> None:
    file = write_rankings(tmp_path, ranking)
    assert file is not None
    with np.load(file) as kept:
        np.savez(file, **{**kept, "measure": np.asarray("Path")})
    with pytest.raises(UserError, match="Path"):
        read_rankings(file)
