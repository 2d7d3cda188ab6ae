"""Learning-rate schedules as pure functions of the step: nothing to save, nothing to restore.

The one that looks at the losses, reduce-on-plateau, keeps its state in the run's progress (see ``Plateau``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from adaptlab.config import RISES_BY_ITSELF, Schedule

#: ``(steps since warm-up, steps after warm-up, warm-up steps) -> factor of the peak rate``
Shape = Callable[[int, int, int], float]

#: OneCycleLR starts and ends at these shares of the peak, and rises for this share of the steps (arXiv 1708.07120;
#: torch's defaults).
_CYCLE_START, _CYCLE_END, _CYCLE_RISE = 1 / 25, 1 / 25e4, 0.3
#: torch's LinearLR: from a third of the rate to all of it, over five steps.
_LINEAR_LR_START, _LINEAR_LR_STEPS = 1 / 3, 5


def _one_cycle(step: int, total: int, _: int) -> float:
    top = max(1.0, _CYCLE_RISE * total - 1)
    if step <= top:
        return _cosine_between(_CYCLE_START, 1.0, step / top)
    return _cosine_between(1.0, _CYCLE_END, (step - top) / max(1.0, total - 1 - top))


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * share))


def _linear_lr(step: int, _total: int, _warmup: int) -> float:
    return _LINEAR_LR_START + (1.0 - _LINEAR_LR_START) * min(1.0, step / _LINEAR_LR_STEPS)


_SHAPES: dict[Schedule, Shape] = {
    "constant": lambda step, total, warmup: 1.0,
    "linear": lambda step, total, warmup: 1.0 - step / total,
    "cosine": lambda step, total, warmup: 0.5 * (1.0 + math.cos(math.pi * step / total)),
    "one-cycle": _one_cycle,
    "linear-lr": _linear_lr,
    # As transformers' get_inverse_sqrt_schedule, whose time scale is the warm-up (10,000 without one).
    "inverse-sqrt": lambda step, total, warmup: math.sqrt((warmup or 10_000) / (step + (warmup or 10_000))),
    "reduce-on-plateau": lambda step, total, warmup: 1.0,  # times Plateau.factor
}


def factor(schedule: Schedule, step: int, total_steps: int, warmup_ratio: float) -> float:
    """What the peak rate is multiplied by at optimiser step ``step`` (counted from 0) of ``total_steps``.

    Warm-up rises linearly from 0 over ``ceil(warmup_ratio * total_steps)`` steps, as transformers' schedules do. The
    schedules that rise by themselves (one-cycle, linear-lr) have no other warm-up.
    """
    warmup = 0 if schedule in RISES_BY_ITSELF else math.ceil(warmup_ratio * total_steps)
    if step < warmup:
        return step / warmup
    return _SHAPES[schedule](step - warmup, max(1, total_steps - warmup), warmup)


@dataclass
class Plateau:
    """reduce-on-plateau: a tenth of the rate when the selection loss has not fallen for two evaluations in a row.

    Torch's ReduceLROnPlateau with ``patience=1`` (an evaluation is usually an epoch) and ``threshold=1e-4``.
    """

    best: float = math.inf
    bad: int = 0
    factor: float = 1.0

    def see(self, loss: float) -> None:
        """Take note of an evaluation."""
        if loss < self.best * (1.0 - 1e-4):
            self.best, self.bad = loss, 0
            return
        self.bad += 1
        if self.bad > 1:
            self.factor, self.bad = self.factor * 0.1, 0
