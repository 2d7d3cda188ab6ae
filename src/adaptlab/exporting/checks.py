"""What an export is checked by: rows that the run's own model answers here, and the exported folder elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from adaptlab.exporting import fresh
from adaptlab.predictor import Predictor
from adaptlab.readouts import Generate, Verbalizer
from adaptlab.tasks._prompts import render
from adaptlab.training.precision import Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from adaptlab.models.load import Base
    from adaptlab.readouts import Readout
    from adaptlab.tasks._base import Example

#: The fresh process's batches of a head; language models read one row at a time.
ROWS_AT_ONCE = 16


class Check(Protocol):
    """One way of answering: with a head, or in words."""

    def asked(self) -> dict[str, Any]:
        """What the fresh process is told of the rows."""

    def difference(self, model: nn.Module) -> float:
        """The largest by which a logit of ``model`` differs from the run's."""

    def compare(self, answered: Mapping[str, Any]) -> dict[str, Any]:
        """``largest_logit_difference`` and ``agreement`` of what the fresh process answered."""


class HeadCheck:
    """Rows as texts, and the logits of a classifier or regressor.

    Args:
        model: the run's own.
    """

    def __init__(
        self,
        base: Base,
        model: nn.Module,
        rows: Sequence[Example],
        *,
        labels: tuple[str, ...],
        regression: bool,
        max_length: int,
        device: str,
    ) -> None:
        self._base, self._rows, self._device = base, rows, device
        self._how: dict[str, Any] = {"labels": labels, "regression": regression, "max_length": max_length}
        self._expected = self._logits(model)

    def asked(self) -> dict[str, Any]:
        return {
            "texts": [row.texts for row in self._rows],
            "max_length": self._how["max_length"],
            "rows_at_once": ROWS_AT_ONCE,
        }

    def difference(self, model: nn.Module) -> float:
        return float(np.abs(self._logits(model) - self._expected).max())

    def compare(self, answered: Mapping[str, Any]) -> dict[str, Any]:
        found = np.array(answered["logits"], dtype=np.float32)
        same = float((found.argmax(axis=1) == self._expected.argmax(axis=1)).mean())
        return {
            "largest_logit_difference": float(np.abs(found - self._expected).max()),
            "agreement": None if self._how["regression"] else same,
        }

    def _logits(self, model: nn.Module) -> NDArray[np.floating]:
        precision = Precision("float32", self._device)
        return Predictor.with_head(self._base, model, **self._how, precision=precision).logits(self._rows)


class WordsCheck:
    """Questions and answers as token ids, and the logits of the answers' tokens.

    The answers are a row's label words or options, or what the run's own model writes freely, which the fresh process
    has to write as well.
    """

    def __init__(self, base: Base, model: nn.Module, readout: Readout, rows: Sequence[Example], device: str) -> None:
        self._base, self._device = base, device
        precision = Precision("float32", device)
        prompt, columns = readout.setting.prompt, readout.setting.columns
        assert prompt is not None
        self._texts = [render(prompt, columns, row).query for row in rows]
        self._writing: dict[str, Any] | None = None
        model.eval()
        encoded: Any = readout.encode(rows, training=False)
        if isinstance(readout, Generate):
            self._said: list[Any] = readout.write(model, encoded, precision)
            self._writing = readout.writing(model)
            tokens = base.tokenizer(self._said, add_special_tokens=False)["input_ids"]
            pairs = zip(encoded.questions.rows, tokens, strict=True)
            questions = [(question.context, [option or [base.tokenizer.pad_token_id]]) for question, option in pairs]
        else:
            assert isinstance(readout, Verbalizer)
            self._verbalizer, self._encoded = readout, encoded
            self._said = readout.answer(model, encoded, precision).answers.predicted.tolist()
            questions = [(question.context, question.options) for question in (*encoded.rows, *encoded.blanks)]
        self._questions = [
            {"context": context.tolist(), "options": [list(option) for option in options]}
            for context, options in questions
        ]
        self._expected = self._logits(fresh.in_words(model, self.asked()))

    def asked(self) -> dict[str, Any]:
        return {
            "questions": self._questions,
            "prompts": self._texts,
            "start": self._base.start,
            "writing": self._writing,
            "device": self._device,
        }

    def difference(self, model: nn.Module) -> float:
        model.eval()
        return float(np.abs(self._logits(fresh.in_words(model, self.asked())) - self._expected).max())

    def compare(self, answered: Mapping[str, Any]) -> dict[str, Any]:
        if self._writing is not None:
            found = answered["written"]
        else:
            likelihoods = [np.array([one["log_likelihood"] for one in row]) for row in answered["answers"]]
            count = len(self._encoded)
            judged = self._verbalizer.judge(self._encoded, likelihoods[:count], likelihoods[count:])
            found = judged.answers.predicted.tolist()
        same = [one == other for one, other in zip(found, self._said, strict=True)]
        return {
            "largest_logit_difference": float(np.abs(self._logits(answered["answers"]) - self._expected).max()),
            "agreement": sum(same) / len(same),
            "same_tokens": answered["prompts"] == self._base.tokenizer(self._texts)["input_ids"],
        }

    @staticmethod
    def _logits(answers: Sequence[Sequence[Mapping[str, Any]]]) -> NDArray[np.float64]:
        return np.array([logit for row in answers for option in row for logit in option["logits"]])


__all__ = ["ROWS_AT_ONCE", "Check", "HeadCheck", "WordsCheck"]
