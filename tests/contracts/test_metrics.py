"""What every metric promises, whatever file it is in."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from adaptlab.metrics import Answers, Metric, registry, selected
from tests.metrics import test_generation

METRICS = registry.all()
ITEMS = 80
ONCE = np.ones((1, ITEMS), dtype=np.int64)


def named(metric: Metric) -> str:
    return metric.name


def answers_for(metric: Metric, items: int = ITEMS) -> Answers:
    """Answers that are right more often than not, two classes or numbers."""
    generator = np.random.default_rng(5)
    if "generation" in metric.kinds:
        return test_generation.drawn(items)
    if "regression" in metric.kinds:
        gold = generator.uniform(0, 5, items)
        return Answers(gold, gold + generator.normal(0, 1, items), None, 0)
    gold = generator.integers(0, 2, items)
    right = generator.uniform(0.3, 1.0, items)
    probabilities = np.where(np.arange(2) == gold[:, None], right[:, None], 1 - right[:, None])
    return Answers(gold, probabilities.argmax(1), probabilities, 2)


def perfect(answers: Answers) -> Answers:
    certain = None if answers.probabilities is None else np.eye(2)[answers.gold.astype(int)]
    return replace(answers, predicted=answers.gold, probabilities=certain)


@pytest.mark.parametrize("metric", METRICS, ids=named)
def test_it_says_what_it_is(metric: Metric) -> None:
    assert metric.name == metric.name.lower()
    assert metric.summary
    assert metric.kinds


@pytest.mark.parametrize("metric", METRICS, ids=named)
def test_it_is_one_finite_number(metric: Metric) -> None:
    value = metric.compute(answers_for(metric))
    assert isinstance(value, float)
    assert math.isfinite(value)


@pytest.mark.parametrize("metric", METRICS, ids=named)
def test_perfect_answers_are_best(metric: Metric) -> None:
    answers = answers_for(metric)
    best, some = metric.compute(perfect(answers)), metric.compute(answers)
    assert best > some if metric.higher_is_better else best < some


@pytest.mark.parametrize("metric", METRICS, ids=named)
def test_the_order_of_items_does_not_matter(metric: Metric) -> None:
    answers = answers_for(metric)
    order = np.random.default_rng(0).permutation(len(answers.gold))
    shuffled = selected(answers, order)
    assert metric.compute(shuffled) == pytest.approx(metric.compute(answers), abs=1e-12)


@pytest.mark.parametrize("metric", [m for m in METRICS if m.per_example(answers_for(m)) is not None], ids=named)
def test_the_mean_of_its_per_example_values_is_the_metric(metric: Metric) -> None:
    answers = answers_for(metric)
    values = metric.per_example(answers)
    assert values is not None
    assert values.shape == answers.gold.shape
    assert float(np.mean(values)) == pytest.approx(metric.compute(answers))


@pytest.mark.parametrize("metric", [m for m in METRICS if m.resampled(answers_for(m), ONCE) is not None], ids=named)
def test_drawing_every_row_once_is_the_metric(metric: Metric) -> None:
    answers = answers_for(metric)
    assert metric.resampled(answers, ONCE) == pytest.approx([metric.compute(answers)])
