"""Metrics over classes. An unusable answer (-1) is wrong: it misses its class and is claimed for no other.

All but accuracy and loss come from the confusion matrix, ``[..., classes, classes + 1]``: gold by predicted, with the
unusable answers in the last column. Definitions and conventions are scikit-learn's: a class that is neither in the gold
answers nor predicted is left out of macro means, and 0 / 0 is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from adaptlab.metrics._base import Answers, Metric
from adaptlab.tasks._base import Kind

Floats = NDArray[np.floating]


class Accuracy(Metric):
    name = "accuracy"
    summary = "share of right answers"
    kinds: tuple[Kind, ...] = ("classification", "multiple-choice")
    always = True

    def compute(self, answers: Answers) -> float:
        return float(np.mean(self.per_example(answers)))

    def per_example(self, answers: Answers) -> Floats:
        right: Floats = np.equal(answers.gold, answers.predicted).astype(np.float64)
        return right


class Loss(Metric):
    """Cross-entropy of the given probabilities, in nats."""

    name = "loss"
    summary = "mean negative logarithm of the probability of the right class"
    kinds: tuple[Kind, ...] = ("classification", "multiple-choice")
    higher_is_better = False
    always = True
    needs_probabilities = True

    def compute(self, answers: Answers) -> float:
        values = self.per_example(answers)
        return math.nan if values is None else float(np.mean(values))

    def per_example(self, answers: Answers) -> Floats | None:
        if answers.probabilities is None:
            return None
        right = answers.probabilities[np.arange(len(answers.gold)), answers.gold.astype(np.int64)]
        # What underflowed to 0 counts as the smallest float32, so that one row cannot make the mean infinite.
        values: Floats = -np.log(np.maximum(right.astype(np.float64), np.finfo(np.float32).tiny))
        return values


class OfConfusion(Metric):
    """A metric that the confusion matrix determines."""

    kinds = ("classification",)

    def __init__(self, name: str, summary: str, formula: Callable[[Floats], Floats], *, always: bool = True) -> None:
        self.name, self.summary, self.formula, self.always = name, summary, formula, always

    def compute(self, answers: Answers) -> float:
        return float(self.formula(confusion(answers)))

    def resampled(self, answers: Answers, counts: NDArray[np.integer]) -> Floats:
        return self.formula(confusion(answers, counts))


def confusion(answers: Answers, counts: NDArray[np.integer] | None = None) -> Floats:
    """``[classes, classes + 1]``, gold by predicted; with ``counts`` ``[resamples, n]``, one matrix a resample."""
    columns = answers.classes + 1
    predicted = answers.predicted.astype(np.int64)
    cell = answers.gold.astype(np.int64) * columns + np.where(predicted < 0, answers.classes, predicted)
    cells = answers.classes * columns
    if counts is None:
        return np.bincount(cell, minlength=cells).astype(np.float64).reshape(answers.classes, columns)
    # Only cells that occur are summed: with many classes nearly all are empty.
    occupied, which = np.unique(cell, return_inverse=True)
    member = np.zeros((len(cell), len(occupied)), dtype=np.float32)
    member[np.arange(len(cell)), which] = 1
    matrices = np.zeros((len(counts), cells))
    matrices[:, occupied] = counts.astype(np.float32) @ member
    return matrices.reshape(len(counts), answers.classes, columns)


def _right(matrix: Floats) -> Floats:
    right: Floats = np.diagonal(matrix, axis1=-2, axis2=-1)
    return right


def _gold(matrix: Floats) -> Floats:
    gold: Floats = matrix.sum(-1)
    return gold


def _claimed(matrix: Floats) -> Floats:
    claimed: Floats = matrix[..., :-1].sum(-2)
    return claimed


def _divide(over: Floats, under: Floats) -> Floats:
    """0 / 0 is 0."""
    return np.divide(over, under, out=np.zeros(np.broadcast_shapes(over.shape, under.shape)), where=under > 0)


def precision(matrix: Floats) -> Floats:
    """``[..., classes]``: of the answers that claim a class, the share that is right."""
    return _divide(_right(matrix), _claimed(matrix))


def recall(matrix: Floats) -> Floats:
    """``[..., classes]``: of a class's items, the share that is found."""
    return _divide(_right(matrix), _gold(matrix))


def f1(matrix: Floats) -> Floats:
    """``[..., classes]``: the harmonic mean of precision and recall."""
    return _divide(2 * _right(matrix), _gold(matrix) + _claimed(matrix))


def binary_f1(matrix: Floats) -> Floats:
    """F1 of class 1; undefined unless there are two classes."""
    return f1(matrix)[..., 1] if matrix.shape[-2] == 2 else np.full(matrix.shape[:-2], np.nan)


def balanced_accuracy(matrix: Floats) -> Floats:
    """Mean recall over the classes that have items."""
    return _divide(recall(matrix).sum(-1), (_gold(matrix) > 0).sum(-1).astype(np.float64))


def mcc(matrix: Floats) -> Floats:
    """Matthews' correlation for any number of classes (Gorodkin 2004); 0 where all answers are the same."""
    total, gold, claimed = matrix.sum((-2, -1)), _gold(matrix), matrix.sum(-2)
    together = _right(matrix).sum(-1) * total - (gold * claimed[..., :-1]).sum(-1)
    spread = (total**2 - (gold**2).sum(-1)) * (total**2 - (claimed**2).sum(-1))
    return _divide(together, np.sqrt(spread))


def f1_but_first(matrix: Floats) -> Floats:
    """Mean F1 of all classes but the first, as SemEval scores stance: against and favor, not none."""
    mean: Floats = f1(matrix)[..., 1:].mean(-1)
    return mean


def macro(of_class: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """The mean over the classes that are in the gold answers or claimed."""

    def mean(matrix: Floats) -> Floats:
        present = (_gold(matrix) + _claimed(matrix)) > 0
        return _divide((of_class(matrix) * present).sum(-1), present.sum(-1).astype(np.float64))

    return mean


def weighted(of_class: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """The mean over classes, each as heavy as its items are many."""

    def mean(matrix: Floats) -> Floats:
        return _divide((of_class(matrix) * _gold(matrix)).sum(-1), matrix.sum((-2, -1)))

    return mean


plugins = (
    Accuracy(),
    Loss(),
    OfConfusion("balanced_accuracy", "mean recall over the classes", balanced_accuracy),
    OfConfusion("mcc", "Matthews' correlation coefficient", mcc, always=False),
    OfConfusion("f1", "F1 of class 1, for two classes", binary_f1, always=False),
    OfConfusion("macro_f1_but_first", "F1, mean over all classes but the first", f1_but_first, always=False),
    OfConfusion("macro_precision", "precision, mean over classes", macro(precision)),
    OfConfusion("macro_recall", "recall, mean over classes", macro(recall)),
    OfConfusion("macro_f1", "F1, mean over classes", macro(f1)),
    OfConfusion("weighted_precision", "precision, mean over classes by their size", weighted(precision)),
    OfConfusion("weighted_recall", "recall, mean over classes by their size", weighted(recall)),
    OfConfusion("weighted_f1", "F1, mean over classes by their size", weighted(f1)),
)
