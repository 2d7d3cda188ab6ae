"""Ending a search's poor trials early: they train for a share of the steps first, and the better ones for more.

Every trial is trained for a ninth of its length, with a schedule of that length; what Optuna's pruner lets go on is
trained anew for a third, and what is left for all of it. So a trial is a run like any other, whoever executes it, and
what is pruned depends on scores alone, never on who was faster. What training anew costs is counted.

The bias that remains is told, not removed: a short training favours what learns fast, high rates above all. How far the
first scores had the later ones' order is in the records, for the trials of which both are known.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from adaptlab.config import BUDGETS, Pruner, TrainingConfig

if TYPE_CHECKING:
    import optuna

#: Of each next round a trial has three times the steps, the last being all.
FACTOR = 3
WHOLE = FACTOR * FACTOR


def rounds(pruner: Pruner) -> tuple[int, ...]:
    """Lengths of a trial's trainings, in shares of which ``WHOLE`` make all."""
    return (WHOLE,) if pruner == "none" else (1, FACTOR, WHOLE)


def optuna_pruner(pruner: Pruner, trials: int) -> optuna.pruners.BasePruner:
    """Optuna's pruner of that name: ``halving`` (arXiv 1810.05934) keeps the best third, ``median`` the better half."""
    from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner

    if pruner == "halving":
        return SuccessiveHalvingPruner(min_resource=1, reduction_factor=FACTOR)
    if pruner == "median":
        return MedianPruner(n_startup_trials=max(1, math.ceil(trials / 4)))
    return NopPruner()


def shortened(training: TrainingConfig, share: int) -> TrainingConfig:
    """``training`` with ``share`` of ``WHOLE`` of its length, whatever it is counted in."""
    if share == WHOLE:
        return training
    update: dict[str, float] = {}
    for key in ("epochs", "steps", *BUDGETS):
        length = getattr(training, key)
        if length is not None:
            part = length * share / WHOLE
            update[key] = part if isinstance(length, float) else math.ceil(part)
    return training.model_copy(update=update)


def agreement(scores: Sequence[Mapping[int, float]]) -> float | None:
    """The share of pairs of trials whose first scores have the order of their last; ``None`` without a pair.

    Args:
        scores: of each trial by the length of its training; pairs are of trials that were trained whole, and ties in
            either of the scores count as half.
    """
    whole = [(each[1], each[WHOLE]) for each in scores if 1 in each and WHOLE in each]
    pairs = [(a[0] - b[0]) * (a[1] - b[1]) for a, b in itertools.combinations(whole, 2)]
    return sum(1.0 if pair > 0 else 0.5 if pair == 0 else 0.0 for pair in pairs) / len(pairs) if pairs else None
