"""How often the statistics err: simulated studies whose truth is known, put through the very functions reports use.

    python benchmarks/statistics_simulation.py --markdown docs/benchmarks/statistics-simulation.md   (10 min, one core)
    python benchmarks/statistics_simulation.py --studies 2000                                        (2 min)

An item is answered rightly with the probability ::

    logistic(mean[m] + ability[m, s] + difficulty[i] + affinity[m, i])

with normal effects of the seed (ability), of the item for every method (difficulty) and of the item for one method
(affinity). The scores are 0 or 1 and go together between seeds and between methods. Without a true difference both
methods have the same accuracy over all seeds and all items; what remains different is chance: which seeds, which items.
So the affinity is chance too, and the claim that is tested is about new items, not about these very ones.

The exit code is 1 if a rate lies outside its limits.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, stdtr

from adaptlab.report.power import items_needed, power, seeds_needed
from adaptlab.report.resampling import jackknife_values, mean_interval, mean_interval_over_seeds, paired_bootstrap
from adaptlab.report.significance import (
    Components,
    MethodDifference,
    MethodMean,
    NoClaim,
    compare_all,
    compare_methods,
    compare_models,
    degrees_of_freedom,
    holm_of_claims,
    mean_of_method,
    tied_with_best,
)

Floats = NDArray[np.float64]
ALPHA = 0.05
#: Allowed rates of false findings, by the number of seeds: what the project promises.
LIMITS = {5: (0.035, 0.065), 3: (0.0, 0.065)}
_POINTS, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_BLOCK_CELLS = 8_000_000


@dataclass(frozen=True)
class Method:
    """A method as nature knows it.

    Attributes:
        accuracy: over all seeds and items.
        seed_std: standard deviation over seeds of a model's accuracy over all items.
        difficulty_std, affinity_std: of the item's effects, in logits.
    """

    accuracy: float
    seed_std: float
    affinity_std: float = 1.0
    difficulty_std: float = 3.0

    @property
    def logits(self) -> tuple[float, float]:
        """Mean and standard deviation over seeds, in logits, that give ``accuracy`` and ``seed_std``."""
        return _logits(self.accuracy, self.seed_std, math.hypot(self.affinity_std, self.difficulty_std))


@cache
def _logits(accuracy: float, seed_std: float, item_std: float) -> tuple[float, float]:
    def mean_for(ability_std: float) -> float:
        total = math.hypot(item_std, ability_std)
        return float(brentq(lambda mean: float(_WEIGHTS @ expit(mean + total * _POINTS)) - accuracy, -40, 40))

    def excess(ability_std: float) -> float:
        abilities = mean_for(ability_std) + ability_std * _POINTS
        accuracies = expit(abilities[:, np.newaxis] + item_std * _POINTS) @ _WEIGHTS
        return math.sqrt(float(_WEIGHTS @ (accuracies - accuracy) ** 2)) - seed_std

    ability_std = float(brentq(excess, 1e-6, 10)) if seed_std else 0.0
    return mean_for(ability_std), ability_std


def simulated(
    rng: np.random.Generator,
    methods: Sequence[Method],
    seeds: Sequence[int],
    items: int,
    studies: int,
    *,
    shared_seeds: float = 0.0,
) -> Iterator[list[NDArray[np.bool_]]]:
    """Studies: for each method ``[seeds, items]`` right answers. ``shared_seeds`` correlates the methods' abilities."""
    block = max(1, _BLOCK_CELLS // (max(seeds) * items))
    for start in range(0, studies, block):
        n = min(block, studies - start)
        difficulty = rng.standard_normal((n, 1, items), dtype=np.float32)
        common = rng.standard_normal((n, max(seeds), 1), dtype=np.float32)
        answers = []
        for method, count in zip(methods, seeds, strict=True):
            mean, ability_std = method.logits
            own = rng.standard_normal((n, count, 1), dtype=np.float32)
            ability = math.sqrt(shared_seeds) * common[:, :count] + math.sqrt(1 - shared_seeds) * own
            item = method.difficulty_std * difficulty
            if method.affinity_std:
                item = item + method.affinity_std * rng.standard_normal((n, 1, items), dtype=np.float32)
            odds = np.exp(np.float32(ability_std) * ability) * np.exp(np.float32(mean) + item)
            # logistic(x) > u  <=>  odds > u / (1 - u)
            uniform = rng.random((n, count, items), dtype=np.float32)
            answers.append(odds > uniform * (1 + odds))
        yield from ([of_method[k] for of_method in answers] for k in range(n))


def share(events: Iterable[bool]) -> float:
    return float(np.fromiter(events, dtype=bool).mean())


def fires(claim: MethodDifference | NoClaim) -> bool:
    return isinstance(claim, MethodDifference) and claim.p < ALPHA


def percent(rate: float) -> str:
    return f"{100 * rate:.1f}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(str(cell) for cell in line)} |" for line in lines]


