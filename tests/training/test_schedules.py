from __future__ import annotations

from typing import get_args

import pytest
import torch
import transformers

from adaptlab.config import Schedule
from adaptlab.training.schedules import Plateau, factor


def torch_factors(make: object, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer)  # type: ignore[operator]
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("linear", "linear"),
        ("cosine", "cosine"),
        ("constant", "constant_with_warmup"),
        ("inverse-sqrt", "inverse_sqrt"),
    ],
)
def test_factors_equal_transformers_schedules(ours: Schedule, theirs: str) -> None:
    expected = torch_factors(lambda o: transformers.get_scheduler(theirs, o, 3, 50), 50)
    assert [factor(ours, step, 50, 0.06) for step in range(50)] == pytest.approx(expected, abs=1e-12)


def test_one_cycle_and_linear_lr_equal_torchs() -> None:
    cycle = torch_factors(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=51), 50)
    assert [factor("one-cycle", step, 51, 0.5) for step in range(50)] == pytest.approx(cycle, abs=1e-9)
    linear = torch_factors(torch.optim.lr_scheduler.LinearLR, 20)
    assert [factor("linear-lr", step, 20, 0.5) for step in range(20)] == pytest.approx(linear, abs=1e-9)


def test_plateau_equals_torchs() -> None:
    losses = [1.0, 0.9, 0.95, 0.91, 0.92, 0.93, 0.5, 0.6, 0.7, 0.8, 0.9]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=1, threshold=1e-4)
    ours = Plateau()
    for loss in losses:
        theirs.step(loss)
        ours.see(loss)
        assert ours.factor == pytest.approx(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("name", get_args(Schedule))
def test_every_schedule_stays_within_the_peak(name: Schedule) -> None:
    assert all(0.0 <= factor(name, step, 37, 0.1) <= 1.0 + 1e-12 for step in range(37))
