"""Bootstrap, permutation and jackknife, held to scipy and to plain loops."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pytest
import scipy.stats

from adaptlab.metrics import _base, classification
from adaptlab.report.resampling import (
    jackknife_values,
    mean_interval,
    mean_interval_over_seeds,
    paired_bootstrap,
    permutation_p,
    score_interval,
    score_of_rows,
)

RNG = np.random.default_rng(7)
GOLD = RNG.standard_normal(120)
GUESS = GOLD + 0.6 * RNG.standard_normal(120)
OTHER = GOLD + 0.9 * RNG.standard_normal(120)


def correlation(guess: np.ndarray, rows: np.ndarray) -> float:
    return float(np.corrcoef(GOLD[rows], guess[rows])[0, 1])


def score_of(guess: np.ndarray):  # type: ignore[no-untyped-def]
    return score_of_rows(partial(correlation, guess))


def answers(right: np.ndarray, gold: np.ndarray) -> _base.Answers:
    return _base.Answers(gold=gold, predicted=np.where(right, gold, 1 - gold), probabilities=None, classes=2)


def test_the_interval_of_an_accuracy_is_the_binomial_s() -> None:
    right = np.arange(400) < 360
    low, high = mean_interval(right, resamples=20_000)
    expected = scipy.stats.binom.ppf([0.025, 0.975], 400, 0.9) / 400
    assert (low, high) == pytest.approx(tuple(expected), abs=1.5 / 400)


def test_the_interval_of_a_mean_is_scipy_s_percentile_interval() -> None:
    values = np.random.default_rng(1).exponential(size=150)  # all different: no two items are put together
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=2)
    ours = mean_interval(values, resamples=20_000)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)
    narrow, wide = mean_interval(values, level=0.5), mean_interval(values, level=0.99)
    assert wide[0] < ours[0] < narrow[0] < narrow[1] < ours[1] < wide[1]


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(1).random(50)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3) != mean_interval(values, seed=4)


@pytest.mark.parametrize("binary", [True, False])
def test_seeds_and_items_are_drawn_independently(binary: bool) -> None:
    rng = np.random.default_rng(4)
    scores = rng.random(60) + 0.5 * rng.random((4, 1)) + 0.3 * rng.random((4, 60))
    if binary:
        scores = (scores > 0.8).astype(float)
    plain = []
    for _ in range(8000):
        seeds, items = rng.integers(4, size=3), rng.integers(60, size=60)
        plain.append(scores[np.ix_(seeds, items)].mean())
    expected = np.quantile(plain, [0.025, 0.975])
    assert mean_interval_over_seeds(scores, resamples=8000) == pytest.approx(tuple(expected), abs=0.012)


def test_the_seeds_widen_the_interval() -> None:
    rng = np.random.default_rng(5)
    scores = (rng.random((5, 400)) < np.array([[0.5], [0.9], [0.6], [0.8], [0.7]])).astype(float)
    both, items = mean_interval_over_seeds(scores), mean_interval(scores.mean(axis=0))
    assert both[1] - both[0] > 2 * (items[1] - items[0])
    with pytest.raises(ValueError, match="two seeds"):
        mean_interval_over_seeds(scores[:1])


@pytest.mark.parametrize("many_alike", [True, False])
def test_the_permutation_test_is_the_exact_one(many_alike: bool) -> None:
    rng = np.random.default_rng(6)
    differences = rng.choice([-1.0, 2.0, 0.0], size=80) if many_alike else rng.normal(0.4, 1, size=14)
    if many_alike:
        differences = np.concatenate([differences, np.zeros(20)])
        expected = scipy.stats.permutation_test(
            (differences,), np.sum, permutation_type="samples", n_resamples=50_000, rng=1
        ).pvalue
    else:
        sums = np.array(list(product((-1, 1), repeat=14))) @ np.abs(differences)
        expected = np.mean(np.abs(sums) >= abs(differences.sum()) - 1e-9)
    assert permutation_p(differences, resamples=50_000) == pytest.approx(expected, abs=0.01)


def test_a_permutation_p_is_never_zero_and_one_without_differences() -> None:
    assert permutation_p(np.full(100, 0.5), resamples=999) == 1 / 1000
    assert permutation_p(np.zeros(10)) == 1.0


def test_the_paired_bootstrap_is_scipy_s() -> None:
    ours = paired_bootstrap(score_of(GUESS), score_of(OTHER), 120, resamples=4000)
    theirs = scipy.stats.bootstrap(
        (np.arange(120),),
        lambda rows: correlation(GUESS, rows) - correlation(OTHER, rows),
        method="percentile",
        vectorized=False,
        n_resamples=4000,
        rng=1,
    )
    assert ours.difference == pytest.approx(correlation(GUESS, np.arange(120)) - correlation(OTHER, np.arange(120)))
    assert ours.interval == pytest.approx(tuple(theirs.confidence_interval), abs=0.015)
    beyond = 2 * np.mean(theirs.bootstrap_distribution <= 0)
    assert ours.p == pytest.approx(beyond, abs=0.02)
    assert ours.undefined == 0


def test_a_model_does_not_differ_from_itself() -> None:
    same = paired_bootstrap(score_of(GUESS), score_of(GUESS), 120, resamples=200)
    assert (same.difference, same.p, same.interval) == (0, 1, (0, 0))


def test_resamples_without_a_value_are_counted() -> None:
    def sometimes(counts: np.ndarray) -> np.ndarray:
        return np.where(counts[:, 0] == 0, np.nan, counts @ np.arange(10.0))

    def never(counts: np.ndarray) -> np.ndarray:
        return np.full(len(counts), np.nan)

    found = paired_bootstrap(sometimes, lambda counts: np.zeros(len(counts)), 10, resamples=2000)
    assert found.undefined == pytest.approx(2000 * 0.9**10, abs=100)
    assert np.isfinite(found.interval).all()
    assert paired_bootstrap(never, never, 10, resamples=50).undefined == 50
    assert np.isfinite(score_interval(sometimes, 10)).all()


def test_the_metrics_of_the_package_are_scores() -> None:
    rng = np.random.default_rng(8)
    gold = rng.integers(0, 2, size=300)
    metric = next(plugin for plugin in classification.plugins if plugin.name == "f1")
    one, other = answers(rng.random(300) < 0.95, gold), answers(rng.random(300) < 0.6, gold)
    found = paired_bootstrap(partial(metric.resampled, one), partial(metric.resampled, other), 300)
    assert found.difference == pytest.approx(metric.compute(one) - metric.compute(other))
    assert found.p < 0.01
    low, high = score_interval(partial(metric.resampled, one), 300)
    assert low < metric.compute(one) < high


def test_jackknife_values_of_a_mean_are_the_items_own() -> None:
    values = np.random.default_rng(9).random(40)
    found = jackknife_values(lambda counts: counts @ values / counts.sum(axis=1), 40)
    assert found == pytest.approx(values)


def test_jackknife_values_leave_each_item_out_once_and_have_the_metric_as_their_mean() -> None:
    found = jackknife_values(score_of(GUESS), 120)
    whole = correlation(GUESS, np.arange(120))
    without = np.array([correlation(GUESS, np.delete(np.arange(120), item)) for item in range(120)])
    plain = 120 * whole - 119 * without
    assert found.mean() == pytest.approx(whole)
    assert found - found.mean() == pytest.approx(plain - plain.mean())
    # Their spread is that of the metric: the jackknife's standard error against the bootstrap's.
    bootstrap = scipy.stats.bootstrap(
        (np.arange(120),), partial(correlation, GUESS), vectorized=False, n_resamples=1000, rng=1, method="percentile"
    )
    assert found.std(ddof=1) / np.sqrt(120) == pytest.approx(bootstrap.standard_error, rel=0.1)
