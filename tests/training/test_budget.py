"""A training ends with the last step that keeps within its budget, whatever the budget is counted in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from adaptlab.errors import ConfigError, InterruptedRunError
from adaptlab.tasks._base import Example
from adaptlab.training import checkpoint
from adaptlab.training.budget import text_bytes
from adaptlab.training.member import Member

from .conftest import TinyRun

Build = Callable[..., TinyRun]


def limited(run: TinyRun) -> TinyRun:
    run.member.row_bytes = np.arange(len(run.data)) + 10
    run.member.limit()
    return run


@pytest.mark.parametrize(("currency", "limit"), [("examples", 100), ("tokens", 1000), ("bytes", 3000)])
def test_a_step_more_would_exceed_it(tiny_run: Build, currency: str, limit: int) -> None:
    run = limited(tiny_run(steps=None, eval_every=4, **{f"max_{currency}": limit})).go()
    spent, end = getattr(run.member.progress, currency), run.member.total_steps
    assert end is not None
    longer = tiny_run(steps=end + 1)
    longer.member.row_bytes = run.member.row_bytes
    assert spent <= limit < getattr(longer.go().member.progress, currency)
    assert (run.member.progress.step, run.member.end) == (end, currency)
    assert run.curve[-1].step == end


def test_the_schedule_knows_the_end(tiny_run: Build) -> None:
    """So the same training in steps has the same losses, to the bit."""
    run = limited(tiny_run(steps=None, max_examples=75)).go()
    assert run.losses == tiny_run(steps=run.member.total_steps).go().losses
    rate = run.curve[-1].learning_rate
    assert rate == pytest.approx(1e-2 / (9 - 1))  # of the last of 9 steps, the first of which warms up


def test_the_least_of_several_ends_it_and_epochs_too(tiny_run: Build) -> None:
    run = limited(tiny_run(steps=5, max_examples=16, max_tokens=10_000)).go()
    assert (run.member.progress.step, run.member.end) == (2, "examples")
    run = limited(tiny_run(steps=5, max_examples=1000)).go()
    assert (run.member.progress.step, run.member.end) == (5, None)


def test_a_budget_below_one_step_is_refused(tiny_run: Build) -> None:
    with pytest.raises(ConfigError, match="--max-examples 7 is less than the first step takes, 8"):
        limited(tiny_run(max_examples=7))


def test_flops_that_cannot_be_counted_cannot_be_limited(tiny_run: Build) -> None:
    with pytest.raises(ConfigError, match="cannot be counted"):
        limited(tiny_run(max_flops=1e9))


class Clock:
    """Every step takes a tenth of a second, the first a half."""

    def __init__(self) -> None:
        self.now, self.asked = 0.0, 0

    def __call__(self) -> float:
        self.asked += 1
        self.now += 0.5 if self.asked == 2 else 0.1 if self.asked % 2 == 0 else 0.0
        return self.now


def test_the_clock_ends_it_and_the_rate_falls_to_then(tiny_run: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptlab.training import loop

    monkeypatch.setattr(loop.time, "perf_counter", Clock())
    run = limited(tiny_run(steps=None, eval_every=1, max_seconds=5.05)).go()
    steps = run.member.progress.step
    assert 4.8 < run.member.progress.seconds <= 5.05
    assert run.member.end == "seconds"
    rates = [point.learning_rate for point in run.curve]
    assert rates[-1] < 0.05 * max(rates)
    assert 40 < steps < 47
    assert run.curve[-1].step == steps


def test_a_resumed_run_counts_what_it_had(tiny_run: Build, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    budget = {"steps": None, "max_tokens": 800}
    whole = limited(tiny_run(**budget)).go()
    broken = limited(tiny_run(**budget))

    def save(member: Member) -> None:
        checkpoint.save(member, folder)

    with pytest.raises(InterruptedRunError):
        broken.go(stop_after=3, save=save)
    resumed = limited(tiny_run(**budget))
    assert checkpoint.load(resumed.member, folder)
    resumed.go()
    assert resumed.member.progress.tokens == whole.member.progress.tokens <= 800
    assert all(torch.equal(p, resumed.member.trained[name]) for name, p in whole.member.trained.items())


def test_bytes_are_those_of_all_texts() -> None:
    assert text_bytes([Example("a", ("süß", "x"), 0), Example("b", ("",), 1)]).tolist() == [6, 0]
