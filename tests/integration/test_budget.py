"""Budgets of whole runs: what records say ended them, alone, beside others in a group, and after a resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import adaptlab
from adaptlab.config import StudyConfig
from adaptlab.errors import ConfigError, InterruptedRunError
from adaptlab.runs.record import Record
from adaptlab.study.document import read_study
from adaptlab.study.events import RunsPacked, StepDone
from adaptlab.study.expand import expand

Build = Callable[..., StudyConfig]


def run(tiny_study: Build, out: Path, **settings: Any) -> list[Record]:
    return adaptlab.compare(tiny_study(**{"steps": None, **settings}), out=out).records


def test_equal_flops_are_other_steps_for_other_methods(tiny_study: Build, tmp_path: Path) -> None:
    records = run(tiny_study, tmp_path / "study", methods=["head", "lora", "full"], max_flops=3e7)
    for record in records:
        assert record.status == "finished", record.error
        assert record.training["ended_by"] == "flops"
        flops, steps = record.cost.train_flops, record.training["steps"]
        assert flops is not None
        assert 3e7 - 2 * flops / steps < flops <= 3e7
    head, _, full = (record.training["steps"] for record in records)
    assert head > full


def test_a_fused_group_lets_go_of_runs_that_have_had_theirs(tiny_study: Build, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"methods": ["lora", "ia3"], "dtype": "float64"}
    settings |= {"max_examples": [24, 43], "max_flops": 1e9, "max_bytes": 10_000}
    execution = {"device": "cpu", "threads": 1, "measure": "run"}
    solo = run(tiny_study, tmp_path / "solo", **settings, execution=execution)
    packed: list[RunsPacked] = []
    study = tiny_study(**{"steps": None, **settings, "execution": {**execution, "engine": "fused"}})
    fused = adaptlab.compare(
        study, out=tmp_path / "fused", listener=lambda e: packed.append(e) if isinstance(e, RunsPacked) else None
    ).records
    assert [len(group) for group in packed[0].groups] == [4]
    assert [record.training["steps"] for record in fused] == [3, 3, 5, 5]
    for one, other in zip(solo, fused, strict=True):
        assert {**one.training, "group_size": 4} == pytest.approx({**other.training, "group_size": 4})
        assert one.metrics == other.metrics


def test_a_budget_of_seconds_is_kept_alone_and_counts_what_was_spent(tiny_study: Build, tmp_path: Path) -> None:
    execution = {"device": "cpu", "threads": 1, "measure": "run", "engine": "fused"}
    study = tiny_study(steps=None, max_seconds=0.5, methods=["lora"], seeds=2, execution=execution)
    seen = 0

    class CrashError(Exception):
        pass

    def stop(event: object) -> None:
        nonlocal seen
        seen += isinstance(event, StepDone)
        if seen == 5:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, InterruptedRunError)):
        adaptlab.compare(study, out=tmp_path / "study", listener=stop)
    for record in adaptlab.compare(study, out=tmp_path / "study").records:
        assert record.training["ended_by"] == "seconds"
        assert record.engine == "solo"
        assert record.cost.train_seconds is not None
        assert record.cost.train_seconds < 0.75
        assert record.training["steps"] > 5


def test_epochs_and_steps_are_said_where_they_end_it(tiny_study: Build, tmp_path: Path) -> None:
    (short,) = run(tiny_study, tmp_path / "short", methods=["head"], steps=3, max_examples=1000)
    (whole,) = run(tiny_study, tmp_path / "whole", methods=["head"], epochs=0.1)
    assert (short.training["ended_by"], whole.training["ended_by"]) == ("steps", "epochs")


def test_a_budget_alone_has_no_epochs_also_when_the_study_is_read_again(tiny_study: Build, tmp_path: Path) -> None:
    study = tiny_study(steps=None, max_tokens=["500", "1e3"], methods=["head"])
    assert [(r.training.epochs, r.training.steps, r.training.max_tokens) for r in expand(study)] == [
        (None, None, 500),
        (None, None, 1000),
    ]
    folder = adaptlab.compare(study, out=tmp_path / "study").folder
    again = read_study(folder / "study.yaml")
    assert again.epochs is None
    assert not [run for run in adaptlab.compare(again, out=folder).records if run.name not in _names(folder)]


def test_budgets_change_no_id_of_runs_without_one(tiny_study: Build) -> None:
    (plain,) = expand(tiny_study(methods=["head"]))
    assert not [key for key in plain.training.model_dump(exclude_defaults=True) if key.startswith("max_")]


def test_adalora_must_know_its_end(tiny_study: Build, tmp_path: Path) -> None:
    (timed,) = run(tiny_study, tmp_path / "timed", methods=["adalora"], max_seconds=1)
    assert timed.error is not None
    assert "--max-seconds alone does not tell it" in timed.error.message
    (counted,) = run(tiny_study, tmp_path / "counted", methods=["adalora"], max_examples=100)
    assert counted.status == "finished"


def test_a_budget_below_a_step_fails_the_run_with_a_sentence(tiny_study: Build, tmp_path: Path) -> None:
    (record,) = run(tiny_study, tmp_path / "study", methods=["head"], max_tokens=3)
    assert record.error is not None
    assert "--max-tokens 3 is less than the first step takes" in record.error.message
    with pytest.raises(ConfigError, match="max_tokens"):
        tiny_study(max_tokens=0)


def _names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "runs").iterdir()}
