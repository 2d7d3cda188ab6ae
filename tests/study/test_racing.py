"""A race on a clock of its own: what it keeps to, whom it lets go on, and what it makes of a call cut short."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from adaptlab.config import MethodConfig, ModelConfig, RunConfig, RunIdentity, TaskConfig
from adaptlab.errors import ConfigError
from adaptlab.runs.record import ConfigPart, Cost, Primary, Record
from adaptlab.study.racing import Race, entrants
from adaptlab.study.schedule import Outcome

#: Seconds of a step, and the score that a method comes to after long training at its best rate.
SPEED = {"head": 0.1, "lora": 0.3, "full": 1.0}
LIMIT = {"head": 0.70, "lora": 0.90, "full": 0.905}
OVERHEAD = 1.0
NOTHING = RunIdentity(weights="", data="", task="", task_version=1)


class Track:
    """Has runs done without training anything; its clock moves as runs would take."""

    def __init__(self, *, failing: str = "") -> None:
        self.now = 0.0
        self.done: list[RunConfig] = []
        self.failing = failing

    def clock(self) -> float:
        return self.now

    def do(self, runs: Sequence[RunConfig]) -> tuple[Outcome, list[Record]]:
        records = [self._record(run) for run in runs]
        return Outcome(records), records

    def _record(self, run: RunConfig) -> Record:
        name, steps = run.method.name, run.training.steps or 0
        self.done.append(run)
        self.now += OVERHEAD + steps * SPEED[name]
        worse = 0.2 * abs(float(run.training.learning_rate) / MIDDLE[name] - 1)
        score = LIMIT[name] * steps / (steps + 10) - worse
        record = Record(
            id=str(len(self.done)),
            name=f"{name}-{len(self.done)}",
            status="failed" if name == self.failing else "finished",
            config=ConfigPart(given=run, resolved=run, identity=NOTHING),
            cost=Cost(train_seconds=steps * SPEED[name], step_seconds=SPEED[name], load_seconds=OVERHEAD),
            training={"select_score": score, "select_metric": "accuracy"},
        )
        if run.report:
            record.primary = Primary(name="accuracy", value=score, stderr=0.01, n=400, evaluation_set="validation")
        return record


def run_of(name: str) -> RunConfig:
    return RunConfig(model=ModelConfig(id="m"), task=TaskConfig(name="t"), method=MethodConfig(name=name, label=name))


MIDDLE = {e.label: e.rate for e in reversed(entrants(run_of(name) for name in SPEED))}


def race(track: Track, folder: Path, budget: float, **more: Any) -> Race:
    return Race(
        entrants(run_of(name) for name in SPEED),
        track.do,
        lambda record: 300,
        (0, 1, 2),
        budget_seconds=budget,
        reserve_seconds=0.0,
        folder=folder,
        clock=track.clock,
        **more,
    )


@pytest.mark.parametrize("budget", [60.0, 150.0, 400.0, 1000.0, 5000.0])
def test_it_keeps_to_the_budget_within_a_tenth(budget: float, tmp_path: Path) -> None:
    track = Track()
    choice = race(track, tmp_path, budget).run()
    assert choice.seconds == track.now <= 1.1 * budget
    assert choice.records


def test_with_time_enough_the_best_wins_at_its_best_rate(tmp_path: Path) -> None:
    track = Track()
    choice = race(track, tmp_path, 5000).run()
    assert (choice.method, choice.learning_rate) == ("full", MIDDLE["full"])
    assert len(choice.records) == 3
    steps = [tried.steps for tried in choice.tried]
    assert steps == sorted(steps)
    assert steps[-1] == 300


def test_the_report_rows_are_for_the_final_runs_alone(tmp_path: Path) -> None:
    track = Track()
    choice = race(track, tmp_path, 1000).run()
    reported = [run for run in track.done if run.report]
    assert len(reported) == len(choice.records)
    assert {run.method.name for run in reported} == {choice.method}
    assert track.done[-len(reported) :] == reported


def test_the_winner_is_trained_for_as_long_as_what_is_left_allows(tmp_path: Path) -> None:
    track = Track()
    choice = race(track, tmp_path, 150).run()
    final = next(run for run in track.done if run.report)
    assert max(tried.steps for tried in choice.tried) < (final.training.steps or 0) <= 300
    assert choice.seconds <= 150


def test_what_fails_is_left_out_and_said(tmp_path: Path) -> None:
    track = Track(failing="full")
    choice = race(track, tmp_path, 1000).run()
    assert choice.method == "lora"
    assert "failed" in choice.left_out["full"]


def test_a_second_call_has_less_left(tmp_path: Path) -> None:
    first = Track()
    race(first, tmp_path, 400)._lap()
    second = Track()
    again = race(second, tmp_path, 400)
    assert again.seconds == first.now
    assert again.run().seconds <= 1.1 * 400


def test_no_method_that_can_be_tried_is_an_error_that_says_why(tmp_path: Path) -> None:
    track = Track(failing="head")
    only = entrants([run_of("head")])
    with pytest.raises(ConfigError, match="head: failed"):
        Race(only, track.do, lambda r: 9, (0,), 60.0, 0.0, tmp_path, clock=track.clock).run()
