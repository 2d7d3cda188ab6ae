"""What a score has to beat: guessing, always the most frequent answer, and the model asked without training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaptlab.errors import AdaptlabError
from adaptlab.metrics import Answers, registry
from adaptlab.report.evidence import NoScores, class_name, primary_answers
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import cells, summarise

#: A metric of which every guess that does not look at the text gives 0.
_ZERO_BY_CHANCE = {"mcc", "pearson", "spearman", "pearson_spearman"}


@dataclass(frozen=True, slots=True)
class Baseline:
    """A horizontal line: ``name`` is short, ``meaning`` says how it came about."""

    name: str
    value: float
    meaning: str


def baselines(rows: Sequence[RunRow]) -> list[Baseline]:
    """Those that the records of one task and model tell, lowest first."""
    found = [*_chance(rows), *_majority(rows), *_zero_shot(rows)]
    return sorted(found, key=lambda line: line.value)


def _chance(rows: Sequence[RunRow]) -> list[Baseline]:
    run = next((row for row in rows if row.primary is not None and row.data is not None), None)
    if run is None or run.primary is None or run.data is None:
        return []
    if run.primary.name in _ZERO_BY_CHANCE:
        return [Baseline("chance", 0.0, "any guess that does not look at the text")]
    if run.primary.name == "accuracy" and len(run.data.labels) > 1:
        return [Baseline("chance", 1 / len(run.data.labels), f"one of {len(run.data.labels)} answers at random")]
    return []


def _majority(rows: Sequence[RunRow]) -> list[Baseline]:
    """Always the class that is most frequent among the report rows, scored by the primary metric."""
    run = next((row for row in rows if row.score is not None), None)
    if run is None or run.primary is None:
        return []
    read = primary_answers(run)
    if isinstance(read, NoScores) or read[0].gold.dtype.kind not in "iu" or read[0].classes < 2:
        return []
    gold = read[0].gold.astype(np.int64)
    counts = np.bincount(gold[gold >= 0], minlength=read[0].classes)
    always = Answers(gold, np.full_like(gold, int(counts.argmax())), None, read[0].classes)
    try:
        value = float(registry.get(run.primary.name).compute(always))
    except (AdaptlabError, TypeError, ValueError):
        return []  # a metric that one constant answer does not define
    label = int(counts.argmax())
    meaning = f"always “{class_name(run, label)}”, the most frequent answer"
    return [Baseline("majority", value, meaning)] if math.isfinite(value) else []


def _zero_shot(rows: Sequence[RunRow]) -> list[Baseline]:
    """The mean of the method ``none`` without demonstrations."""
    scores = [
        run.score
        for cell in cells(rows)
        for run in cell.finished
        if run.method_name == "none" and run.score is not None and not run.resolved.get("shots")
    ]
    summary = summarise(scores)
    return [] if summary is None else [Baseline("zero-shot", summary.mean, "the model as it is, without training")]
