"""The bootstrap compared with a loop, and with known properties of means."""

import numpy as np
import pytest

from dolglab.bootstrap import difference, interval


def test_the_interval_equals_a_plain_loop():
    ap = np.random.default_rng(1).random(23)
    generator = np.random.default_rng(7)
    draws = generator.integers(23, size=(500, 23))
    means = sorted(sum(ap[query] for query in draw) / 23 for draw in draws.tolist())
    assert interval(ap, draws=500, seed=7, level=0.9) == pytest.approx(
        (np.quantile(means, 0.05), np.quantile(means, 0.95)), abs=1e-12
    )


def test_the_interval_is_close_to_another_library():
    stats = pytest.importorskip("scipy.stats")
    ap = np.random.default_rng(2).beta(2, 1, 70)
    other = stats.bootstrap((ap,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(3))
    expected = (other.confidence_interval.low, other.confidence_interval.high)
    assert interval(ap, draws=5000) == pytest.approx(expected, abs=0.006)


def test_the_difference_draws_the_same_queries_for_both():
    generator = np.random.default_rng(4)
    first, second = generator.random(30), generator.random(30)
    picked = np.random.default_rng(0).integers(30, size=(2000, 30))
    means = first[picked].mean(1) - second[picked].mean(1)
    mean, low, high = difference(first, second)
    assert mean == pytest.approx(first.mean() - second.mean())
    assert (low, high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=1e-12)


def test_paired_differences_are_more_sensitive_than_two_intervals():
    hard_and_easy = np.random.default_rng(5).random(70)
    better = hard_and_easy + 0.01
    mean, low, high = difference(better, hard_and_easy)
    assert (mean, low, high) == pytest.approx((0.01, 0.01, 0.01))
    assert interval(better)[0] < interval(hard_and_easy)[1]
    assert difference(hard_and_easy, better) == pytest.approx((-mean, -high, -low))


def test_queries_left_out_do_not_count():
    ap = [0.2, None, 0.9, float("nan"), 0.4]
    assert interval(ap) == interval([0.2, 0.9, 0.4])
    assert difference(ap, [0.1, 0.5, None, 0.5, 0.2])[0] == pytest.approx(0.15)


def test_equal_queries_have_an_interval_without_width():
    assert interval([0.5] * 9) == (0.5, 0.5)


@pytest.mark.parametrize("ap", [[], [0.5], [None, 0.5], [None, None]])
def test_fewer_than_two_queries_have_no_interval(ap):
    assert np.isnan(interval(ap)).all()
    mean, low, high = difference(ap, [0.25] * len(ap))
    assert np.isnan([low, high]).all()
    assert mean == 0.25 if 0.5 in ap else np.isnan(mean)


def test_intervals_are_reproducible_with_any_chunk_size():
    ap = np.random.default_rng(6).random(40)
    whole = interval(ap)
    assert interval(ap) == whole
    assert interval(ap, seed=1) != whole
    assert interval(ap, chunk=90) == pytest.approx(whole, abs=1e-12)


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"3 .* 2"):
        difference([0.1, 0.2, 0.3], [0.1, 0.2])
