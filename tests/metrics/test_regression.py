"""Regression metrics say what scipy and scikit-learn say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from adaptlab.metrics import Answers, registry, score


def drawn(items: int = 400, seed: int = 0) -> Answers:
    """Gold values with many ties, as sentence similarities have them."""
    generator = np.random.default_rng(seed)
    gold = np.round(generator.uniform(0, 5, items) * 5) / 5
    predicted = np.round((gold + generator.normal(0, 1, items)).astype(np.float32), 1)
    return Answers(gold.astype(np.float32), predicted, None, 0)


def test_metrics_equal_scipy_and_scikit_learn() -> None:
    answers = drawn()
    gold, predicted = answers.gold.astype(float), answers.predicted.astype(float)
    assert score(answers, "regression", ("pearson", "spearman")) == pytest.approx(
        {
            "pearson": stats.pearsonr(gold, predicted).statistic,
            "spearman": stats.spearmanr(gold, predicted).statistic,
            "mse": sklearn_metrics.mean_squared_error(gold, predicted),
            "rmse": sklearn_metrics.root_mean_squared_error(gold, predicted),
            "mae": sklearn_metrics.mean_absolute_error(gold, predicted),
        },
        abs=1e-9,
    )


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 / 3])
def test_a_correlation_with_a_constant_is_undefined(name: str, constant: float) -> None:
    gold = np.arange(7.0)
    assert math.isnan(registry.get(name).compute(Answers(gold, np.full(7, constant), None, 0)))


@pytest.mark.parametrize("name", ["pearson", "spearman", "mse", "rmse", "mae"])
def test_one_answer_that_is_not_a_number_is_not_hidden(name: str) -> None:
    gold = np.arange(5.0)
    predicted = np.array([0.0, 1.0, math.nan, 3.0, 4.0])
    assert math.isnan(registry.get(name).compute(Answers(gold, predicted, None, 0)))
