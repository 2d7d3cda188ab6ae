"""How far probabilities can be trusted, and how scores change out of domain: figures from a run's answers.

Calibration is of the probability of the answer given (the largest): its expected calibration error over bins of equal
width (Guo et al. 2017, ICML), and the Brier score over all classes (Brier 1950: 0 is perfect, 2 the worst).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptlab.errors import RecordError
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Summary, summarise
from adaptlab.runs.answers import AnswerArrays, read_answers

BINS = 15


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of similar confidence: how many, their mean confidence, and the share that is right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of one run's answers to one evaluation set; ``bins`` are those that have answers."""

    ece: float
    brier: float
    bins: tuple[Bin, ...]


def calibration(gold: NDArray[np.generic], probabilities: NDArray[np.floating], *, bins: int = BINS) -> Calibration:
    """Calibration of ``probabilities`` (``[n, classes]``, rows that sum to 1) against ``gold`` (``[n]`` indices).

    Raises:
        ValueError: the shapes do not fit, or there is no answer.
    """
    scores, right_class = np.asarray(probabilities, dtype=np.float64), gold.astype(np.int64)
    if scores.ndim != 2 or not len(scores) or right_class.shape != (len(scores),):
        raise ValueError(f"probabilities of shape {scores.shape} do not fit right answers of shape {right_class.shape}")
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == right_class
    truth = np.zeros_like(scores)
    truth[np.arange(len(scores)), right_class] = 1
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    found = [_bin(index, bins, confidence[which == index], right[which == index]) for index in np.unique(which)]
    ece = sum(part.n * abs(part.accuracy - part.confidence) for part in found) / len(scores)
    return Calibration(float(ece), float(np.mean(np.sum((scores - truth) ** 2, axis=1))), tuple(found))


def _bin(index: int, bins: int, confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> Bin:
    return Bin(index / bins, (index + 1) / bins, len(right), float(confidence.mean()), float(right.mean()))


def probabilities_of(run: RunRow) -> tuple[NDArray[np.int64], NDArray[np.floating]] | None:
    """Right classes ``[n]`` and probabilities ``[n, classes]`` of a finished run's answers to its primary set.

    ``None`` where no probabilities of classes were kept, or the file is damaged.
    """
    regression = run.data is not None and run.data.kind == "regression"
    if run.folder is None or run.status != "finished" or run.primary is None or regression:
        return None
    try:
        found = read_answers(run.folder / "predictions.parquet").get(run.primary.evaluation_set)
    except RecordError:
        return None
    scores = None if found is None else _of_classes(found)
    return None if found is None or scores is None else (found.gold.astype(np.int64), scores)


def _of_classes(found: AnswerArrays) -> NDArray[np.floating] | None:
    """The scores, if they are probabilities of the classes that the right answers are indices of."""
    scores = found.scores
    if scores is None or not len(found.gold) or found.gold.dtype.kind not in "iuf":
        return None
    gold = found.gold.astype(np.int64)
    fits = gold.min() >= 0 and gold.max() < scores.shape[1] and np.isfinite(scores).all()
    return scores if fits and np.allclose(scores.sum(axis=1), 1, atol=1e-2) else None


@dataclass(frozen=True, slots=True)
class Domain:
    """One metric on one evaluation set, over the finished runs; ``drop`` is the primary set's mean minus this one's.

    Attributes:
        in_domain: whether it is the set that the primary metric is of.
    """

    evaluation_set: str
    in_domain: bool
    metric: str
    score: Summary
    drop: float


def domains(runs: Sequence[RunRow], metric: str | None = None) -> list[Domain]:
    """The primary metric (or ``metric``) of one method's ``runs`` on every evaluation set that has it.

    The set that the primary metric is of comes first. A set is compared on the runs that have it.
    """
    finished = [run for run in runs if run.status == "finished" and run.primary is not None]
    if not finished or finished[0].primary is None:
        return []
    home, name = finished[0].primary.evaluation_set, metric or finished[0].primary.name
    names = dict.fromkeys([home, *(which for run in finished for which in run.metrics)])
    found = []
    for which in names:
        pairs = [(_value(run.metrics, which, name), _value(run.metrics, home, name)) for run in finished]
        both = [(there, here) for there, here in pairs if there is not None and here is not None]
        score = summarise([there for there, _ in both])
        if score is not None:
            drop = sum(here - there for there, here in both) / len(both)
            found.append(Domain(which, which == home, name, score, drop))
    return found


def _value(metrics: Mapping[str, Mapping[str, float]], which: str, name: str) -> float | None:
    return metrics.get(which, {}).get(name)
