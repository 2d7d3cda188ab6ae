"""The method test keeps its level where the truth is known: part of the grid of benchmarks/statistics_simulation.py."""

from __future__ import annotations

import numpy as np
import pytest

from adaptlab.report.significance import compare_all, compare_methods, tied_with_best
from benchmarks.statistics_simulation import LIMITS, Method, fires, simulated, welch_p

STUDIES = 2000
ITEMS = 400


@pytest.mark.parametrize("seeds", [5, 3])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Method(0.85, 0.005), Method(0.85, 0.005)),
        (Method(0.92, 0.015, affinity_std=2.0), Method(0.92, 0.015, affinity_std=2.0)),
        (Method(0.90, 0.005, affinity_std=2.0), Method(0.90, 0.015, affinity_std=0.5)),
        (Method(0.88, 0.010, affinity_std=0.0), Method(0.88, 0.010, affinity_std=0.0)),
    ],
)
def test_without_a_true_difference_it_rarely_fires(first: Method, second: Method, seeds: int) -> None:
    pairs = simulated(np.random.default_rng(1), (first, second), (seeds, seeds), ITEMS, STUDIES)
    rate = np.mean([fires(compare_methods(a, b)) for a, b in pairs])
    low, high = LIMITS[seeds]
    assert low <= rate <= high


def test_a_test_that_forgets_the_items_would_be_noticed() -> None:
    method = Method(0.92, 0.005, affinity_std=2.0)
    pairs = simulated(np.random.default_rng(2), (method, method), (5, 5), ITEMS, STUDIES)
    rate = np.mean([welch_p(a.mean(axis=1), b.mean(axis=1)) < 0.05 for a, b in pairs])
    assert rate > 2 * LIMITS[5][1]


def test_the_simulated_studies_are_what_they_are_said_to_be() -> None:
    method = Method(0.9, 0.015, affinity_std=1.0)
    answers = [runs for (runs,) in simulated(np.random.default_rng(3), (method,), (4,), 20_000, 100)]
    means = np.array([runs.mean(axis=1) for runs in answers])
    assert means.mean() == pytest.approx(0.9, abs=0.002)
    assert means.std(axis=1, ddof=1).mean() == pytest.approx(0.015, abs=0.002)


def test_pairs_find_more_where_the_seeds_go_together_and_no_test_fires_too_often() -> None:
    same, better = Method(0.88, 0.015), Method(0.91, 0.015)

    def rate(second: Method, paired: bool) -> float:
        pairs = simulated(np.random.default_rng(4), (same, second), (5, 5), ITEMS, STUDIES, shared_seeds=0.8)
        return float(np.mean([fires(compare_methods(a, b, paired=paired)) for a, b in pairs]))

    assert max(rate(same, paired=True), rate(same, paired=False)) <= LIMITS[5][1]
    assert rate(better, paired=True) > rate(better, paired=False) + 0.02


def test_equal_methods_are_rarely_called_worse_than_the_best() -> None:
    wrong = 0
    for answers in simulated(np.random.default_rng(5), [Method(0.9, 0.01)] * 5, [5] * 5, ITEMS, 600):
        scores = {f"m{k}": of for k, of in enumerate(answers)}
        means = {name: float(of.mean()) for name, of in scores.items()}
        wrong += bool(tied_with_best(means, compare_all(scores)).worse)
    assert wrong / 600 <= 0.065
