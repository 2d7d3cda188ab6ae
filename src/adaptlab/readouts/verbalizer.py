"""The likelihood of the labels' words under the language model; every word of a label counts, none is guessed from the
answer itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import nn

from adaptlab.evaluation.demonstrations import Demonstrations
from adaptlab.evaluation.likelihood import Reader, batches, log_likelihoods, read_batch
from adaptlab.evaluation.prompts import Prompter
from adaptlab.metrics._base import Answers
from adaptlab.readouts._base import Answered, Readout, Setting
from adaptlab.tasks._base import Example
from adaptlab.training.batches import Batch, BatchRows
from adaptlab.training.objectives import Objective
from adaptlab.training.objectives.distillation import LabelDistillation, VocabularyDistillation
from adaptlab.training.objectives.words import Labels, Vocabulary
from adaptlab.training.precision import Precision
from adaptlab.training.questions import Pieces, Questions, collate
from adaptlab.training.words import LOGIT_BYTES

#: What stands in for a row's texts where the model is asked what it answers to nothing (arXiv 2102.09690).
CONTENT_FREE = ("N/A", "", "[MASK]")


class Verbalizer(Readout):
    """Classes or a row's own options as words behind a prompt."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        assert setting.prompt is not None
        self._pieces = Pieces(setting.tokenizer, setting.layout.kind, start=setting.start)
        self._taught = Prompter(setting.prompt, setting.columns, self._pieces, max_length=setting.max_length)
        bare = setting.prompt.model_copy(update={"instruction": ""}) if setting.distils else setting.prompt
        self._prompter = Prompter(bare, setting.columns, self._pieces, max_length=setting.max_length)

    def encode(self, examples: Sequence[Example], *, training: bool) -> Questions:
        how = self.setting.how
        if training and how.verbalizer_loss == "vocabulary" and not self.setting.distils:
            found = self._prompter.questions(examples, answers=lambda rendered: (rendered.target,))
            return found.of_targets()
        shots = None if training else self.setting.shots
        found = self._prompter.questions(examples, shots=shots, normalization=how.length_normalization)
        return found if training or how.calibration == "none" else self._with_blanks(found, examples, shots)

    def collate(self, rows: Questions, which: NDArray[np.int64], length: int, *, device: str) -> Batch:
        return collate(rows, which, length, pad_id=self.setting.tokenizer.pad_token_id, device=device)

    def lessons(self, examples: Sequence[Example], shots: Demonstrations | None) -> Questions:
        """``examples`` as the teacher of context distillation reads them."""
        return self._taught.questions(examples, shots=shots, normalization=self.setting.how.length_normalization)

    def objective(self) -> Objective:
        if self.setting.distils:
            over = VocabularyDistillation if self.setting.how.verbalizer_loss == "vocabulary" else LabelDistillation
            return over(self.setting.how.temperature)
        return Vocabulary() if self.setting.how.verbalizer_loss == "vocabulary" else Labels()

    def at_once(self, rows: Questions) -> int:
        places = max(sum(map(len, row.options)) for row in rows.rows)
        return max(1, LOGIT_BYTES // (places * 4 * len(self.setting.tokenizer)))

    def answer(self, model: nn.Module, rows: Questions, precision: Precision) -> Answered:
        reader = self.reader(model, precision)
        return self.judge(rows, log_likelihoods(reader, rows.rows), log_likelihoods(reader, rows.blanks))

    def answer_batches(self, model: nn.Module, rows: Questions) -> list[BatchRows]:
        return batches(self.reader(model, Precision("float32", "meta")), rows.rows)

    def passes(
        self, model: nn.Module, rows: Questions, batch: BatchRows, precision: Precision
    ) -> Iterator[tuple[float, Callable[[], object]]]:
        yield 1, partial(read_batch, self.reader(model, precision), rows.rows, batch)

    def judge(
        self, rows: Questions, likelihoods: Sequence[NDArray[np.float64]], blanks: Sequence[NDArray[np.float64]]
    ) -> Answered:
        """The answers that follow from the log-likelihoods of ``rows`` and, where there are any, of their blanks."""
        notes = {"label_mass": float(np.mean([min(1.0, np.exp(row).sum()) for row in likelihoods]))}
        if self.setting.shots is not None:
            notes["lost_shots"] = float(rows.lost_shots)
        scores = [row / question.divisors for row, question in zip(likelihoods, rows.rows, strict=True)]
        if self.setting.how.calibration == "content-free":
            scores = self._calibrated(rows, blanks, scores)
        most = max(map(len, scores))
        table = np.full((len(scores), most), -np.inf)
        for i, row in enumerate(scores):
            table[i, : len(row)] = row
        exponents = np.exp(table - table.max(axis=1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=1, keepdims=True)
        return Answered(Answers(rows.labels, table.argmax(axis=1), probabilities, most), notes)

    def warnings(self, rows: Questions) -> list[str]:
        if self.setting.kind != "classification" or not len(rows):
            return []
        words = list(zip(self.setting.labels, rows.rows[0].options, strict=True))
        found = []
        for i, (label, option) in enumerate(words):
            for other, longer in words[i + 1 :]:
                if option[0] == longer[0]:
                    found.append(f"'{label}' and '{other}'")
        if not found:
            return []
        return [f"The words of {', '.join(found)} begin with the same token: all their tokens are scored."]

    def reader(self, model: nn.Module, precision: Precision) -> Reader:
        """``model`` as likelihoods are read from it."""
        setting = self.setting
        return Reader(
            model,
            setting.layout.word_head,
            precision,
            setting.tokenizer.pad_token_id,
            self._pieces.start,
            caches=setting.caches,
        )

    def _with_blanks(self, found: Questions, examples: Sequence[Example], shots: Demonstrations | None) -> Questions:
        """The questions with those that say nothing, one set for all rows that differ in their texts only."""
        firsts: dict[tuple[object, ...], int] = {}
        blanks: list[Example] = []
        for example in examples:
            key = (example.choices, example.id if self.setting.how.shots_per_query else "")
            if key not in firsts:
                firsts[key] = len(blanks)
                blanks += [replace(example, texts=(word,) * len(example.texts)) for word in CONTENT_FREE]
        asked = self._prompter.questions(blanks, shots=shots, normalization=self.setting.how.length_normalization)
        per_query = self.setting.how.shots_per_query
        of = [firsts[example.choices, example.id if per_query else ""] for example in examples]
        blank_of = np.array(of, dtype=np.int64)[:, None] + np.arange(len(CONTENT_FREE))
        return replace(found, blanks=asked.rows, blank_of=blank_of)

    def _calibrated(
        self, rows: Questions, likelihoods: Sequence[NDArray[np.float64]], scores: Sequence[NDArray[np.float64]]
    ) -> list[NDArray[np.float64]]:
        """Scores less the logarithm of what the same options get, on average, behind rows that say nothing."""
        assert rows.blank_of is not None
        each = [row / blank.divisors for row, blank in zip(likelihoods, rows.blanks, strict=True)]
        shares = [np.exp(row - np.logaddexp.reduce(row)) for row in each]
        means = [np.mean([shares[i] for i in of], axis=0) for of in rows.blank_of]
        return [score - np.log(mean) for score, mean in zip(scores, means, strict=True)]
