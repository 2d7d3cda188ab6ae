"""Planning: against statsmodels where it knows the case, and against simulated studies."""

from __future__ import annotations

import math

import numpy as np
import pytest

from adaptlab.report.power import items_needed, power, seeds_needed
from adaptlab.report.significance import Components, MethodDifference, compare_methods

REAL = Components(seed=(0.01**2, 0.012**2), residual=(0.05, 0.04), item=0.02)


@pytest.mark.parametrize("items", [20, 100, 1000])
def test_without_seed_effects_it_is_the_power_of_a_paired_t_test(items: int) -> None:
    statsmodels = pytest.importorskip("statsmodels.stats.power")
    only_items = Components(seed=(0.0, 0.0), residual=(0.0, 0.0), item=0.09)
    expected = statsmodels.TTestPower().power(0.03 / 0.3, items, 0.05)
    assert power(0.03, only_items, 5, items) == pytest.approx(expected, rel=1e-6)


def test_no_difference_is_found_as_often_as_alpha_says() -> None:
    assert power(0.0, REAL, 5, 500) == pytest.approx(0.05)
    assert power(0.0, REAL, 5, 500, alpha=0.01) == pytest.approx(0.01)


def test_more_of_anything_finds_more() -> None:
    by_seeds = [power(0.01, REAL, seeds, 800) for seeds in (3, 4, 5, 8, 20, 100)]
    by_items = [power(0.01, REAL, 5, items) for items in (100, 200, 800, 3200, 10**6)]
    by_size = [power(size, REAL, 5, 800) for size in (0.001, 0.01, 0.02, 0.05, 0.5)]
    for found in (by_seeds, by_items, by_size):
        assert found == sorted(found)
    assert by_size[-1] == 1.0
    assert power(-0.01, REAL, 5, 800) == power(0.01, REAL, 5, 800)


def test_the_numbers_needed_are_the_fewest_that_do() -> None:
    seeds = seeds_needed(0.015, REAL, 800)
    assert seeds is not None
    assert power(0.015, REAL, seeds, 800) >= 0.8 > power(0.015, REAL, seeds - 1, 800)
    items = items_needed(0.02, REAL, 8)
    assert items is not None
    assert power(0.02, REAL, 8, items) >= 0.8 > power(0.02, REAL, 8, items - 1)
    assert seeds_needed(0.5, REAL, 800) == 3


def test_what_the_other_sample_forbids_cannot_be_reached() -> None:
    floor = math.sqrt(REAL.item / 400)  # standard error with any number of seeds
    assert seeds_needed(2.7 * floor, REAL, 400) is None
    assert seeds_needed(2.9 * floor, REAL, 400) is not None
    assert items_needed(0.01, REAL, 3) is None


def test_without_any_variance_everything_is_found() -> None:
    nothing = Components(seed=(0.0, 0.0), residual=(0.0, 0.0), item=0.0)
    assert power(0.01, nothing, 3, 10) == 1.0


@pytest.mark.parametrize(("seeds", "items", "difference"), [(3, 400, 0.06), (5, 400, 0.03), (10, 100, 0.03)])
def test_simulated_studies_find_what_was_predicted(seeds: int, items: int, difference: float) -> None:
    components = Components(seed=(0.01**2, 0.02**2), residual=(0.06, 0.06), item=0.02)
    rng = np.random.default_rng([seeds, items])
    studies, found = 1500, 0
    for _ in range(studies):
        first, second = (
            math.sqrt(a) * rng.standard_normal((seeds, 1)) + math.sqrt(e) * rng.standard_normal((seeds, items))
            for a, e in zip(components.seed, components.residual, strict=True)
        )
        claim = compare_methods(first + difference + math.sqrt(components.item) * rng.standard_normal(items), second)
        assert isinstance(claim, MethodDifference)
        found += claim.p < 0.05
    assert found / studies == pytest.approx(power(difference, components, seeds, items), abs=0.045)
