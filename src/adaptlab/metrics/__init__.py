"""Metrics: numbers over a set of answers, each with its standard error. One file adds a family."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from adaptlab.errors import ConfigError
from adaptlab.metrics._base import Answers, Metric, as_objects
from adaptlab.registry import Registry
from adaptlab.tasks._base import Kind, TaskData

__all__ = [
    "Answers",
    "Metric",
    "as_objects",
    "breakdown",
    "read_as",
    "registry",
    "score",
    "score_set",
    "selected",
    "standard_error",
]

registry: Registry[Metric] = Registry("metric", "adaptlab.metrics")

#: Counts held at once during a bootstrap; bounds its memory to some tens of MB.
_COUNTS_AT_ONCE = 2_000_000


def score(answers: Answers, kind: Kind, wanted: Sequence[str]) -> dict[str, float]:
    """The ``wanted`` metrics in that order, then every other one that runs of this kind always store.

    ``nan`` stands where a metric is undefined for these answers. Metrics over probabilities that nobody asked for are
    left out where the answers have none.

    Raises:
        UnknownNameError: there is no such metric.
        ConfigError: a wanted metric is for another kind of task.
    """
    asked = [registry.get(name) for name in wanted]
    for metric in asked:
        if kind not in metric.kinds:
            fitting = ", ".join(other.name for other in registry.all() if kind in other.kinds)
            raise ConfigError(
                f"The metric '{metric.name}' is for {' and '.join(metric.kinds)}, not {kind}: use {fitting}."
            )
    usual = [
        metric
        for metric in registry.all()
        if (metric.always or (metric.of_written and answers.written))
        and kind in metric.kinds
        and metric not in asked
        and not (metric.needs_probabilities and answers.probabilities is None)
    ]
    return {metric.name: float(metric.compute(answers)) for metric in (*asked, *usual)}


def read_as(answers: Answers, of_answer: Sequence[int], classes: int) -> Answers:
    """Answers in other classes: class ``i`` counts as ``of_answer[i]`` of ``classes``; gold is in those already.

    What was answered is mapped, not weighed anew: the likeliest of the old classes decides, and probabilities add up.
    """
    places = np.array([*of_answer, -1])  # an unusable answer, -1, stays one
    probabilities = None
    if answers.probabilities is not None:
        probabilities = answers.probabilities @ np.eye(classes)[np.array(of_answer)]
    predicted = places[answers.predicted.astype(np.int64)]
    return replace(answers, predicted=predicted, probabilities=probabilities, classes=classes)


def breakdown(answers: Answers, groups: Sequence[Sequence[str]], metric_name: str) -> dict[str, float]:
    """The metric over each part of the set, as ``{"accuracy[lexical_overlap]": 0.5}``, parts sorted by name.

    Args:
        groups: for each answer the parts that its row belongs to.
    """
    metric = registry.get(metric_name)
    parts: dict[str, list[int]] = {}
    for place, names in enumerate(groups):
        for name in names:
            parts.setdefault(name, []).append(place)
    return {
        f"{metric.name}[{name}]": float(metric.compute(selected(answers, np.array(parts[name]))))
        for name in sorted(parts)
    }


def score_set(answers: Answers, data: TaskData, name: str) -> tuple[Answers, dict[str, float]]:
    """A run's answers to the report set ``name`` of ``data``, in the set's own classes, and every metric of it.

    Metrics are the set's own, its parts' (``accuracy[lexical_overlap]``), and ``n``, the number of rows.
    """
    out = data.out_of_domain.get(name)
    wanted = data.metrics if out is None else out.metrics
    if out is not None and out.of_answer is not None:
        answers = read_as(answers, out.of_answer, len(out.labels))
    rows = data.report[name]
    parts = breakdown(answers, [row.groups for row in rows], wanted[0])
    return answers, {**score(answers, data.kind, wanted), **parts, "n": float(len(rows))}


def standard_error(metric_name: str, answers: Answers, *, resamples: int = 1000, seed: int = 0) -> float | None:
    """How far the metric would stray on another draw of as many items.

    The standard error of the mean where the metric is a mean over items, else the standard deviation over bootstrap
    resamples of the items (Efron 1979). ``None`` where it cannot be told: fewer than two items, or an undefined metric.
    """
    metric = registry.get(metric_name)
    items = len(answers.gold)
    if items < 2:
        return None
    values = metric.per_example(answers)
    if values is not None:
        error = float(np.std(values, ddof=1) / math.sqrt(items))
    else:
        drawn = np.concatenate([_over(metric, answers, counts) for counts in _draws(items, resamples, seed)])
        drawn = drawn[np.isfinite(drawn)]
        error = float(np.std(drawn, ddof=1)) if len(drawn) > 1 else math.nan
    return error if math.isfinite(error) else None


def _draws(items: int, resamples: int, seed: int) -> Iterator[NDArray[np.integer]]:
    """``[some, items]`` counts of how often each item was drawn, with replacement, until ``resamples`` are done."""
    generator = np.random.default_rng(seed)
    block = max(1, _COUNTS_AT_ONCE // items)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = generator.integers(0, items, size=(rows, items)) + items * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * items).reshape(rows, items)


def _over(metric: Metric, answers: Answers, counts: NDArray[np.integer]) -> NDArray[np.floating]:
    values = metric.resampled(answers, counts)
    if values is None:
        values = np.array([metric.compute(_repeated(answers, row)) for row in counts])
    return values


def _repeated(answers: Answers, counts: NDArray[np.integer]) -> Answers:
    return selected(answers, np.repeat(np.arange(len(counts)), counts))


def selected(answers: Answers, rows: NDArray[np.integer]) -> Answers:
    """The answers to ``rows`` (indices, repeated as they may be)."""
    probabilities = None if answers.probabilities is None else answers.probabilities[rows]
    examples = None if answers.examples is None else answers.examples[rows]
    return replace(
        answers,
        gold=answers.gold[rows],
        predicted=answers.predicted[rows],
        probabilities=probabilities,
        examples=examples,
    )