# ------------------------------------------------------------------------------------------------- the sections


@dataclass
class Setting:
    """Two methods without a true difference, and how they are studied."""

    first: Method
    second: Method
    items: int
    shared_seeds: float = 0.0
    paired: bool = False

    @property
    def cells(self) -> list[str]:
        seed_std, affinity = (
            " / ".join(dict.fromkeys(f"{number:g}" for number in numbers))
            for numbers in (
                (100 * self.first.seed_std, 100 * self.second.seed_std),
                (self.first.affinity_std, self.second.affinity_std),
            )
        )
        return [f"{self.first.accuracy:g}", str(self.items), seed_std, affinity]


def grid() -> Iterator[Setting]:
    """Sizes of real studies: sentence tasks of 400 to 2,000 rows, models that are right on 85 to 92 %."""
    stds = ((0.005, 0.005), (0.01, 0.01), (0.015, 0.015), (0.005, 0.015))
    for accuracy, items, (one, other), affinity in product((0.85, 0.92), (400, 2000), stds, (0.0, 1.0, 2.0)):
        yield Setting(Method(accuracy, one, affinity), Method(accuracy, other, affinity), items)


def beyond() -> Iterator[Setting]:
    """Harder than the grid: no seed effect, few items, chance-like or near-perfect models, unequal methods."""
    plain = Method(0.9, 0.01)
    yield Setting(replace(plain, seed_std=0.0), replace(plain, seed_std=0.0), 400)
    yield Setting(replace(plain, seed_std=0.0), replace(plain, seed_std=0.02), 2000)
    yield Setting(replace(plain, affinity_std=0.0), replace(plain, affinity_std=2.0), 1000)
    yield Setting(plain, plain, 138)
    yield Setting(Method(0.98, 0.004), Method(0.98, 0.004), 1000)
    yield Setting(Method(0.65, 0.03), Method(0.65, 0.01), 400)
    yield Setting(replace(plain, difficulty_std=1.0), replace(plain, difficulty_std=1.0), 1000)


def study_rate(setting: Setting, seeds: tuple[int, int], studies: int, salt: int) -> float:
    rng = np.random.default_rng([salt, *seeds])
    pairs = simulated(
        rng, (setting.first, setting.second), seeds, setting.items, studies, shared_seeds=setting.shared_seeds
    )
    return share(fires(compare_methods(a, b, paired=setting.paired)) for a, b in pairs)


@dataclass
class Report:
    """Lines of the document, and what was outside its limits."""

    studies: int
    lines: list[str]
    faults: list[str]

    def add(self, *lines: str) -> None:
        self.lines += lines
        print("\n".join(lines), flush=True)

    def check(self, what: str, rate: float, low: float, high: float) -> None:
        if not low <= rate <= high:
            self.faults.append(f"{what}: {percent(rate)} % is not between {percent(low)} and {percent(high)} %")


def sizes(report: Report) -> None:
    report.add(
        "## What is simulated",
        "",
        "Seed std 1 point. `docs/statistics.md` has the same numbers of real runs.",
        "",
    )
    rows = []
    for number, (accuracy, affinity) in enumerate(product((0.85, 0.92), (0.0, 1.0, 2.0))):
        method = Method(accuracy, 0.01, affinity)
        components = true_components((method, method), number)
        studies = simulated(np.random.default_rng([1300, number]), (method,), (2,), 2000, 50)
        disagreement = float(np.mean([np.mean(runs[0] != runs[1]) for (runs,) in studies]))
        spreads = (f"{math.sqrt(variance):.2f}" for variance in (components.residual[0], components.item))
        rows.append([accuracy, f"{affinity:g}", percent(disagreement), *spreads])
    head = ["accuracy", "affinity, logits", "answers two seeds differ in, %", "std of e", "std of c[1] - c[2]"]
    report.add(*table(head, rows), "")


