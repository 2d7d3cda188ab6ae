"""What a metric is: a number over a set of answers, and where possible one number per answer.

A metric plugin is one file in this folder with ``plugin`` or ``plugins``; importing it must not import torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptlab.tasks._base import Kind


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's answers to one evaluation set.

    Attributes:
        gold: ``[n]`` class indices (int) or values (float).
        predicted: ``[n]`` as ``gold``; ``-1`` where a class answer was unusable (it counts as wrong).
        probabilities: ``[n, classes]``, or ``None`` (regression, free generation).
        classes: number of classes; 0 for regression.
    """

    gold: NDArray[np.generic]
    predicted: NDArray[np.generic]
    probabilities: NDArray[np.floating] | None
    classes: int


class Metric(ABC):
    """Base of every metric. ``name`` is its key in records."""

    name: str
    summary: str
    kinds: tuple[Kind, ...]
    higher_is_better: bool = True
    #: True where it cannot be had from answers without probabilities.
    needs_probabilities: bool = False
    #: True where every classification (or regression) run stores it, whatever the task asks for.
    always: bool = False

    @abstractmethod
    def compute(self, answers: Answers) -> float:
        """The metric over all answers; ``nan`` where it is undefined (say, one class only)."""

    def per_example(self, answers: Answers) -> NDArray[np.floating] | None:
        """``[n]`` values whose mean is :meth:`compute`, or ``None`` for a corpus-level metric."""
        return None

    def resampled(self, answers: Answers, counts: NDArray[np.integer]) -> NDArray[np.floating] | None:
        """:meth:`compute` for many resamples at once, for the bootstrap.

        Args:
            counts: ``[resamples, n]``, how often each answer was drawn.

        Returns:
            ``[resamples]`` values, or ``None`` where :meth:`compute` has to be called for each resample.
        """
        return None
