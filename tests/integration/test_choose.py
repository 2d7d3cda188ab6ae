"""From a model, a task and a budget to an exported model."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import adaptlab
from adaptlab.cli.choose import _BYTES, _COUNTS, _SECONDS, amount
from adaptlab.config import StudyConfig
from adaptlab.errors import ConfigError
from adaptlab.study.events import Event, RunStarted

Build = Callable[..., StudyConfig]


def test_the_best_is_exported_with_its_score_and_the_same_call_says_it_again(tiny_study: Build, tmp_path: Path) -> None:
    study = tiny_study(methods=["head", "lora"], seeds=2, learning_rate="auto", steps=60)
    began = time.monotonic()
    chosen = adaptlab.choose(study, budget_seconds=60, out=tmp_path / "study")
    assert time.monotonic() - began < 66
    assert chosen.method in ("head", "lora")
    assert {tried["method"] for tried in chosen.tried} == {"head", "lora"}
    assert chosen.score in chosen.seed_scores
    assert list(chosen.model.glob("*.safetensors"))
    assert chosen.page.is_file()
    events: list[Event] = []
    again = adaptlab.choose(study, budget_seconds=60, out=tmp_path / "study", listener=events.append)
    assert again == chosen
    assert not [event for event in events if isinstance(event, RunStarted)]


def test_limits_leave_methods_out_before_anything_is_trained(tiny_study: Build, tmp_path: Path) -> None:
    study = tiny_study(methods=["head", "full"], seeds=1, learning_rate="auto", steps=20)
    chosen = adaptlab.choose(study, budget_seconds=60, out=tmp_path / "study", max_parameters=0.01)
    assert list(chosen.left_out) == ["full"]
    assert chosen.method == "head"
    with pytest.raises(ConfigError, match="No method keeps to the limits"):
        adaptlab.choose(study, budget_seconds=60, out=tmp_path / "other", max_parameters=3)
    assert not (tmp_path / "other").exists()


def test_several_tasks_are_a_comparison_and_no_choice(tiny_study: Build, tmp_path: Path) -> None:
    study = tiny_study(train_examples=[10, 20])
    with pytest.raises(ConfigError, match="train-examples"):
        adaptlab.choose(study, budget_seconds=60, out=tmp_path / "study")


@pytest.mark.parametrize(
    ("text", "units", "value"),
    [
        ("1h30min", _SECONDS, 5400),
        ("90s", _SECONDS, 90),
        ("8GB", _BYTES, 8e9),
        ("1%", _COUNTS, 0.01),
        ("2M", _COUNTS, 2e6),
    ],
)
def test_amounts_are_read_with_their_units(text: str, units: dict[str, float], value: float) -> None:
    assert amount("--x", text, units, "") == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "min", "20 parsecs", "0s", "-5min", "20"])
def test_other_amounts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--budget"):
        amount("--budget", text, _SECONDS, "20min")
