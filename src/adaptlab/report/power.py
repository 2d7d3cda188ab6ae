"""How many seeds, or items, would tell two methods apart.

A study of S seeds a method and I items estimates the difference of two methods with a variance and degrees of freedom
that follow from the variance components (:class:`~adaptlab.report.significance.Components`, which a first comparison
estimates). The chance that :func:`~adaptlab.report.significance.compare_methods` then sees a true difference is that of
a noncentral t variable beyond the critical value. Source: Westfall, Kenny and Judd 2014, Journal of Experimental
Psychology: General 143; Hillis, Obuchowski and Berbaum 2011, Academic Radiology 18.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import nctdtr, stdtrit

from adaptlab.report.significance import FEWEST_SEEDS, Components, degrees_of_freedom

#: More is no plan.
MOST_SEEDS = 10_000
MOST_ITEMS = 100_000_000


def power(difference: float, components: Components, seeds: int, items: int, *, alpha: float = 0.05) -> float:
    """Chance that a true ``difference`` is significant (two-sided) with ``seeds`` of each method and ``items``."""
    variance, freedom = _planned(components, seeds, items)
    if variance == 0:
        return 1.0 if difference else alpha
    critical, shift = stdtrit(freedom, 1 - alpha / 2), abs(difference) / math.sqrt(variance)
    return float(1 - nctdtr(freedom, shift, critical) + nctdtr(freedom, shift, -critical))


def seeds_needed(
    difference: float, components: Components, items: int, *, wanted: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Fewest seeds of each method with which ``difference`` is seen with the chance ``wanted``, at ``items`` items.

    ``None``: no number of seeds is enough, as the items alone leave too much doubt.
    """
    return _fewest(lambda n: power(difference, components, n, items, alpha=alpha), wanted, FEWEST_SEEDS, MOST_SEEDS)


def items_needed(
    difference: float, components: Components, seeds: int, *, wanted: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Fewest items with which ``difference`` is seen with the chance ``wanted``, at ``seeds`` seeds of each method.

    ``None``: no number of items is enough, as the seeds alone leave too much doubt.
    """
    return _fewest(lambda n: power(difference, components, seeds, n, alpha=alpha), wanted, 2, MOST_ITEMS)


def detectable_difference(
    components: Components, seeds: int, items: int, *, wanted: float = 0.8, alpha: float = 0.05
) -> float:
    """The difference that such a study finds with the chance ``wanted``; smaller ones it will rather miss."""
    variance, freedom = _planned(components, seeds, items)
    if variance == 0:
        return 0.0
    critical, error = float(stdtrit(freedom, 1 - alpha / 2)), math.sqrt(variance)
    low, high = 0.0, 2 * critical + 10  # in standard errors: the chance is below ``wanted`` at one, above at the other
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        if power(middle * error, components, seeds, items, alpha=alpha) < wanted:
            low = middle
        else:
            high = middle
    return high * error


def _planned(components: Components, seeds: int, items: int) -> tuple[float, float]:
    """Variance of the difference in such a study, and the degrees of freedom its test may expect to have.

    Welch's degrees of freedom are computed from estimated variances, which differ more than the true ones, so a study
    has fewer than the true variances would give: the expectations of numerator and denominator are taken, with
    E v**2 = variance**2 * (1 + 2 / f). With two equal variances and 3 seeds that is 3 instead of 4.
    """
    f = seeds - 1
    by_seed = [(a + e / items) / seeds for a, e in zip(components.seed, components.residual, strict=True)]
    squares = sum(v**2 for v in by_seed)
    freedom = f * (sum(by_seed) ** 2 + 2 * squares / f) / (squares * (1 + 2 / f)) if squares else math.inf
    of_items = components.item / items
    variance = sum(by_seed) + of_items
    return variance, float(degrees_of_freedom(sum(by_seed), freedom, of_items, items)) if variance else math.inf


def _fewest(chance: Callable[[int], float], wanted: float, least: int, most: int) -> int | None:
    enough = least
    while chance(enough) < wanted:
        if enough >= most:
            return None
        enough = min(2 * enough, most)
    too_few = max(enough // 2, least - 1)
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if chance(middle) < wanted:
            too_few = middle
        else:
            enough = middle
    return enough