def false_findings(report: Report) -> None:
    report.add("## Two methods without a true difference: how often a difference is found", "")
    rows, rates = [], {5: [], 3: []}
    for number, setting in enumerate(grid()):
        cells: list[object] = list(setting.cells)
        for seeds, (low, high) in LIMITS.items():
            rate = study_rate(setting, (seeds, seeds), report.studies, number)
            report.check(f"grid, {seeds} seeds, {setting.cells}", rate, low, high)
            rates[seeds].append(rate)
            cells.append(percent(rate))
        rows.append(cells)
    head = ["accuracy", "items", "seed std, points", "affinity, logits", "5 seeds, %", "3 seeds, %"]
    report.add(*table(head, rows), "")
    for seeds, (low, high) in LIMITS.items():
        found = rates[seeds]
        report.add(
            f"{seeds} seeds: {percent(min(found))} to {percent(max(found))} %, on average "
            f"{percent(float(np.mean(found)))} %; promised are {percent(low)} to {percent(high)} %. The standard error "
            f"of one rate is {100 * math.sqrt(ALPHA * (1 - ALPHA) / report.studies):.2f} points.",
            "",
        )


def false_findings_beyond(report: Report) -> None:
    report.add("## Beyond the grid", "", "As above, in harder settings; the last column has 3 seeds against 10.", "")
    rows = []
    for number, setting in enumerate(beyond()):
        counts = ((5, 5), (3, 3), (3, 10))
        rates = [study_rate(setting, seeds, report.studies, 100 + number) for seeds in counts]
        for seeds, rate in zip(counts, rates, strict=True):
            report.check(f"beyond the grid, seeds {seeds}, {setting.cells}", rate, 0, 0.065)
        rows.append([*setting.cells, f"{setting.first.difficulty_std:g}", *map(percent, rates)])
    head = ["accuracy", "items", "seed std", "affinity", "difficulty", "5 seeds, %", "3 seeds, %", "3 and 10, %"]
    report.add(*table(head, rows), "")


def shared_seeds(report: Report) -> None:
    report.add(
        "## Seeds that the methods share",
        "",
        "Seed effects correlated between the methods (0.5: think of runs that share their training rows), the seeds",
        "taken as independent or as pairs, without a true difference and with one of 3 points. Seed std 1.5 points,",
        "affinity 1 logit, 1,000 items.",
        "",
    )
    rows = []
    for number, (correlation, paired, seeds) in enumerate(product((0.0, 0.5), (False, True), (5, 3))):
        method = Method(0.88, 0.015)
        same = Setting(method, method, 1000, correlation, paired)
        rate = study_rate(same, (seeds, seeds), report.studies, 200 + number)
        report.check(f"shared seeds {correlation}, paired {paired}, {seeds} seeds", rate, 0, 0.065)
        better = replace(same, second=Method(0.91, 0.015))
        found = study_rate(better, (seeds, seeds), report.studies, 300 + number)
        taken = "pairs" if paired else "independent"
        rows.append([correlation, taken, seeds, percent(rate), percent(found)])
    head = ["correlation", "taken as", "seeds", "false findings, %", "true difference found, %"]
    report.add(*table(head, rows), "")


def other_rules(report: Report) -> None:
    """What other ways of asking the same question do."""
    report.add(
        "## What other rules do",
        "",
        "No true difference; 5 seeds, 1,000 items, accuracy 0.9, seed std 1 point, affinity 1 logit.",
        "",
    )
    method = Method(0.9, 0.01)
    names = ("this test", "Welch's t test on the seeds' accuracies", "McNemar (mid-p) on one model of each")
    found: dict[str, list[bool]] = {name: [] for name in names}
    for a, b in simulated(np.random.default_rng(400), (method, method), (5, 5), 1000, report.studies):
        found[names[0]].append(fires(compare_methods(a, b)))
        found[names[1]].append(welch_p(a.mean(axis=1), b.mean(axis=1)) < ALPHA)
        found[names[2]].append(compare_models(a[0], b[0]).p < ALPHA)
    report.add(*table(["rule", "false findings, %"], [[k, percent(float(np.mean(v)))] for k, v in found.items()]), "")
    report.add(
        "McNemar's test is not wrong: it answers another question. Two models from different seeds do differ.", ""
    )


