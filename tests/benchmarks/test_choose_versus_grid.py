"""The benchmark's own arithmetic: which of the grid's runs count, and what its page says of a hit and a miss."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from adaptlab.choosing import Chosen
from adaptlab.config import MethodConfig, ModelConfig, RunConfig, RunIdentity, TaskConfig, TrainingConfig
from adaptlab.methods._base import LearningRates
from adaptlab.runs.record import ConfigPart, Primary, Record
from benchmarks import choose_versus_grid as benchmark


def record(method: str, rate: float, select: float, report: float) -> Record:
    run = RunConfig(
        model=ModelConfig(id="m"),
        task=TaskConfig(name="t"),
        method=MethodConfig(name=method),
        training=TrainingConfig(learning_rate=rate),
    )
    identity = RunIdentity(weights="", data="", task="", task_version=1)
    return Record(
        id="0",
        name="n",
        status="finished",
        config=ConfigPart(given=run, resolved=run, identity=identity),
        training={"select_score": select, "select_metric": "accuracy"},
        primary=Primary(name="accuracy", value=report, stderr=0.02, n=400, evaluation_set="test"),
    )


def chosen(method: str, seconds: float, scores: list[float]) -> Chosen:
    return Chosen(
        folder=Path(),
        method=method,
        learning_rate=1e-3,
        metric="accuracy",
        score=scores[0],
        stderr=0.02,
        rows=400,
        seed_scores=scores,
        model=Path(),
        page=Path(),
        seconds=seconds,
        budget_seconds=25.0,
    )


def test_rates_cover_a_methods_range() -> None:
    assert benchmark.rates(LearningRates(default=1e-3, low=1e-4, high=1e-1)) == [1e-4, 1e-3, 1e-2, 1e-1]


def test_the_rate_is_the_selection_rows_choice_and_the_order_the_report_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "METHODS", ("head", "lora"))
    records = [
        record("lora", 1e-3, 0.8, 0.7),
        record("lora", 1e-3, 0.6, 0.8),
        record("lora", 1e-2, 0.5, 0.99),  # the best on the report rows, which nobody may know
        record("lora", 1e-2, 0.5, 0.99),
        record("head", 1e-2, 0.9, 0.6),
    ]
    assert benchmark.by_method(records) == [("lora", 1e-3, pytest.approx(0.75)), ("head", 1e-2, 0.6)]


@pytest.mark.parametrize(
    ("method", "scores", "taken", "words"),
    [
        ("lora", [0.80, 0.80], 24.0, "| yes | 100 | 24 | 24% | yes (96%) |"),
        ("head", [0.60, 0.60], 30.0, "| no | 100 | 30 | 30% | no (120%) |"),
        ("lora", [0.60, 0.60], 24.0, "| grid: yes, own: no |"),
    ],
)
def test_the_page_says_what_was_kept_and_what_was_not(
    method: str, scores: list[float], taken: float, words: str
) -> None:
    one = benchmark.Outcome(
        task="t",
        metric="accuracy",
        grid=[("full", 1e-4, 0.81), ("lora", 1e-3, 0.80), ("head", 1e-2, 0.6)],
        stderr=0.02,
        grid_cost=benchmark.Cost(100.0, 120.0),
        choice=chosen(method, taken, scores),
        choice_cost=benchmark.Cost(taken, 30.0),
    )
    given = argparse.Namespace(
        task="t", train_examples=1, select_examples=2, eval_examples=3, epochs=2.0, batch_size=4, choose_seeds="0,1"
    )
    assert words in "\n".join(benchmark.page([one], given))
