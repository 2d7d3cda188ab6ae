"""Learning-rate schedules as pure functions of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from collections.abc import Callable

from adaptlab.errors import unknown_name

#: ``(progress after warm-up, in [0, 1)) -> factor of the peak rate``
_SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}


def names() -> list[str]:
    """The schedules there are."""
    return sorted(_SHAPES)


def factor(schedule: str, step: int, total_steps: int, warmup_ratio: float) -> float:
    """What the peak rate is multiplied by at optimiser step ``step`` (counted from 0) of ``total_steps``.

    Warm-up rises linearly from 0 over ``ceil(warmup_ratio * total_steps)`` steps, as transformers' schedules do.

    Raises:
        UnknownNameError: no schedule is called so.
    """
    if schedule not in _SHAPES:
        raise unknown_name("schedule", schedule, _SHAPES)
    warmup = math.ceil(warmup_ratio * total_steps)
    if step < warmup:
        return step / warmup
    return _SHAPES[schedule]((step - warmup) / max(1, total_steps - warmup))
