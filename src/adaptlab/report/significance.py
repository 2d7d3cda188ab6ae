"""Is the difference real? Two claims, kept apart.

*These trained models differ*: the models are fixed and the items are a sample. :func:`compare_models` pairs two models
over the items; :func:`adaptlab.report.resampling.paired_bootstrap` does it for metrics of a whole set (F1, MCC).

*These methods differ*: another seed gives another model, so seeds and items are both samples. :func:`compare_methods`
answers for new seeds of the same two methods on new items of the same kind, and says nothing below three seeds.

The model of the second claim, for method m, seed s and item i::

    y[m,s,i] = mu[m] + a[m,s] + b[i] + c[m,i] + e[m,s,i]

with crossed random effects: a of the seed, b of the item (it cancels), c of the item under one method, e the rest. For
S[m] seeds and I items the difference of the two means has the variance ::

    sum over m of (var a[m] + var e[m] / I) / S[m]   +   var(c[1] - c[2]) / I
    = V_seed + V_item - V_residual

where each term on the right has an unbiased estimate for any distribution of y, binary ones too: V_seed is the sum of
(sample variance of the seeds' means) / S[m], V_item the sample variance over items of the difference of the items'
means, over I, and V_residual the sum of (mean square of the interaction) / (S[m] I), which the other two both count.
V_item - V_residual estimates a variance and is cut off at 0. Sources: Clark 1973 (the language-as-fixed-effect
fallacy); Judd, Westfall and Kenny 2017, Annual Review of Psychology 68 (seeds are their participants, nested in the
condition, items their stimuli); Obuchowski and Rockette 1995 and Hillis 2007, Statistics in Medicine 26 (the same
design in radiology: readers and cases). ``docs/statistics.md`` says what was decided and why, and
``docs/benchmarks/statistics-simulation.md`` how often the tests err.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr as binomial_cdf
from scipy.special import gammaln, stdtr, stdtrit

from adaptlab.report.resampling import mean_interval, permutation_p

Floats = NDArray[np.float64]

#: Below this, a variance over seeds is too badly known for any claim about methods.
FEWEST_SEEDS = 3
# Nothing varies, or by chance every seed has the same mean: then the variance is not 0 but unknown.
_NO_VARIANCE = "the estimated variance over seeds and items is 0"


# ---------------------------------------------------------------------------------- these trained models differ


@dataclass(frozen=True, slots=True)
class ModelDifference:
    """Two trained models on the same items: first minus second, with a bootstrap interval over items.

    ``test`` names what gave ``p`` (two-sided).
    """

    difference: float
    interval: tuple[float, float]
    p: float
    test: str


def compare_models(first: ArrayLike, second: ArrayLike, *, level: float = 0.95, seed: int = 0) -> ModelDifference:
    """Compare two trained models by their scores on the same items.

    Args:
        first, second: ``[items]`` scores in the same order of items. Where all are 0 or 1 (right or wrong) the test is
            McNemar's with the mid-p value, else a paired permutation test.

    Raises:
        ValueError: the shapes differ, there is no item, or a score is not finite.
    """
    a, b = _finite(first, 1), _finite(second, 1)
    if a.shape != b.shape:
        raise ValueError(f"the models have {a.size} and {b.size} scores: give one for each of the same items")
    difference = a - b
    if np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all():
        p, test = mcnemar_mid_p(int(np.sum(difference > 0)), int(np.sum(difference < 0))), "McNemar, mid-p"
    else:
        p, test = permutation_p(difference, seed=seed), "paired permutation"
    interval = mean_interval(difference, level=level, seed=seed)
    return ModelDifference(float(difference.mean()), interval, p, test)


def mcnemar_mid_p(only_first: int, only_second: int) -> float:
    """Two-sided mid-p value of McNemar's test.

    The exact conditional p value (a sign test over the items that only one model got right) less half the probability
    of what was observed. It keeps the level in practice and is far less conservative than the exact test. Source:
    Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91.

    Args:
        only_first, only_second: number of items that only the first, or only the second, model got right. Without any
            such item p is 1.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    point = math.exp(gammaln(n + 1) - gammaln(fewer + 1) - gammaln(n - fewer + 1) - n * math.log(2))
    if only_first == only_second:
        return float(1 - point / 2)
    return float(2 * binomial_cdf(fewer, n, 0.5) - point)


