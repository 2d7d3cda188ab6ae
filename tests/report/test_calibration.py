"""Calibration against scikit-learn and by hand; scores in and out of domain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from adaptlab.report.calibration import calibration, domains, probabilities_of
from adaptlab.report.select import Selection, read_studies
from tests.report.build import METHODS, Run, answers_of, build_study


def test_perfect_and_useless_probabilities() -> None:
    gold = np.array([0, 1, 1, 0])
    sure = calibration(gold, np.eye(2)[gold])
    assert (sure.ece, sure.brier) == (0.0, 0.0)
    wrong = calibration(gold, np.eye(2)[1 - gold])
    assert (wrong.ece, wrong.brier) == (1.0, 2.0)
    even = calibration(gold, np.full((4, 2), 0.5))
    assert (even.ece, even.brier) == (0.0, 0.5)


def test_brier_is_scikit_learns_for_two_classes() -> None:
    random = np.random.default_rng(0)
    p, gold = random.random(500), random.integers(0, 2, 500)
    ours = calibration(gold, np.stack([1 - p, p], axis=1)).brier
    assert ours == pytest.approx(2 * brier_score_loss(gold, p))


def test_the_error_is_the_weighted_gap_of_the_bins() -> None:
    random = np.random.default_rng(1)
    probabilities = random.dirichlet(np.ones(4), 1000)
    gold = np.array([random.choice(4, p=row) for row in probabilities])
    found = calibration(gold, probabilities, bins=10)
    by_hand = 0.0
    confidence, right = probabilities.max(1), probabilities.argmax(1) == gold
    for low in np.arange(10) / 10:
        here = (confidence >= low) & (confidence < low + 0.1)
        if here.any():
            by_hand += here.mean() * abs(right[here].mean() - confidence[here].mean())
    assert found.ece == pytest.approx(by_hand)
    assert found.ece < 0.08  # drawn from the probabilities themselves
    assert sum(part.n for part in found.bins) == 1000
    with pytest.raises(ValueError, match="do not fit"):
        calibration(gold[:5], probabilities)


def test_a_runs_calibration_is_that_of_its_answers(selection: Selection) -> None:
    run = next(r for r in selection.rows if (r.task, r.method, r.seed) == ("sst2", "lora", 0))
    kept = probabilities_of(run)
    assert kept is not None
    found = calibration(*kept)
    gold, predicted = answers_of(Run(METHODS[1], "sst2", 0))
    accuracy = np.mean(np.array(gold) == np.array(predicted))
    assert found.ece == pytest.approx(abs(0.9 - accuracy), abs=1e-6)
    assert found.brier == pytest.approx(2 * (accuracy * 0.01 + (1 - accuracy) * 0.81), abs=1e-6)


def test_without_usable_probabilities_there_is_none(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", [Run(METHODS[0])])
    [run] = read_studies([folder]).rows
    assert probabilities_of(replace(run, folder=None)) is None
    next(folder.glob("runs/*/predictions.parquet")).write_bytes(b"damaged")
    assert probabilities_of(run) is None


def test_domains_are_compared_on_the_runs_that_have_them(selection: Selection) -> None:
    rows = [r for r in selection.rows if (r.task, r.method) == ("sst2", "lora")]
    there = [
        replace(r, metrics={**r.metrics, "imdb": {"accuracy": r.metrics["validation"]["accuracy"] - 0.1}})
        for r in rows[:2]
    ]
    home, away = domains([*there, rows[2]])
    assert (home.evaluation_set, home.in_domain, home.score.n, home.drop) == ("validation", True, 3, 0.0)
    assert (away.evaluation_set, away.in_domain, away.score.n) == ("imdb", False, 2)
    assert away.drop == pytest.approx(0.1)
    assert domains([replace(r, status="failed") for r in rows]) == []
