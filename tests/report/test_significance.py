"""Claims about models and methods, held to scipy, statsmodels, published examples and hand-made cases."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptlab.report.significance import (
    MethodDifference,
    MethodMean,
    NoClaim,
    compare_all,
    compare_methods,
    compare_models,
    holm,
    holm_of_claims,
    mcnemar_mid_p,
    mean_of_method,
    mean_over_tasks,
    tied_with_best,
)


def crossed(seeds: int, items: int, seed: int = 0, mean: float = 0.0) -> np.ndarray:
    """Normal scores with effects of seed, item and both."""
    rng = np.random.default_rng(seed)
    item = np.random.default_rng(99).standard_normal(items)
    return mean + 0.3 * rng.standard_normal((seeds, 1)) + item + rng.standard_normal((seeds, items))


def without_item_effects(seed_means: list[float], items: int = 6) -> np.ndarray:
    """Scores whose means over seeds are the same for every item, while items do vary within a seed."""
    seeds = len(seed_means)
    sizes = np.arange(seeds) - (seeds - 1) / 2
    return np.array(seed_means)[:, np.newaxis] + np.outer(sizes, np.tile([1.0, -1.0], items // 2))


def claimed(claim: MethodDifference | NoClaim) -> MethodDifference:
    assert isinstance(claim, MethodDifference), claim
    return claim


# ------------------------------------------------------------------------------------------------ trained models


@pytest.mark.parametrize(
    ("one", "other", "published"),
    [(1, 7, 0.039), (6, 16, 0.035)],  # Fagerland, Lydersen and Laake 2013, tables 1 and 2
)
def test_mcnemar_gives_the_published_mid_p_values(one: int, other: int, published: float) -> None:
    assert mcnemar_mid_p(one, other) == pytest.approx(published, abs=0.0006)
    assert mcnemar_mid_p(one, other) == mcnemar_mid_p(other, one)


@given(st.integers(0, 60), st.integers(1, 60))
def test_mcnemar_is_the_exact_test_less_half_of_what_was_as_likely(one: int, other: int) -> None:
    n = one + other
    outcomes = scipy.stats.binom.pmf(np.arange(n + 1), n, 0.5)
    distance = np.abs(np.arange(n + 1) - n / 2)
    observed = abs(one - n / 2)
    expected = outcomes[distance > observed].sum() + outcomes[distance == observed].sum() / 2
    assert mcnemar_mid_p(one, other) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_and_the_exact_test_of_statsmodels_differ_by_the_point_probability() -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    exact = tables.mcnemar([[50, 9], [21, 20]], exact=True).pvalue
    assert mcnemar_mid_p(9, 21) == pytest.approx(exact - scipy.stats.binom.pmf(9, 30, 0.5), rel=1e-9)


def test_mcnemar_stands_large_counts() -> None:
    assert 0 < mcnemar_mid_p(9_000, 9_500) < 0.001
    assert mcnemar_mid_p(0, 0) == 1.0


def test_right_and_wrong_answers_are_compared_by_mcnemar() -> None:
    first = np.array([1, 1, 1, 1, 1, 1, 1, 0, 1, 0])
    second = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 0])
    found = compare_models(first, second)
    assert found.test == "McNemar, mid-p"
    assert found.p == mcnemar_mid_p(7, 1)
    assert found.difference == pytest.approx(0.6)
    assert found.interval[0] < 0.6 < found.interval[1]


def test_other_scores_are_compared_by_a_paired_permutation_test() -> None:
    rng = np.random.default_rng(0)
    first, noise = rng.random(200), rng.standard_normal(200)
    found = compare_models(first + 0.1, first + 0.5 * noise)
    assert found.test == "paired permutation"
    assert found.p == pytest.approx(scipy.stats.ttest_rel(first + 0.1, first + 0.5 * noise).pvalue, abs=0.02)


def test_models_with_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2 scores"):
        compare_models([1, 0, 1], [1, 0])
    with pytest.raises(ValueError, match="finite"):
        compare_models([1.0, math.nan], [1.0, 0.0])


# ------------------------------------------------------------------------------------------------------ methods


def test_without_item_effects_it_is_welch_s_test_on_the_seeds_means() -> None:
    first, second = [0.90, 0.91, 0.93, 0.90], [0.86, 0.90, 0.80]
    found = claimed(compare_methods(without_item_effects(first), without_item_effects(second)))
    welch = scipy.stats.ttest_ind(first, second, equal_var=False)
    assert (found.t, found.p, found.degrees_of_freedom) == pytest.approx((welch.statistic, welch.pvalue, welch.df))
    assert found.interval == pytest.approx(tuple(welch.confidence_interval()))


def test_pairs_without_item_effects_are_the_paired_t_test_on_the_seeds_means() -> None:
    first, second = [0.90, 0.91, 0.93, 0.90], [0.86, 0.90, 0.80, 0.83]
    found = claimed(compare_methods(without_item_effects(first), without_item_effects(second), paired=True))
    paired = scipy.stats.ttest_rel(first, second)
    assert (found.t, found.p, found.degrees_of_freedom) == pytest.approx((paired.statistic, paired.pvalue, paired.df))


def test_without_seed_effects_it_is_the_paired_t_test_over_items() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal(30), rng.standard_normal(30)
    found = claimed(compare_methods(np.tile(first, (3, 1)), np.tile(second, (5, 1))))
    over_items = scipy.stats.ttest_rel(first, second)
    assert (found.t, found.p, found.degrees_of_freedom) == pytest.approx(
        (over_items.statistic, over_items.pvalue, over_items.df)
    )


def test_the_variance_of_a_mean_is_that_of_the_two_way_analysis_of_variance() -> None:
    pandas = pytest.importorskip("pandas")
    formula = pytest.importorskip("statsmodels.formula.api")
    anova = pytest.importorskip("statsmodels.stats.anova")
    scores = crossed(4, 12)
    seed, item = np.indices(scores.shape)
    frame = pandas.DataFrame({"y": scores.ravel(), "seed": seed.ravel(), "item": item.ravel()})
    square = anova.anova_lm(formula.ols("y ~ C(seed) + C(item)", frame).fit())["mean_sq"]
    found = mean_of_method(scores)
    assert isinstance(found, MethodMean)
    # Expected mean squares of the crossed random-effects model (Scheffe 1959, chapter 7).
    expected = (square["C(seed)"] + square["C(item)"] - square["Residual"]) / scores.size
    assert found.standard_error**2 == pytest.approx(expected)
    assert found.mean == pytest.approx(scores.mean())
    half = scipy.stats.t.ppf(0.975, found.degrees_of_freedom) * found.standard_error
    assert found.interval == pytest.approx((found.mean - half, found.mean + half))


def test_the_components_are_the_variances_the_scores_were_drawn_with() -> None:
    rng = np.random.default_rng(5)
    studies, seeds, items = 300, 6, 40
    found = []
    for _ in range(studies):
        arms = [
            std * rng.standard_normal((seeds, 1))
            + 0.5 * rng.standard_normal(items)
            + rng.standard_normal((seeds, items))
            for std in (0.4, 0.8)
        ]
        shared = rng.standard_normal(items)  # the item's own effect cancels
        components = claimed(compare_methods(arms[0] + shared, arms[1] + shared)).components
        assert components is not None
        found.append([*components.seed, *components.residual, components.item])
    assert np.mean(found, axis=0) == pytest.approx([0.16, 0.64, 1.0, 1.0, 0.5], rel=0.1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-10, 10), st.booleans())
def test_it_does_not_matter_which_method_comes_first_nor_the_unit(
    seed: int, unit: float, zero: float, paired: bool
) -> None:
    a, b = crossed(4, 15, seed), crossed(4, 15, seed + 5000)
    one = claimed(compare_methods(a, b, paired=paired))
    other = claimed(compare_methods(unit * b + zero, unit * a + zero, paired=paired))
    assert other.difference == pytest.approx(-unit * one.difference)
    assert other.standard_error == pytest.approx(unit * one.standard_error)
    assert (other.p, other.degrees_of_freedom) == pytest.approx((one.p, one.degrees_of_freedom))


def test_the_degrees_of_freedom_lie_between_welch_s_and_satterthwaite_s() -> None:
    for seed in range(20):
        a, b = crossed(3, 50, seed), crossed(3, 50, seed + 100)
        found = claimed(compare_methods(a, b))
        v = np.array([a.mean(axis=1).var(ddof=1) / 3, b.mean(axis=1).var(ddof=1) / 3])
        welch = v.sum() ** 2 / (v**2 / 2).sum()
        by_item = found.standard_error**2 - v.sum()
        satterthwaite = found.standard_error**4 / ((v**2 / 2).sum() + by_item**2 / 49)
        assert welch - 1e-9 <= found.degrees_of_freedom <= satterthwaite + 1e-9


@pytest.mark.parametrize(("first", "second"), [(2, 5), (5, 2), (1, 1), (0, 3)])
def test_nothing_is_claimed_with_fewer_than_three_seeds(first: int, second: int) -> None:
    found = compare_methods(crossed(first, 20, mean=5), crossed(second, 20))
    assert isinstance(found, NoClaim)
    assert "too few seeds" in found.reason
    if first and second:
        assert found.difference == pytest.approx(crossed(first, 20, mean=5).mean() - crossed(second, 20).mean())
    assert isinstance(mean_of_method(crossed(2, 20)), NoClaim)
    assert isinstance(compare_methods(crossed(3, 20, mean=5), crossed(3, 20)), MethodDifference)


def test_nothing_is_claimed_where_there_is_nothing_to_judge_by() -> None:
    broken = crossed(3, 20)
    broken[1, 2] = math.inf
    assert "finite" in refused(compare_methods(broken, crossed(3, 20)))
    assert "too few items" in refused(compare_methods(crossed(3, 1), crossed(3, 1)))
    assert "variance" in refused(compare_methods(np.full((3, 9), 0.7), np.full((3, 9), 0.1)))
    assert isinstance(mean_of_method(np.ones((3, 9))), NoClaim)


def test_equal_accuracies_of_all_seeds_are_no_proof() -> None:
    # Two of four right, every time: no seed differs from another, nor an item's mean from what chance makes of it.
    first = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]])
    second = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert "variance" in refused(compare_methods(first, second))


def refused(claim: MethodDifference | NoClaim) -> str:
    assert isinstance(claim, NoClaim)
    return claim.reason


def test_the_same_answers_are_no_difference() -> None:
    ones = np.ones((3, 8))
    found = claimed(compare_methods(ones, ones))
    assert (found.difference, found.p, found.interval) == (0, 1, (0, 0))


def test_scores_of_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match="same items"):
        compare_methods(crossed(3, 20), crossed(3, 21))
    with pytest.raises(ValueError, match="same items"):
        compare_methods(crossed(3, 20), crossed(4, 20), paired=True)


def test_a_mean_over_tasks_adds_the_variances() -> None:
    claims = [claimed(compare_methods(crossed(4, 30, k, mean=0.2), crossed(4, 30, k + 50))) for k in range(3)]
    alone = claimed(mean_over_tasks(claims[:1]))
    assert (alone.p, alone.degrees_of_freedom) == pytest.approx((claims[0].p, claims[0].degrees_of_freedom))
    assert alone.interval == pytest.approx(claims[0].interval)
    found = claimed(mean_over_tasks(claims))
    assert found.difference == pytest.approx(np.mean([claim.difference for claim in claims]))
    assert found.standard_error == pytest.approx(math.sqrt(sum(c.standard_error**2 for c in claims)) / 3)
    squares = sum(c.standard_error**4 / c.degrees_of_freedom for c in claims)
    assert found.degrees_of_freedom == pytest.approx((9 * found.standard_error**2) ** 2 / squares)


def test_a_mean_over_tasks_needs_every_task() -> None:
    found = mean_over_tasks([compare_methods(crossed(4, 30), crossed(4, 30, 1)), NoClaim("it failed", 0.1)])
    assert "on one of the tasks it failed" in refused(found)


# ------------------------------------------------------------------------------------------- many comparisons


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_holm_is_what_statsmodels_says(count: int) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = list(np.random.default_rng(count).random(count).round(1) / 3)  # with ties, and small enough to matter
    assert holm(p_values) == pytest.approx(list(multitest.multipletests(p_values, method="holm")[1]))


def test_holm_steps_down() -> None:
    # Each times the number of those not smaller: 0.01 * 4, 0.02 * 3, 0.02 * 2 (no less than before), 0.5.
    assert holm([0.02, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.5, 0.04, 0.06])


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]) == []


def scores_of(means: dict[str, float], seeds: int = 5, std: float = 0.3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    item = rng.standard_normal(200)
    return {
        name: mean + item + std * rng.standard_normal((seeds, 1)) + 0.1 * rng.standard_normal((seeds, 200))
        for name, mean in means.items()
    }


def test_methods_are_sorted_into_tied_and_worse() -> None:
    scores = scores_of({"full": 5.0, "lora": 4.9, "head": 1.0})
    means = {name: float(of.mean()) for name, of in scores.items()}
    claims = compare_all(scores)
    assert set(claims) == set(combinations(scores, 2))
    found = tied_with_best(means, claims)
    assert set(found.tied) == {"full", "lora"}
    assert found.best == max(means, key=lambda name: means[name]) == found.tied[0]
    assert (found.worse, found.open) == (("head",), {})
    lowest = tied_with_best(means, claims, higher_is_better=False)
    assert (lowest.best, set(lowest.worse)) == ("head", {"full", "lora"})


def test_with_too_few_seeds_nothing_is_tied_and_nothing_worse() -> None:
    scores = scores_of({"full": 5.0, "lora": 4.9, "head": 1.0})
    scores["head"] = scores["head"][:2]
    means = {name: float(of.mean()) for name, of in scores.items()}
    found = tied_with_best(means, compare_all(scores))
    assert "head" not in found.worse + found.tied
    assert "too few seeds" in found.open["head"]
    assert holm_of_claims(compare_all(scores)).keys() == {("full", "lora")}


def test_the_correction_is_for_every_pair() -> None:
    def claim(p: float) -> MethodDifference:
        return MethodDifference(0.1, 0.05, 8.0, 2.0, p, (0.0, 0.2))

    means = {"a": 3.0, "b": 2.0, "c": 1.0}
    claims = {("a", "b"): claim(0.9), ("a", "c"): claim(0.02), ("b", "c"): claim(0.9)}
    # Two comparisons with the best would give 0.04; three were made.
    assert tied_with_best(means, claims).tied == ("a", "b", "c")
    claims["a", "c"] = claim(0.016)
    assert tied_with_best(means, claims).worse == ("c",)