# ---------------------------------------------------------------------------------------- these methods differ


@dataclass(frozen=True, slots=True)
class NoClaim:
    """Why nothing is claimed; ``difference`` (first minus second; of one method its mean) is only what was observed."""

    reason: str
    difference: float


@dataclass(frozen=True, slots=True)
class Components:
    """Variances of one score, each at least 0: what planning needs (:mod:`adaptlab.report.power`).

    Attributes:
        seed: var a, of each method; one number (of the differences) where the seeds are paired.
        residual: var e, in the same order.
        item: var(c[1] - c[2]); of a single method var(b + c).
    """

    seed: tuple[float, ...]
    residual: tuple[float, ...]
    item: float


@dataclass(frozen=True, slots=True)
class MethodDifference:
    """Two methods: first minus second, over new seeds and new items. ``p`` is two-sided; ``t`` is difference / error.

    ``components`` is ``None`` for a mean over tasks.
    """

    difference: float
    standard_error: float
    degrees_of_freedom: float
    t: float
    p: float
    interval: tuple[float, float]
    components: Components | None = None


@dataclass(frozen=True, slots=True)
class MethodMean:
    """A method's mean score over seeds and items, for new seeds and new items."""

    mean: float
    standard_error: float
    degrees_of_freedom: float
    interval: tuple[float, float]


