"""All methods at the dearest's FLOPs or seconds: the table says so, and the study keeps its budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import adaptlab
from adaptlab.config import StudyConfig
from adaptlab.errors import ConfigError
from adaptlab.study.expand import expand

Build = Callable[..., StudyConfig]


def test_every_method_gets_what_the_dearest_takes(tiny_study: Build, tmp_path: Path) -> None:
    study = tiny_study(methods=["head", "full"], steps=None, epochs=1.0, equalize="flops")
    result = adaptlab.compare(study, out=tmp_path / "study")
    head, full = result.records
    (budget,) = {record.config.given.training.max_flops for record in result.records}
    assert budget is not None
    for record in result.records:
        assert record.training["ended_by"] == "flops"
        assert record.cost.train_flops is not None
        step = record.cost.train_flops / record.training["steps"]
        assert budget - 2 * step < record.cost.train_flops <= budget
    an_epoch = full.data.sizes["train"] if full.data is not None else 0
    assert full.training["examples"] == pytest.approx(an_epoch, abs=2 * 8)  # the dearest trains as long as it was asked
    assert head.training["examples"] > an_epoch
    page = (result.folder / "report" / "index.html").read_text()
    assert "Methods are compared at equal FLOPs" in page
    grown = study.model_copy(update={"seeds": (0, 1)})
    again = adaptlab.compare(grown, out=tmp_path / "study")
    assert len(again.skipped) == 2
    assert {record.config.given.training.max_flops for record in again.records} == {budget}


def test_equal_seconds_are_one_limit_for_all(tiny_study: Build, tmp_path: Path) -> None:
    study = tiny_study(methods=["head", "lora"], equalize="seconds", equal_budgets={"weather": 0.3})
    for run in expand(study):
        assert (run.training.max_seconds, run.training.epochs, run.training.steps) == (0.3, None, None)


def test_several_lengths_or_budgets_are_refused(tiny_study: Build, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="several values of --train-examples"):
        adaptlab.compare(tiny_study(train_examples=[10, 20], equalize="flops"), out=tmp_path / "study")
    with pytest.raises(ConfigError, match="equalize makes the budget itself"):
        tiny_study(max_flops=1e9, equalize="flops")
    assert not (tmp_path / "study").exists()
