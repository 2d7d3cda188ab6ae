"""What a metric is: a number over a set of answers, and where possible one number per answer.

A metric plugin is one file in this folder with ``plugin`` or ``plugins``; importing it must not import torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptlab.tasks._base import Kind


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's answers to one evaluation set.

    Attributes:
        gold: ``[n]`` class indices (int), values (float) or texts (object).
        predicted: ``[n]`` as ``gold``; ``-1`` where a class answer was unusable, an empty text where nothing was
            written (both count as wrong).
        probabilities: ``[n, classes]``, or ``None`` (regression, free generation).
        classes: number of classes, or the most options of a row; 0 without either.
        examples: ``[n]`` (object) the rows themselves, for metrics over more than gold and answer: other right texts,
            what was asked.
        written: the answers were written freely, so that some may be unusable.
    """

    gold: NDArray[np.generic]
    predicted: NDArray[np.generic]
    probabilities: NDArray[np.floating] | None
    classes: int
    examples: NDArray[np.object_] | None = None
    written: bool = False


def as_objects(values: Sequence[object]) -> NDArray[np.object_]:
    """``[n]`` of ``values`` as they are: texts or rows for :class:`Answers`."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


class Metric(ABC):
    """Base of every metric. ``name`` is its key in records."""

    name: str
    summary: str
    kinds: tuple[Kind, ...]
    higher_is_better: bool = True
    #: True where it cannot be had from answers without probabilities.
    needs_probabilities: bool = False
    #: True where every run on a task of its kinds stores it, whatever the task asks for.
    always: bool = False
    #: True where it says something of freely written answers only, and is stored for those.
    of_written: bool = False

    def require(self) -> None:
        """Say, before anything is trained, what is not installed.

        Raises:
            ConfigError: a library that the metric needs is missing; the message has the command that installs it.
        """

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