def compare_methods(
    first: ArrayLike, second: ArrayLike, *, paired: bool = False, level: float = 0.95
) -> MethodDifference | NoClaim:
    """Compare two methods over seeds and items, by the model in this module's head.

    Args:
        first, second: ``[seeds, items]`` scores of each item, in the same order of items; the numbers of seeds may
            differ. For a metric of the whole set, give :func:`adaptlab.report.resampling.jackknife_values`.
        paired: row s of both stands for one draw that both methods share and that moves their scores together, such as
            the training rows. Leave it off where they share no more than a seed: its effects on two methods are
            hardly related, pairing then halves the degrees of freedom, and if they are related a little, not pairing
            only makes the test more cautious.

    Raises:
        ValueError: the numbers of items differ, or with ``paired`` those of seeds.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or (paired and len(a) != len(b)):
        raise ValueError(f"scores of shapes {a.shape} and {b.shape} are not [seeds, items] over the same items")
    observed = float(a.mean() - b.mean()) if a.size and b.size else math.nan
    reason = _why_not(a, b)
    if reason is not None:
        return NoClaim(reason, observed)
    estimate = _Crossed.of([a - b]) if paired else _Crossed.of([a, b])
    rounding = 1e-12 * float(max(np.abs(a).max(), np.abs(b).max()))
    if estimate.variance <= rounding**2 and abs(observed) > rounding:
        return NoClaim(_NO_VARIANCE, observed)
    return _difference(observed, estimate.variance, estimate.degrees_of_freedom, level, estimate.components)


def mean_of_method(scores: ArrayLike, *, level: float = 0.95) -> MethodMean | NoClaim:
    """Mean score of one method with its interval over seeds and items; ``scores`` as in :func:`compare_methods`."""
    y = np.asarray(scores, dtype=np.float64)
    if y.ndim != 2:
        raise ValueError(f"scores of shape {y.shape} are not [seeds, items]")
    mean = float(y.mean()) if y.size else math.nan
    reason = _why_not(y)
    if reason is not None:
        return NoClaim(reason, mean)
    estimate = _Crossed.of([y])
    if estimate.variance <= (1e-12 * float(np.abs(y).max())) ** 2:
        return NoClaim(_NO_VARIANCE, mean)
    error, freedom = math.sqrt(estimate.variance), estimate.degrees_of_freedom
    return MethodMean(mean, error, freedom, _interval(mean, error, freedom, level))


def mean_over_tasks(claims: Sequence[MethodDifference | NoClaim], *, level: float = 0.95) -> MethodDifference | NoClaim:
    """The same two methods on several tasks: the difference of their means over these tasks.

    Trainings and items of different tasks are independent, so the variances add; degrees of freedom by Satterthwaite
    1946. The tasks are taken as they are: nothing is claimed about other tasks.
    """
    difference = float(np.mean([claim.difference for claim in claims]))
    for claim in claims:
        if isinstance(claim, NoClaim):
            return NoClaim(f"on one of the tasks {claim.reason}", difference)
    made = [claim for claim in claims if isinstance(claim, MethodDifference)]
    variances = [(claim.standard_error / len(made)) ** 2 for claim in made]
    squares = sum(
        variance**2 / claim.degrees_of_freedom for variance, claim in zip(variances, made, strict=True) if variance
    )
    freedom = sum(variances) ** 2 / squares if squares else math.inf
    return _difference(difference, sum(variances), freedom, level, None)


@dataclass(frozen=True, slots=True)
class _Crossed:
    """Moment estimates of a signed sum of crossed [seeds, items] arrays (one, or first minus second)."""

    variance: float
    degrees_of_freedom: float
    components: Components

    @classmethod
    def of(cls, arms: Sequence[Floats]) -> _Crossed:
        items = arms[0].shape[1]
        seeds = [len(arm) for arm in arms]
        by_seed = [float(arm.mean(axis=1).var(ddof=1)) / len(arm) for arm in arms]
        residual = [_residual_mean_square(arm) for arm in arms]
        contrast = arms[0].mean(axis=0) - arms[1].mean(axis=0) if len(arms) == 2 else arms[0].mean(axis=0)
        shared = sum(square / (n * items) for square, n in zip(residual, seeds, strict=True))
        by_item = max(float(contrast.var(ddof=1)) / items - shared, 0.0)
        components = Components(
            seed=tuple(max(v * n - square / items, 0.0) for v, n, square in zip(by_seed, seeds, residual, strict=True)),
            residual=tuple(residual),
            item=by_item * items,
        )
        variance = sum(by_seed) + by_item
        freedom = degrees_of_freedom(sum(by_seed), _welch(by_seed, seeds), by_item, items) if variance else math.inf
        return cls(variance, float(freedom), components)


def _residual_mean_square(y: Floats) -> float:
    """Mean square of the seed-by-item interaction of a ``[seeds, items]`` table."""
    rest = y - y.mean(axis=0) - y.mean(axis=1, keepdims=True) + y.mean()
    return float(np.sum(rest**2) / ((y.shape[0] - 1) * (y.shape[1] - 1)))


def _welch(by_seed: Sequence[float], seeds: Sequence[int]) -> float:
    """Degrees of freedom of a sum of variances of means, by Satterthwaite 1946 and Welch 1947."""
    squares = sum(v**2 / (n - 1) for v, n in zip(by_seed, seeds, strict=True))
    return sum(by_seed) ** 2 / squares if squares else math.inf


def degrees_of_freedom(
    of_seeds: float | Floats, seed_freedom: float | Floats, of_items: float | Floats, items: float
) -> float | Floats:
    """Of the variance ``of_seeds`` + ``of_items`` (not 0), the first with ``seed_freedom`` degrees of freedom.

    Satterthwaite's rule is 1 / df = sum of share**2 / df over the parts of the variance. With few degrees of freedom it
    is too generous, since a share that happens to be small also counts for little: at three seeds of unequal spread the
    test fired in up to 7.8 % of normal samples. The seeds' share is therefore raised to 2 - 2 / seed_freedom instead of
    2, which keeps Welch's test where items add nothing, keeps Satterthwaite's rule where seeds are many, and fires in
    at most 5.9 % (section "The rule for the degrees of freedom" of the simulations; the exponent was found by them).
    """
    share = of_seeds / (of_seeds + of_items)
    return 1 / (share ** (2 - 2 / seed_freedom) / seed_freedom + (1 - share) ** 2 / (items - 1))


def _difference(
    difference: float, variance: float, freedom: float, level: float, components: Components | None
) -> MethodDifference:
    error = math.sqrt(variance)
    t = difference / error if error else 0.0
    p = float(2 * stdtr(freedom, -abs(t)))
    return MethodDifference(difference, error, freedom, t, p, _interval(difference, error, freedom, level), components)


def _interval(middle: float, error: float, freedom: float, level: float) -> tuple[float, float]:
    half = error * float(stdtrit(freedom, (1 + level) / 2))
    return middle - half, middle + half


def _why_not(*arms: Floats) -> str | None:
    fewest = min(len(arm) for arm in arms)
    if fewest < FEWEST_SEEDS:
        return f"there are too few seeds ({fewest}; a claim about methods needs at least {FEWEST_SEEDS} of each)"
    if arms[0].shape[1] < 2:
        return f"there are too few items ({arms[0].shape[1]}; at least 2)"
    if not all(np.isfinite(arm).all() for arm in arms):
        return "a score is not a finite number"
    return None


# ------------------------------------------------------------------------------------------- many comparisons


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted by Holm's step-down method, in the order given.

    Refusing where an adjusted value is below alpha keeps the chance of any wrong refusal below alpha, whatever the
    dependence. Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1.0)
    return [float(value) for value in adjusted]


Pair = tuple[str, str]


def compare_all(
    scores: Mapping[str, ArrayLike], *, paired: bool = False, level: float = 0.95
) -> dict[Pair, MethodDifference | NoClaim]:
    """:func:`compare_methods` for every pair of methods, in the order of ``scores``."""
    return {
        (a, b): compare_methods(scores[a], scores[b], paired=paired, level=level) for a, b in combinations(scores, 2)
    }


def holm_of_claims(claims: Mapping[Pair, MethodDifference | NoClaim]) -> dict[Pair, float]:
    """Holm-adjusted p of each pair about which something can be claimed; all of them are one family."""
    made = {pair: claim.p for pair, claim in claims.items() if isinstance(claim, MethodDifference)}
    return dict(zip(made, holm(list(made.values())), strict=True))


@dataclass(frozen=True, slots=True)
class Ties:
    """Methods sorted by what can be said about them and the best one (by observed mean).

    Attributes:
        tied: the best, and those not shown to differ from it. It does not say that they are equal.
        worse: shown to differ from the best.
        open: about which nothing can be claimed, with the reason.
    """

    best: str
    tied: tuple[str, ...]
    worse: tuple[str, ...]
    open: dict[str, str]


def tied_with_best(
    means: Mapping[str, float],
    claims: Mapping[Pair, MethodDifference | NoClaim],
    *,
    higher_is_better: bool = True,
    alpha: float = 0.05,
) -> Ties:
    """Which methods cannot be told apart from the best.

    The family of the Holm correction is every pair, not only the pairs with the best: which one is best was seen in the
    same data, and correcting for fewer pairs would call some of ten equal methods worse in 8 to 10 % of studies.

    Args:
        means: of each method; the best is taken from them.
        claims: of each pair of methods, from :func:`compare_all` or :func:`mean_over_tasks`.
    """
    best = (max if higher_is_better else min)(means, key=lambda name: means[name])
    adjusted = holm_of_claims(claims)
    tied, worse, unknown = [best], [], {}
    for name in means:
        if name == best:
            continue
        pair = (best, name) if (best, name) in claims else (name, best)
        claim = claims[pair]
        if isinstance(claim, NoClaim):
            unknown[name] = claim.reason
        elif adjusted[pair] < alpha:
            worse.append(name)
        else:
            tied.append(name)
    return Ties(best, tuple(tied), tuple(worse), unknown)


def _finite(scores: ArrayLike, dimensions: int) -> Floats:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != dimensions or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"scores of shape {values.shape} are not {dimensions}-dimensional, finite and at least one")
    return values
