"""A run's answers as one score per row: what the claims of a report are made from.

A metric that is a mean over rows gives each row its own value, any other one (F1, MCC, Pearson) the row's jackknife
value; in both cases the mean over rows is the metric. That mean is held against the record, so answers that belong to
another record support no claim.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from adaptlab.errors import AdaptlabError
from adaptlab.metrics import Answers, Metric, registry
from adaptlab.report.resampling import Score, jackknife_values, score_of_rows
from adaptlab.report.select import RunRow
from adaptlab.runs.answers import AnswerArrays, read_answers

Floats = NDArray[np.float64]

#: How far the mean over rows may be from the record's score: answers are stored in 64 bits, probabilities in 32.
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class RowScores:
    """A run's score of each row of the set that its primary metric is of.

    Attributes:
        rows: digest of the rows' ids and right answers: equal for runs that answered the same questions.
        values: ``[n]``, in the order of the ids; their mean is the primary metric.
        own: whether each value is the row's own (a mean over rows), or a jackknife value.
    """

    rows: str
    values: Floats
    own: bool


@dataclass(frozen=True, slots=True)
class NoScores:
    """Why a run has no score for single rows, as the end of a sentence."""

    reason: str


def row_scores(run: RunRow) -> RowScores | NoScores:
    """The scores of the rows that ``run`` answered, or why they cannot be had."""
    found = primary_answers(run)
    if isinstance(found, NoScores):
        return found
    answers, rows = found
    assert run.primary is not None  # primary_answers found its set
    metric = registry.get(run.primary.name)
    try:
        own = metric.per_example(answers)
        values = _jackknife(metric, answers) if own is None else np.asarray(own, dtype=np.float64)
    except (TypeError, ValueError, IndexError) as error:
        return NoScores(f"the metric {metric.name} cannot be had from the kept answers ({error})")
    if not np.isfinite(values).all():
        return NoScores(f"the metric {metric.name} is undefined without one of the rows")
    if not math.isclose(float(values.mean()), run.primary.value, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
        return NoScores("the kept answers are not those of the recorded score")
    return RowScores(rows, values, own is not None)


def primary_answers(run: RunRow) -> tuple[Answers, str] | NoScores:
    """The answers that the primary metric is of, with the digest of their rows."""
    if run.primary is None or run.score is None:
        return NoScores("the run has no score")
    if run.folder is None:
        return NoScores("the answers to single rows are not known")
    try:
        registry.get(run.primary.name)
        sets = read_answers(run.folder / "predictions.parquet")
    except AdaptlabError as error:
        return NoScores(str(error).replace(f"{run.folder}/", "", 1).rstrip("."))
    arrays = sets.get(run.primary.evaluation_set)
    if arrays is None or not len(arrays.ids):
        return NoScores("the answers to single rows were not kept")
    return answers_of(arrays, run), rows_digest(arrays)


def only_answer(run: RunRow) -> str | NoScores | None:
    """The answer that ``run`` gave to every row though they have different right ones; ``None``: it gave several."""
    found = primary_answers(run)
    if isinstance(found, NoScores):
        return found
    gold, predicted = found[0].gold, found[0].predicted
    if (predicted != predicted[0]).any() or (gold == gold[0]).all():
        return None
    if predicted.dtype.kind in "iu":
        return class_name(run, int(predicted[0]))
    return f"{predicted[0]:.4g}" if predicted.dtype.kind == "f" else str(predicted[0])


def class_name(run: RunRow, index: int) -> str:
    """How the task calls a class; ``-1`` is an answer that could not be used."""
    if index < 0:
        return "no usable answer"
    labels = run.data.labels if run.data is not None else []
    return labels[index] if index < len(labels) else str(index)


def answers_of(arrays: AnswerArrays, run: RunRow) -> Answers:
    """``arrays`` as metrics take them."""
    regression = run.data is not None and run.data.kind == "regression"
    gold, predicted = arrays.gold, arrays.predicted
    if not regression and gold.dtype.kind == "f" and predicted.dtype.kind == "f":
        gold, predicted = gold.astype(np.int64), predicted.astype(np.int64)
    named = len(run.data.labels) if run.data is not None else 0
    answered = max((int(values.max()) + 1 for values in (gold, predicted) if values.dtype.kind in "iu"), default=0)
    return Answers(gold, predicted, arrays.scores, 0 if regression else max(named, answered))


def rows_digest(arrays: AnswerArrays) -> str:
    """Equal for answers to the same rows with the same right answers."""
    digest = hashlib.sha256("\0".join(arrays.ids.tolist()).encode())
    gold = arrays.gold if arrays.gold.dtype.kind == "U" else arrays.gold.astype(np.float64)
    digest.update(gold.tobytes())
    return digest.hexdigest()


def score_of(metric: Metric, answers: Answers) -> Score:
    """The metric as a function of how often each row was drawn."""
    if metric.resampled(answers, np.ones((1, len(answers.gold)), dtype=np.int64)) is None:
        return score_of_rows(lambda rows: metric.compute(_taken(answers, rows)))
    return partial(_resampled, metric, answers)


def _resampled(metric: Metric, answers: Answers, counts: NDArray[np.int64]) -> NDArray[np.floating]:
    values = metric.resampled(answers, counts)
    assert values is not None  # score_of asked
    return values


def _taken(answers: Answers, rows: NDArray[np.int64]) -> Answers:
    probabilities = None if answers.probabilities is None else answers.probabilities[rows]
    return Answers(answers.gold[rows], answers.predicted[rows], probabilities, answers.classes)


def _jackknife(metric: Metric, answers: Answers) -> Floats:
    """Jackknife values, computed once for all rows with the same right answer and the same given one."""
    if metric.needs_probabilities or answers.gold.dtype.kind not in "iu":
        return jackknife_values(score_of(metric, answers), len(answers.gold))
    codes = answers.gold.astype(np.int64) * (answers.classes + 1) + answers.predicted.astype(np.int64)
    _, first, of_row = np.unique(codes, return_index=True, return_inverse=True)
    score, items = score_of(metric, answers), len(codes)
    whole = float(score(np.ones((1, items), dtype=np.int64))[0])
    counts = np.ones((len(first), items), dtype=np.int64)
    counts[np.arange(len(first)), first] = 0
    without = np.asarray(score(counts), dtype=np.float64)[of_row]
    shifted: Floats = whole + (items - 1) * (without.mean() - without)
    return shifted
