"""The teacher of context distillation: a model that reads the whole prompt, asked where its student is asked.

Student and teacher are scored on the same tokens of the same answers, each behind its own question; so what the teacher
says at a place belongs to the student's same place, however either is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adaptlab.evaluation.demonstrations import Demonstrations
from adaptlab.evaluation.likelihood import distributions, log_likelihoods
from adaptlab.readouts.verbalizer import Verbalizer
from adaptlab.tasks._base import Example
from adaptlab.training.precision import Precision
from adaptlab.training.questions import Question, Questions
from adaptlab.training.words import Reading, find_word_head

#: Bytes of targets of a frozen teacher that may be kept; it is asked again in every step where they are more.
_KEPT_BYTES = 2**30


def kept_bytes(readout: Verbalizer, model: nn.Module, rows: Questions) -> int:
    """Bytes of a frozen teacher's targets for all ``rows`` of its student; 0 where they are too many to be kept."""
    if readout.setting.how.verbalizer_loss == "vocabulary":
        weight: Any = find_word_head(model, readout.setting.layout.word_head).weight
        size = sum(4 * weight.shape[0] * len(Reading.of(row.options).places) for row in rows.rows)
    else:
        size = sum(8 * len(row.options) for row in rows.rows)
    return size if size <= _KEPT_BYTES else 0


class Teacher:
    """Targets for the rows of a student.

    Args:
        model: the base as it was, or (recursive) the model that is being trained.
        rows: the student's, in the order of ``examples``.
        shots: demonstrations that the teacher reads besides the prompt's instruction.
        keeps: its targets are computed once, as ``model`` does not change and they are few enough.
    """

    def __init__(
        self,
        readout: Verbalizer,
        model: nn.Module,
        rows: Questions,
        examples: Sequence[Example],
        shots: Demonstrations | None,
        precision: Precision,
        *,
        keeps: bool,
    ) -> None:
        self._readout, self._model, self._precision = readout, model, precision
        self._whole = readout.setting.how.verbalizer_loss == "vocabulary"
        self.lessons = _aligned(readout.lessons(examples, shots), rows)
        self._place = {id_: place for place, id_ in enumerate(rows.ids)}
        self._kept = self._ask(self.lessons.rows) if keeps else None

    @property
    def keeps(self) -> bool:
        """Whether it was asked once for all, and not in every step."""
        return self._kept is not None

    def targets(self, ids: Sequence[str]) -> Tensor:
        """What the teacher says to the rows with these ids.

        ``[places, vocabulary]`` log-probabilities at the places of the student's batch of these rows, one row's after
        the other; or, over labels, ``[rows, options]`` (length-normalised) log-likelihoods, -inf where a row has fewer.
        """
        rows = [self._place[id_] for id_ in ids]
        kept = self._kept
        said = self._ask([self.lessons.rows[row] for row in rows]) if kept is None else [kept[row] for row in rows]
        if self._whole:
            return torch.from_numpy(np.concatenate(said))
        table = np.full((len(rows), max(map(len, said))), -np.inf)
        for i, scores in enumerate(said):
            table[i, : len(scores)] = scores
        return torch.from_numpy(table)

    def _ask(self, questions: Sequence[Question]) -> list[NDArray[np.floating]]:
        modes = {module: module.training for module in self._model.modules()}
        self._model.eval()
        reader = self._readout.reader(self._model, self._precision)
        if self._whole:
            said: list[NDArray[np.floating]] = list(distributions(reader, questions))
        else:
            likelihoods = log_likelihoods(reader, questions)
            said = [row / question.divisors for row, question in zip(likelihoods, questions, strict=True)]
        for module, mode in modes.items():
            module.training = mode
        return said


def _aligned(lessons: Questions, rows: Questions) -> Questions:
    """The lessons with the very tokens of the students' answers, whatever a tokenizer makes of them elsewhere."""
    pairs = zip(lessons.rows, rows.rows, strict=True)
    same = (replace(lesson, options=row.options, divisors=row.divisors) for lesson, row in pairs)
    return replace(lessons, rows=tuple(same))
