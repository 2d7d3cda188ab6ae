"""What a budget buys: the best selection score that a method's runs had reached by a cost, and the cost to reach one.

The score at a budget X is read from the learning curves: for each seed the best score on the selection rows up to X,
then the mean over seeds. It rises in steps, at the evaluations, so a curve with few of them says little.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell

#: What training spends as it goes on, as in curve.jsonl.
Spent = Literal["flops", "seconds"]
SPENT: tuple[Spent, ...] = ("flops", "seconds")
#: Shares of the best score to which the cost is told.
SHARES = (0.95, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Stairs:
    """A run's best selection score so far: from ``costs[i]`` on it is ``scores[i]``; both in the order of the steps."""

    costs: tuple[float, ...]
    scores: tuple[float, ...]

    def at(self, budget: float) -> float | None:
        """The best score up to ``budget``; ``None`` if the first evaluation came later."""
        step = bisect_right(self.costs, budget) - 1
        return self.scores[step] if step >= 0 else None


def stairs(run: RunRow, spent: Spent) -> Stairs | None:
    """The stairs of a finished run; ``None`` where its curve lacks the cost or the primary metric."""
    if run.primary is None or run.status != "finished":
        return None
    sign = 1 if run.primary.higher_is_better else -1
    costs: list[float] = []
    scores: list[float] = []
    for point in run.curve.points:
        cost, score = getattr(point, spent), point.metrics.get(run.primary.name)
        if cost is None or score is None or not (math.isfinite(cost) and math.isfinite(score)):
            continue
        if not scores or sign * score > sign * scores[-1]:
            costs.append(cost)
            scores.append(score)
    return Stairs(tuple(costs), tuple(scores)) if scores else None


def stairs_of(cell: Cell, spent: Spent, machine: str | None = None) -> list[Stairs]:
    """Those of all its finished runs (on ``machine``, if given); empty as soon as one of them has none."""
    runs = [run for run in cell.finished if machine is None or run.environment.fingerprint == machine]
    found = [stairs(run, spent) for run in runs]
    return [one for one in found if one is not None] if None not in found else []


def mean_at(found: Sequence[Stairs], budget: float) -> float | None:
    """Mean over the runs of the best score up to ``budget``; ``None`` while one of them was not evaluated yet."""
    scores = [one.at(budget) for one in found]
    known = [score for score in scores if score is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(scores) else None


def cost_to_reach(found: Sequence[Stairs], target: float, *, higher_is_better: bool) -> float | None:
    """The least budget at which :func:`mean_at` is at least as good as ``target``; ``None``: never."""
    for budget in sorted({cost for one in found for cost in one.costs}):
        mean = mean_at(found, budget)
        if mean is not None and _reached(mean, target, higher_is_better):
            return budget
    return None


def _reached(mean: float, target: float, higher_is_better: bool) -> bool:
    slack = 1e-9 * abs(target)  # means are rounded
    return mean >= target - slack if higher_is_better else mean <= target + slack


def final(found: Sequence[Stairs]) -> float | None:
    """The mean over runs of the best score of the whole training."""
    return mean_at(found, math.inf) if found else None


def target_of(best: float, share: float, *, higher_is_better: bool) -> float | None:
    """``share`` of the score ``best``; of a loss, the best divided by it. ``None``: shares of it mean nothing."""
    if share == 1:
        return best
    if best <= 0:
        return None
    return share * best if higher_is_better else best / share


def main_machine(cells: Sequence[Cell]) -> str | None:
    """The machine on which most finished runs of ``cells`` ran: clocks and memory of others do not compare with it."""
    machines = [run.environment.fingerprint for cell in cells for run in cell.finished]
    return max(dict.fromkeys(machines), key=machines.count) if machines else None
