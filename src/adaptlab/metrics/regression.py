"""Metrics over numbers. A correlation is undefined (``nan``) where all gold values or all answers are the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adaptlab.metrics._base import Answers, Metric
from adaptlab.tasks._base import Kind

Floats = NDArray[np.floating]


class OfNumbers(Metric):
    """What every regression run stores."""

    kinds: tuple[Kind, ...] = ("regression",)
    always = True


class SquaredError(OfNumbers):
    name = "mse"
    summary = "mean squared error"
    higher_is_better = False

    def compute(self, answers: Answers) -> float:
        return float(np.mean(self.per_example(answers)))

    def per_example(self, answers: Answers) -> Floats:
        return _errors(answers) ** 2


class AbsoluteError(OfNumbers):
    name = "mae"
    summary = "mean absolute error"
    higher_is_better = False

    def compute(self, answers: Answers) -> float:
        return float(np.mean(self.per_example(answers)))

    def per_example(self, answers: Answers) -> Floats:
        return np.abs(_errors(answers))


class RootMeanSquaredError(OfNumbers):
    name = "rmse"
    summary = "root of the mean squared error, in the label's unit"
    higher_is_better = False

    def compute(self, answers: Answers) -> float:
        return float(np.sqrt(np.mean(_errors(answers) ** 2)))

    def resampled(self, answers: Answers, counts: NDArray[np.integer]) -> Floats:
        roots: Floats = np.sqrt(counts @ _errors(answers) ** 2 / counts.sum(-1))
        return roots


class Pearson(OfNumbers):
    name = "pearson"
    summary = "Pearson's correlation"

    def compute(self, answers: Answers) -> float:
        return float(self.resampled(answers, np.ones((1, len(answers.gold)), dtype=np.int64))[0])

    def resampled(self, answers: Answers, counts: NDArray[np.integer]) -> Floats:
        return _correlation(_numbers(answers.gold), _numbers(answers.predicted), counts)


class Spearman(OfNumbers):
    name = "spearman"
    summary = "Spearman's rank correlation; ties share their mean rank"

    def compute(self, answers: Answers) -> float:
        return float(self.resampled(answers, np.ones((1, len(answers.gold)), dtype=np.int64))[0])

    def resampled(self, answers: Answers, counts: NDArray[np.integer]) -> Floats:
        gold, predicted = _numbers(answers.gold), _numbers(answers.predicted)
        if np.isnan(predicted).any():
            return np.full(len(counts), np.nan)
        return _correlation(_ranks(gold, counts), _ranks(predicted, counts), counts)


def _numbers(values: NDArray[np.generic]) -> Floats:
    return values.astype(np.float64)


def _errors(answers: Answers) -> Floats:
    return _numbers(answers.predicted) - _numbers(answers.gold)


def _correlation(first: Floats, second: Floats, counts: NDArray[np.integer]) -> Floats:
    """``[resamples]`` correlations; ``first`` and ``second`` are ``[n]`` or ``[resamples, n]``."""
    total = counts.sum(-1)
    centred, constant = [], np.zeros(len(counts), dtype=bool)
    for values in (first, second):
        mean = (counts * values).sum(-1) / total
        away = values - mean[:, None]
        spread = np.sqrt((counts * away**2).sum(-1) / total)
        # The mean of equal numbers is off by some rounding, so equal numbers have a spread that is not quite 0.
        constant |= ~(spread > 1e-13 * np.abs(mean))
        centred.append((away, spread))
    (first_away, first_spread), (second_away, second_spread) = centred
    together = (counts * first_away * second_away).sum(-1) / total
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(constant, np.nan, together / (first_spread * second_spread))


def _ranks(values: Floats, counts: NDArray[np.integer]) -> Floats:
    """``[resamples, n]``: the mean rank, from 1, of each value among the values drawn."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    in_group = np.add.reduceat(counts[:, np.argsort(values, kind="stable")], starts, axis=1)
    ranks: Floats = np.cumsum(in_group, axis=1) - in_group + (in_group + 1) / 2
    return ranks[:, group]


plugins = (Pearson(), Spearman(), SquaredError(), RootMeanSquaredError(), AbsoluteError())
