"""Free generation: the model writes its answer, and what it wrote is the answer, or is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from adaptlab.evaluation.generate import arguments, batches, passes, write
from adaptlab.evaluation.prompts import Prompter
from adaptlab.metrics._base import Answers, as_objects
from adaptlab.readouts._base import Answered, Readout, Setting
from adaptlab.tasks._base import Example
from adaptlab.tasks._prompts import render
from adaptlab.training.batches import Batch, BatchRows
from adaptlab.training.objectives import Objective
from adaptlab.training.objectives.words import Vocabulary
from adaptlab.training.precision import Precision
from adaptlab.training.questions import Pieces, Questions, collate
from adaptlab.training.words import LOGIT_BYTES

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
#: What stands for a number where none was written, as in T5's own evaluation of STS-B (arXiv 1910.10683).
NO_NUMBER = -1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """Questions to be answered in writing; ``words`` are the answers that a class or an option has, row by row."""

    questions: Questions
    words: tuple[tuple[str, ...], ...]
    gold: NDArray[np.generic]

    @property
    def ids(self) -> tuple[str, ...]:
        return self.questions.ids

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.questions.lengths

    @property
    def truncated(self) -> int:
        return self.questions.truncated

    def batch_tokens(self, rows: NDArray[np.int64]) -> int:
        return self.questions.batch_tokens(rows)

    def __len__(self) -> int:
        return len(self.questions)

    def sized(self, rows: int, length: int) -> Questions:
        return self.questions.sized(rows, length)


class Generate(Readout):
    """Text to text, for every kind of task."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        assert setting.prompt is not None
        self._prompt = setting.prompt
        self._pieces = Pieces(setting.tokenizer, setting.layout.kind, start=setting.start)
        self._prompter = Prompter(setting.prompt, setting.columns, self._pieces, max_length=setting.max_length)

    def encode(self, examples: Sequence[Example], *, training: bool) -> Questions | Asked:
        if training:
            found = self._prompter.questions(examples, answers=lambda rendered: (rendered.target,), end=True)
            return found.of_targets()
        room = self.setting.how.max_new_tokens
        asked = self._prompter.questions(examples, shots=self.setting.shots, answers=lambda rendered: (), room=room)
        rendered = [render(self._prompt, self.setting.columns, example) for example in examples]
        words = tuple(tuple(word.strip() for word in one.answers) for one in rendered)
        return Asked(asked, words, self._gold(examples))

    def collate(self, rows: Questions, which: NDArray[np.int64], length: int, *, device: str) -> Batch:
        return collate(rows, which, length, pad_id=self.setting.tokenizer.pad_token_id, device=device)

    def objective(self) -> Objective:
        return Vocabulary()

    def at_once(self, rows: Questions) -> int:
        places = max(sum(map(len, row.options)) for row in rows.rows)
        return max(1, LOGIT_BYTES // (places * 4 * len(self.setting.tokenizer)))

    def answer(self, model: nn.Module, rows: Asked, precision: Precision) -> Answered:
        setting = self.setting
        texts = self.write(model, rows, precision)
        unusable = sum(map(self._is_unusable, texts, rows.words))
        notes = {"unusable": float(unusable)}
        said = _said(texts, unusable)
        if setting.shots is not None:
            notes["lost_shots"] = float(rows.questions.lost_shots)
        if setting.kind == "generation":
            return Answered(Answers(rows.gold, as_objects(texts), None, 0, written=True), notes, said)
        if setting.kind == "regression":
            numbers = np.array([_number(text) for text in texts])
            return Answered(Answers(rows.gold, numbers, None, 0, written=True), notes, said)
        chosen = np.array([which(text, words) for text, words in zip(texts, rows.words, strict=True)])
        classes = max(map(len, rows.words))
        return Answered(Answers(rows.gold, chosen, None, classes, written=True), notes, said)

    def write(self, model: nn.Module, rows: Asked, precision: Precision) -> list[str]:
        """What ``model``, in eval mode, writes after each of ``rows``."""
        setting = self.setting
        return write(
            model,
            setting.tokenizer,
            [row.context for row in rows.questions.rows],
            precision,
            encoder=self._pieces.start is not None,
            max_new_tokens=setting.how.max_new_tokens,
            beams=setting.how.beams,
            stop=self._stop,
        )

    def answer_batches(self, model: nn.Module, rows: Asked) -> list[BatchRows]:
        how = self.setting.how
        contexts = [row.context for row in rows.questions.rows]
        return batches(contexts, max_new_tokens=how.max_new_tokens, beams=how.beams)

    def passes(
        self, model: nn.Module, rows: Asked, batch: BatchRows, precision: Precision
    ) -> Iterator[tuple[float, Callable[[], object]]]:
        return passes(
            model,
            len(batch.rows),
            batch.length,
            precision,
            encoder=self._pieces.start is not None,
            max_new_tokens=self.setting.how.max_new_tokens,
            beams=self.setting.how.beams,
        )

    def writing(self, model: nn.Module) -> dict[str, Any]:
        """How ``model`` writes: ``generate`` has that method's arguments, ``stop`` what ends a text."""
        how = self.setting.how
        told = arguments(model, self.setting.tokenizer, max_new_tokens=how.max_new_tokens, beams=how.beams)
        return {"generate": told, "stop": list(self._stop)}

    @property
    def _stop(self) -> tuple[str, ...]:
        return self._prompt.stop if self.setting.how.stop is None else self.setting.how.stop

    def _is_unusable(self, text: str, words: tuple[str, ...]) -> bool:
        if self.setting.kind == "generation":
            return not text
        return _NUMBER.search(text) is None if self.setting.kind == "regression" else which(text, words) < 0

    def _gold(self, examples: Sequence[Example]) -> NDArray[np.generic]:
        if self.setting.kind == "generation":
            return as_objects([str(example.label) for example in examples])
        dtype = np.float64 if self.setting.kind == "regression" else np.int64
        return np.array([example.label for example in examples], dtype=dtype)


def _said(texts: Sequence[str], unusable: int) -> tuple[str, ...]:
    """A sentence where some of the texts are no answers."""
    if not unusable:
        return ()
    empty = sum(not text for text in texts)
    nothing = f"nothing was written for {empty} of {len(texts)} rows" if empty else ""
    other = f"what was written for {unusable - empty} of {len(texts)} rows is no answer" if unusable > empty else ""
    return (f"{' and '.join(part for part in (nothing, other) if part)}: they count as wrong.",)


def which(text: str, words: Sequence[str]) -> int:
    """The index of the answer that ``text`` is or begins with (the longest such), whatever its case; -1 for none."""
    said = text.casefold()
    found = [(len(word), -i) for i, word in enumerate(words) if re.match(rf"{re.escape(word.casefold())}(?!\w)", said)]
    return -max(found)[1] if found else -1


def _number(text: str) -> float:
    found = _NUMBER.search(text)
    return NO_NUMBER if found is None else float(found.group())