def welch_p(a: Floats, b: Floats) -> float:
    parts = np.array([a.var(ddof=1) / a.size, b.var(ddof=1) / b.size])
    freedom = parts.sum() ** 2 / (parts**2 / (np.array([a.size, b.size]) - 1)).sum()
    return float(2 * stdtr(freedom, -abs(a.mean() - b.mean()) / math.sqrt(parts.sum())))


def rule_for_freedom(report: Report) -> None:
    """The rule for the degrees of freedom, in normal samples with every mixture of variances."""
    report.add(
        "## The rule for the degrees of freedom",
        "",
        "Normal samples: two variances over seeds, one 1 to 1,000 times the other, and a known part of the items,",
        "0 to 30 times theirs. Range of the rates of false findings over all mixtures (100,000 samples each).",
        "",
    )
    rng = np.random.default_rng(500)
    rows = []
    for seeds in (3, 4, 5, 10):
        rates = np.array(
            [
                _normal_rates(rng, seeds, ratio, part * (1 + ratio))
                for ratio, part in product((1, 2, 4, 9, 30, 100, 1000), (0, 0.1, 0.2, 0.4, 1, 3, 30))
            ]
        )
        low, high = rates.min(axis=0), rates.max(axis=0)
        rows.append([seeds, *(f"{percent(a)} to {percent(b)}" for a, b in zip(low, high, strict=True))])
        limit = LIMITS.get(seeds, (0.0, 0.065))
        for rate in rates[:, 1]:
            report.check(f"normal samples, {seeds} seeds", float(rate), *limit)
    report.add(*table(["seeds", "Satterthwaite, %", "used here, %"], rows), "")


def _normal_rates(rng: np.random.Generator, seeds: int, ratio: float, item_part: float) -> tuple[float, float]:
    n, freedom = 100_000, seeds - 1
    one, other = rng.chisquare(freedom, n) / freedom, ratio * rng.chisquare(freedom, n) / freedom
    t = np.abs(rng.standard_normal(n)) * math.sqrt(1 + ratio + item_part) / np.sqrt(one + other + item_part)
    squares = (one**2 + other**2) / freedom
    satterthwaite = (one + other + item_part) ** 2 / squares
    ours = degrees_of_freedom(one + other, (one + other) ** 2 / squares, item_part, math.inf)
    return tuple(float(np.mean(2 * stdtr(df, -t) < ALPHA)) for df in (satterthwaite, ours))  # type: ignore[return-value]


