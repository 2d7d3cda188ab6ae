"""Standard errors: exact where the metric is a mean, the bootstrap's where it is not."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from adaptlab.errors import ConfigError, UnknownNameError
from adaptlab.metrics import Answers, Metric, registry, score, selected, standard_error
from tests.metrics import test_classification, test_generation, test_regression


def drawn(metric: Metric, items: int, *, classes: int, unusable: float = 0.0) -> Answers:
    if "generation" in metric.kinds:
        return test_generation.drawn(items)
    if "regression" in metric.kinds:
        return test_regression.drawn(items)
    return test_classification.drawn(classes, items, unusable=unusable)


def test_accuracy_has_the_binomial_standard_error() -> None:
    gold = np.repeat([0, 1], 50)
    predicted = gold.copy()
    predicted[:20] = 1
    expected = math.sqrt(0.8 * 0.2 / 99)
    assert standard_error("accuracy", Answers(gold, predicted, None, 2)) == pytest.approx(expected)


def test_pearson_has_nearly_the_standard_error_of_theory() -> None:
    generator = np.random.default_rng(3)
    gold = generator.normal(size=2000)
    answers = Answers(gold, 0.6 * gold + 0.8 * generator.normal(size=2000), None, 0)
    found = standard_error("pearson", answers)
    correlation = registry.get("pearson").compute(answers)
    assert found == pytest.approx((1 - correlation**2) / math.sqrt(2000), rel=0.15)


@pytest.mark.parametrize("metric", [metric for metric in registry.all() if metric.name != "f1"], ids=lambda m: m.name)
def test_the_quick_bootstrap_is_the_plain_one(metric: Metric) -> None:
    """``resampled`` gives, resample by resample, what ``compute`` gives for the rows drawn."""
    answers = drawn(metric, 60, classes=4, unusable=0.1)
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 60, size=(20, 60))
    counts = np.stack([np.bincount(row, minlength=60) for row in rows])
    quick = metric.resampled(answers, counts)
    if quick is None:
        assert metric.per_example(answers) is not None
        return
    plain = [metric.compute(replace(selected(answers, row), probabilities=None)) for row in rows]
    assert quick == pytest.approx(np.array(plain), abs=1e-6)


@pytest.mark.parametrize("metric", registry.all(), ids=lambda m: m.name)
def test_it_is_quick(metric: Metric) -> None:
    answers = drawn(metric, 200 if "generation" in metric.kinds else 1000, classes=2)
    start = time.perf_counter()
    assert standard_error(metric.name, answers) is not None
    assert time.perf_counter() - start < 1.0  # 0.06 s at most on two idle cores


def test_the_seed_decides() -> None:
    answers = test_classification.drawn(3)
    first = standard_error("macro_f1", answers, seed=1)
    assert first == standard_error("macro_f1", answers, seed=1)
    assert first != standard_error("macro_f1", answers, seed=2)


def test_a_metric_without_a_quick_way_is_bootstrapped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = test_classification.drawn(3)
    quick = standard_error("macro_f1", answers, resamples=50)
    monkeypatch.setattr(type(registry.get("macro_f1")), "resampled", Metric.resampled)
    assert standard_error("macro_f1", answers, resamples=50) == pytest.approx(quick, rel=1e-6)


def test_nothing_is_claimed_where_nothing_can_be_told() -> None:
    one = Answers(np.array([1]), np.array([1]), None, 2)
    assert standard_error("accuracy", one) is None
    constant = Answers(np.arange(5.0), np.zeros(5), None, 0)
    assert standard_error("pearson", constant) is None


def test_a_metric_for_another_kind_of_task_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'pearson' is for regression, not classification: use accuracy, .*mcc"):
        score(test_classification.drawn(2), "classification", ("pearson",))


def test_an_unknown_metric_has_near_matches() -> None:
    with pytest.raises(UnknownNameError, match="did you mean macro_f1"):
        score(test_classification.drawn(2), "classification", ("macrof1",))
