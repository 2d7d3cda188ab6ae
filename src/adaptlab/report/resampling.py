"""Bootstrap, permutation and jackknife over items, vectorised and seeded: the same seed gives the same numbers.

A metric of a whole set of items (F1, MCC, Pearson) is a :data:`Score`: a function of how often each item was drawn.
Metrics of adaptlab give it as ``partial(metric.resampled, answers)``; any other function becomes one by
:func:`score_of_rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
#: ``[resamples, items]`` counts -> ``[resamples]`` values, ``nan`` where the metric is undefined.
Score = Callable[[NDArray[np.int64]], NDArray[np.floating]]

RESAMPLES = 2000
#: Cells of one block of counts, so that memory stays below some 100 MB.
_BLOCK_CELLS = 4_000_000


def mean_interval(
    values: ArrayLike, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``values`` (``[items]``).

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    [distinct], times = _distinct(np.asarray(values, dtype=np.float64)[np.newaxis])
    rng = np.random.default_rng(seed)
    means = [counts @ distinct / times.sum() for counts in _drawn(rng, times, resamples)]
    return _percentiles(np.concatenate(means), level)


def mean_interval_over_seeds(
    scores: ArrayLike, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``scores`` (``[seeds, items]``, 2 seeds or more), over both.

    Seeds and items are drawn independently (Owen 2007, "The pigeonhole bootstrap"; Sellam et al. 2022, "The
    MultiBERTs"). Of S seeds S - 1 are drawn, without which the variance over seeds would be too small by (S - 1) / S
    (Rao and Wu 1988). It counts what is left of seed and item together three times and is a little wide where that
    dominates, and too short where few seeds do: for a claim use
    :func:`adaptlab.report.significance.mean_of_method`.

    Raises:
        ValueError: fewer than two seeds, or not two dimensions.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or len(table) < 2:
        raise ValueError(f"scores of shape {table.shape} are not [seeds, items] with two seeds or more")
    patterns, times = _distinct(table)
    rng = np.random.default_rng(seed)
    drawn = len(table) - 1
    means = []
    for counts in _drawn(rng, times, resamples):
        seeds = rng.multinomial(drawn, np.full(len(table), 1 / len(table)), size=len(counts))
        means.append(np.sum((seeds @ patterns) * counts, axis=1) / (drawn * table.shape[1]))
    return _percentiles(np.concatenate(means), level)


def permutation_p(differences: ArrayLike, *, resamples: int = 9999, seed: int = 0) -> float:
    """Two-sided p value of a paired permutation test on the mean of ``differences`` (``[items]``).

    If the two models were interchangeable, each item's difference could as well have had the other sign. p is the share
    of random signs whose mean is at least as far from 0, the observed signs counted in, so never 0. Source: Phipson and
    Smyth 2010; Dror et al. 2018, "The hitchhiker's guide to testing statistical significance in NLP".
    """
    d = np.asarray(differences, dtype=np.float64)
    [sizes], times = _distinct(np.abs(d[d != 0])[np.newaxis])
    observed = abs(d.sum())
    # Equal sums may differ in their last bits, as they are not added in the same order.
    threshold = observed - 1e-9 * float(sizes @ times)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_CELLS // max(1, sizes.size))
    as_far = 0
    for start in range(0, resamples, block):
        positive = _heads(rng, times, min(block, resamples - start))
        sums = 2 * (positive @ sizes) - times @ sizes
        as_far += int(np.sum(np.abs(sums) >= threshold))
    return (as_far + 1) / (resamples + 1)


@dataclass(frozen=True, slots=True)
class BootstrapDifference:
    """First minus second of a metric over the same items. ``undefined`` resamples had no value and were left out.

    ``p`` is two-sided: the level at which the percentile interval just reaches 0.
    """

    difference: float
    interval: tuple[float, float]
    p: float
    undefined: int


def paired_bootstrap(
    first: Score, second: Score, items: int, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> BootstrapDifference:
    """Compare two trained models by a metric of the whole set; both are scored on the same resampled items.

    Source: Efron and Tibshirani 1993, chapters 13 and 16; Berg-Kirkpatrick, Burkett and Klein 2012 on its use.
    """
    a, b = (bootstrapped(score, items, resamples=resamples, seed=seed) for score in (first, second))
    return bootstrap_difference(a, b, level=level)


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """A metric of a whole set (``value``) and on each resample of its items; ``nan`` where it is undefined."""

    value: float
    resampled: Floats


def bootstrapped(score: Score, items: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Bootstrapped:
    """``score`` on resamples of ``items`` items: the same ones for every score that is given the same seed."""
    once = np.ones((1, items), dtype=np.int64)
    rng = np.random.default_rng(seed)
    values = np.concatenate([score(counts) for counts in _drawn(rng, once[0], resamples)])
    return Bootstrapped(float(score(once)[0]), values.astype(np.float64))


def bootstrap_difference(first: Bootstrapped, second: Bootstrapped, *, level: float = 0.95) -> BootstrapDifference:
    """First minus second, of scores on the same resamples."""
    values, difference = first.resampled - second.resampled, first.value - second.value
    defined = values[np.isfinite(values)]
    if not defined.size:
        return BootstrapDifference(difference, (np.nan, np.nan), np.nan, int(values.size))
    tail = min(np.sum(defined <= 0), np.sum(defined >= 0))
    p = min(1.0, 2 * (int(tail) + 1) / (defined.size + 1))
    return BootstrapDifference(difference, _percentiles(defined, level), p, int(values.size - defined.size))


def score_interval(
    score: Score, items: int, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a metric of the whole set; resamples without a value are left out."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([score(counts) for counts in _drawn(rng, np.ones(items, dtype=np.int64), resamples)])
    return _percentiles(values[np.isfinite(values)].astype(np.float64), level)


def jackknife_values(score: Score, items: int) -> Floats:
    """``[items]`` values that stand for each item's part in a metric of the whole set; their mean is the metric.

    Item i has n * score(all) - (n - 1) * score(all but i), shifted by one constant so that the mean is the metric
    itself. For a mean over items they are the items' own values. With them :func:`compare_methods` compares methods by
    F1 or Pearson. Source: Dorfman, Berbaum and Metz 1992; the shift: Hillis, Berbaum and Metz 2008.
    """
    whole = float(score(np.ones((1, items), dtype=np.int64))[0])
    block = max(1, _BLOCK_CELLS // items)
    without = np.empty(items)
    for start in range(0, items, block):
        rows = np.arange(start, min(start + block, items))
        counts = np.ones((rows.size, items), dtype=np.int64)
        counts[np.arange(rows.size), rows] = 0
        without[rows] = score(counts)
    shifted: Floats = whole + (items - 1) * (without.mean() - without)
    return shifted


def score_of_rows(compute: Callable[[NDArray[np.int64]], float]) -> Score:
    """A :data:`Score` from ``compute``, which takes the indices of the items drawn, repeats included."""

    def score(counts: NDArray[np.int64]) -> Floats:
        items = np.arange(counts.shape[1])
        return np.array([compute(np.repeat(items, times)) for times in counts])

    return score


def _distinct(table: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """The distinct columns of ``[rows, items]`` and how many items have each.

    Right and wrong answers have few, so that resampling them costs next to nothing. Where most columns differ, finding
    equal ones would gain nothing: then every item is its own column.
    """
    columns, times = np.unique(table, axis=1, return_counts=True)
    if 8 * times.size > table.shape[1]:
        return table, np.ones(table.shape[1], dtype=np.int64)
    return columns, times


def _drawn(rng: np.random.Generator, times: NDArray[np.int64], resamples: int) -> Iterator[NDArray[np.int64]]:
    """Blocks of ``[r, values]`` counts of drawing sum(times) items with replacement; value k is held by times[k]."""
    size, total = times.size, int(times.sum())
    block = max(1, _BLOCK_CELLS // size)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        if total > size:
            yield rng.multinomial(total, times / total, size=rows)
        else:  # the same distribution, and for many values several times faster
            cells = rng.integers(size, size=(rows, size)) + size * np.arange(rows)[:, np.newaxis]
            yield np.bincount(cells.ravel(), minlength=rows * size).reshape(rows, size)


def _heads(rng: np.random.Generator, times: NDArray[np.int64], rows: int) -> NDArray[np.integer]:
    """``[rows, values]`` heads among times[k] tosses of a coin."""
    shape = (rows, times.size)
    if times.sum() > times.size:
        return rng.binomial(times, 0.5, size=shape)
    return rng.integers(0, 2, size=shape, dtype=np.int8)


def _percentiles(values: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