def mcc_of(gold: NDArray[np.bool_], right: NDArray[np.bool_]) -> Callable[[NDArray[np.int64]], Floats]:
    """Matthews' correlation of two classes as a score of resamples."""
    cell = np.zeros((gold.size, 4))
    cell[np.arange(gold.size), 2 * gold + right] = 1

    def score(counts: NDArray[np.int64]) -> Floats:
        false_positive, true_negative, false_negative, true_positive = (counts @ cell).T
        product_of_margins = (
            (true_positive + false_positive)
            * (true_positive + false_negative)
            * (true_negative + false_positive)
            * (true_negative + false_negative)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            value: Floats = (true_positive * true_negative - false_positive * false_negative) / np.sqrt(
                product_of_margins
            )
        return value

    return score


def whole_set_metrics(report: Report) -> None:
    report.add(
        "## Metrics of the whole set",
        "",
        "MCC with 30 % positive rows, no true difference: methods by jackknife values (seed std 1 point of accuracy,",
        "affinity 1 logit), trained models by the paired bootstrap (no seed effect).",
        "",
    )
    studies, items, rows = min(report.studies, 2000), 400, []
    for seeds in LIMITS:
        rng = np.random.default_rng([600, seeds])
        method = Method(0.88, 0.01)
        events = []
        for a, b in simulated(rng, (method, method), (seeds, seeds), items, studies):
            gold = rng.random(items) < 0.3
            values = [np.array([jackknife_values(mcc_of(gold, run), items) for run in runs]) for runs in (a, b)]
            events.append(fires(compare_methods(*values)))
        rate = float(np.mean(events))
        report.check(f"MCC, methods, {seeds} seeds", rate, 0, 0.065)
        rows.append([f"methods, {seeds} seeds, {items} items", percent(rate)])
    rng = np.random.default_rng(601)
    model = Method(0.88, 0.0, affinity_std=0.0)
    events = []
    for a, b in simulated(rng, (model, model), (1, 1), items, studies):
        gold = rng.random(items) < 0.3
        claim = paired_bootstrap(mcc_of(gold, a[0]), mcc_of(gold, b[0]), items, resamples=500)
        events.append(claim.p < ALPHA)
    report.check("MCC, models", float(np.mean(events)), 0.03, 0.07)
    rows.append([f"models, {items} items", percent(float(np.mean(events)))])
    report.add(*table(["claim", "false findings, %"], rows), "", f"{studies:,} studies each.", "")


def trained_models(report: Report) -> None:
    report.add("## Two trained models without a true difference", "")
    report.add("Accuracy 0.9, equal on every item but for chance; McNemar's test with the mid-p value.", "")
    rows = []
    for items in (138, 400, 2000):
        model = Method(0.9, 0.0, affinity_std=0.0)
        pairs = simulated(np.random.default_rng([700, items]), (model, model), (1, 1), items, report.studies)
        rate = share(compare_models(a[0], b[0]).p < ALPHA for a, b in pairs)
        report.check(f"McNemar, {items} items", rate, 0.03, 0.065)
        rows.append([items, percent(rate)])
    report.add(*table(["items", "false findings, %"], rows), "")


def intervals(report: Report) -> None:
    report.add(
        "## Intervals of a method's mean",
        "",
        "How often the 95 % interval holds the accuracy over all seeds and items; accuracy 0.88, seed std 1.5 points.",
        "",
    )
    studies, rows = min(report.studies, 2000), []
    method = Method(0.88, 0.015)
    for items, seeds in product((400, 4000), (3, 5, 10)):
        counts = np.zeros(3)
        for (scores,) in simulated(np.random.default_rng([800, items, seeds]), (method,), (seeds,), items, studies):
            mean = mean_of_method(scores)
            assert isinstance(mean, MethodMean)
            found = (
                mean.interval,
                mean_interval_over_seeds(scores, resamples=1000),
                mean_interval(scores.mean(axis=0), resamples=1000),
            )
            counts += [low <= method.accuracy <= high for low, high in found]
        rows.append([items, seeds, *(percent(count / studies) for count in counts)])
        report.check(f"interval of a mean, {items} items, {seeds} seeds", counts[0] / studies, 0.935, 0.98)
    head = [
        "items",
        "seeds",
        "t over seeds and items, %",
        "bootstrap over seeds and items, %",
        "bootstrap over items alone, %",
    ]
    report.add(*table(head, rows), "", f"{studies:,} studies each.", "")


def ties(report: Report) -> None:
    report.add(
        "## Tied with the best",
        "",
        "Methods without any true difference: share of studies in which at least one is called worse than the best.",
        "Correcting only for the comparisons with the best forgets that the best was chosen from the same numbers.",
        "",
    )
    studies, rows = min(report.studies, 4000), []
    method = Method(0.9, 0.01)
    for count, seeds in product((3, 5, 10), (5, 3)):
        names = [f"m{k}" for k in range(count)]
        wrong, wrong_few = [], []
        rng = np.random.default_rng([900, count, seeds])
        for answers in simulated(rng, [method] * count, [seeds] * count, 400, studies):
            scores = dict(zip(names, answers, strict=True))
            means = {name: float(of.mean()) for name, of in scores.items()}
            claims = compare_all(scores)
            found = tied_with_best(means, claims)
            wrong.append(bool(found.worse))
            with_best = {pair: claim for pair, claim in claims.items() if found.best in pair}
            wrong_few.append(min(holm_of_claims(with_best).values()) < ALPHA)
        rate = float(np.mean(wrong))
        report.check(f"ties of {count} methods, {seeds} seeds", rate, 0, 0.065)
        rows.append([count, seeds, percent(rate), percent(float(np.mean(wrong_few)))])
    head = ["methods", "seeds", "all pairs (used here), %", "pairs with the best, %"]
    report.add(*table(head, rows), "", f"{studies:,} studies each.", "")


def planning(report: Report) -> None:
    report.add(
        "## Power",
        "",
        "Chance to find a true difference (accuracy 0.88 against 0.90, affinity 1 logit), predicted from the variance",
        "components by the noncentral t distribution, and in simulated studies.",
        "",
    )
    studies, rows = min(report.studies, 4000), []
    for number, (seed_std, items) in enumerate(product((0.005, 0.015), (400, 1000, 4000))):
        methods = (Method(0.88, seed_std), Method(0.90, seed_std))
        components = true_components(methods, number)
        for seeds in (3, 5, 10):
            predicted = power(0.02, components, seeds, items)
            pairs = simulated(np.random.default_rng([1000, number, seeds]), methods, (seeds, seeds), items, studies)
            found = share(fires(compare_methods(a, b)) for a, b in pairs)
            report.check(f"power {seed_std, items, seeds}", found - predicted + 0.5, 0.45, 0.55)
            rows.append([f"{100 * seed_std:g}", items, seeds, percent(predicted), percent(found)])
    report.add(*table(["seed std, points", "items", "seeds", "predicted, %", "simulated, %"], rows), "")
    rows = []
    for number, (seed_std, items) in enumerate(product((0.005, 0.015), (400, 1000, 4000))):
        methods = (Method(0.88, seed_std), Method(0.90, seed_std))
        components = true_components(methods, number)
        seeds = seeds_needed(0.02, components, items)
        enough = items_needed(0.02, components, 5)
        found = "-"
        if seeds is not None:
            pairs = simulated(np.random.default_rng([1100, number]), methods, (seeds, seeds), items, studies)
            rate = share(fires(compare_methods(a, b)) for a, b in pairs)
            report.check(f"power at the seeds needed {seed_std, items}", rate, 0.75, 1)
            found = percent(rate)
        rows.append([f"{100 * seed_std:g}", items, seeds or "no number is enough", found, enough or "no number"])
    head = ["seed std, points", "items", "seeds needed for 80 %", "simulated with them, %", "items needed at 5 seeds"]
    report.add(*table(head, rows), "", f"{studies:,} studies each.", "")


def true_components(methods: tuple[Method, Method], salt: int) -> Components:
    """Variance components of the simulated answers, from studies far larger than any real one."""
    rng = np.random.default_rng([1200, salt])
    found = []
    for a, b in simulated(rng, methods, (40, 40), 4000, 60):
        claim = compare_methods(a, b)
        assert isinstance(claim, MethodDifference)
        assert claim.components is not None
        found.append(claim.components)
    seed, residual = (np.mean([getattr(c, name) for c in found], axis=0) for name in ("seed", "residual"))
    return Components(tuple(map(float, seed)), tuple(map(float, residual)), float(np.mean([c.item for c in found])))


SECTIONS = (
    sizes,
    false_findings,
    false_findings_beyond,
    shared_seeds,
    other_rules,
    rule_for_freedom,
    trained_models,
    whole_set_metrics,
    intervals,
    ties,
    planning,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--studies", type=int, default=10_000, help="simulated studies of each setting (default 10,000)"
    )
    parser.add_argument("--markdown", type=Path, help="write the output there")
    parser.add_argument("--only", choices=[section.__name__ for section in SECTIONS], help="one section")
    options = parser.parse_args()
    report = Report(options.studies, [], [])
    started = time.perf_counter()
    report.add(
        "# How often the statistics err",
        "",
        f"Written by `python benchmarks/statistics_simulation.py --studies {options.studies}`: {options.studies:,}",
        "simulated studies of each setting, put through the functions that reports use, at the 5 % level. An item is",
        "answered rightly with the probability logistic(mean of the method + ability of the seed + difficulty of the",
        "item + affinity of the item to the method), all effects normal, the difficulty with a standard deviation of 3",
        "logits unless said otherwise. Without a true difference both methods have the same accuracy over all seeds",
        "and all items.",
        "",
    )
    for section in SECTIONS:
        if options.only in (None, section.__name__):
            section(report)
    minutes = (time.perf_counter() - started) / 60
    verdict = "Every rate is within its limits." if not report.faults else "Outside the limits:"
    report.add(verdict, *(f"- {fault}" for fault in report.faults))
    print(f"{minutes:.1f} minutes")
    if options.markdown is not None:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text("\n".join(report.lines) + "\n", encoding="utf-8")
    return 1 if report.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
