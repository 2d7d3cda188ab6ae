"""Rows as questions to a language model: instruction, demonstrations, then the row itself.

What does not fit into the model loses whole demonstrations, the last ones first, so that what is left begins alike for
all questions and is read once. The question is never touched while a demonstration is left; one that is too long on its
own loses the end of its longest text, as it does for a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from adaptlab.config import LengthNormalization, Prompt
from adaptlab.errors import ConfigError
from adaptlab.evaluation.demonstrations import Demonstrations, Fixed, PerQuery
from adaptlab.tasks._base import Example
from adaptlab.tasks._prompts import Rendered, demonstrate, render
from adaptlab.training.questions import Pieces, Question, Questions


@dataclass(slots=True)
class _Row:
    example: Example
    shown: tuple[str, ...]  # demonstrations, rendered
    rendered: Rendered
    kept: int = 0  # demonstrations that fit
    context: list[int] = field(default_factory=list)
    options: tuple[tuple[int, ...], ...] = ()
    cut: bool = False


class Prompter:
    """Puts rows in one prompt.

    Args:
        columns: names of the rows' texts.
        max_length: tokens that the model may read of a question and its answer.
    """

    def __init__(self, prompt: Prompt, columns: Sequence[str], pieces: Pieces, *, max_length: int) -> None:
        self._prompt, self._columns, self._pieces, self._max_length = prompt, columns, pieces, max_length

    def questions(
        self,
        examples: Sequence[Example],
        *,
        shots: Demonstrations | None = None,
        answers: Callable[[Rendered], tuple[str, ...]] = lambda rendered: rendered.answers,
        normalization: LengthNormalization = "none",
        end: bool = False,
        room: int = 0,
    ) -> Questions:
        """``examples`` as token ids.

        Args:
            answers: which answers of a row are in question.
            end: whether the token that ends a text belongs to every answer.
            room: tokens to leave free for an answer that is not known yet.

        Raises:
            ConfigError: prompt and answers alone are longer than ``max_length``, or an answer has no tokens.
        """
        fixed = self._rendered(shots.rows) if isinstance(shots, Fixed) else ()
        rows = [
            _Row(
                example,
                self._rendered(shots.of(example)) if isinstance(shots, PerQuery) else fixed,
                render(self._prompt, self._columns, example),
            )
            for example in examples
        ]
        self._fit(rows, answers, end, room)
        return Questions(
            ids=tuple(row.example.id for row in rows),
            rows=tuple(
                Question(
                    np.array(row.context, dtype=np.int32),
                    row.options,
                    _divisors(row.options, answers(row.rendered), normalization),
                    group=row.kept,
                )
                for row in rows
            ),
            labels=np.array([_index(row.example.label) for row in rows], dtype=np.int64),
            start=self._pieces.start,
            truncated=sum(row.cut for row in rows),
            lost_shots=sum(len(row.shown) - row.kept for row in rows),
        )

    def text(self, shown: Sequence[str], query: str) -> str:
        """A whole prompt: instruction, demonstrations, question."""
        return self._prompt.between.join([part for part in (self._prompt.instruction, *shown, query) if part])

    def _rendered(self, examples: Sequence[Example]) -> tuple[str, ...]:
        return tuple(demonstrate(self._prompt, self._columns, example) for example in examples)

    def _fit(self, rows: Sequence[_Row], answers: Any, end: bool, room: int) -> None:
        """Give every row as many demonstrations as fit, by bisection, and cut what is too long without any."""
        low, high = [0] * len(rows), [len(row.shown) for row in rows]
        open_rows = list(range(len(rows)))
        for i, row in enumerate(rows):
            row.kept = high[i]
        while open_rows:
            fits = self._encode([rows[i] for i in open_rows], answers, end, room)
            for i, fit in zip(open_rows, fits, strict=True):
                if fit:
                    low[i] = rows[i].kept
                else:
                    high[i] = rows[i].kept - 1
            # A row is settled when what it holds now is known to fit and nothing more can.
            open_rows = [
                i for i, fit in zip(open_rows, fits, strict=True) if high[i] >= 0 and not (fit and low[i] == high[i])
            ]
            for i in open_rows:
                rows[i].kept = -(-(low[i] + high[i]) // 2)
        for i, row in enumerate(rows):
            if high[i] < 0:
                row.kept = 0
                self._cut(row, answers, end, room)

    def _encode(self, rows: Sequence[_Row], answers: Any, end: bool, room: int) -> list[bool]:
        texts = [self.text(row.shown[: row.kept], row.rendered.query) for row in rows]
        contexts = self._pieces.contexts(texts)
        words = [answers(row.rendered) for row in rows]
        options = self._pieces.options(texts, contexts, words)
        tail = (self._pieces.end,) if end and self._pieces.end is not None else ()
        for row, context, found, said in zip(rows, contexts, options, words, strict=True):
            row.context, row.options = context, tuple(option + tail for option in found)
            if any(not option for option in found):
                empty = next(word for word, option in zip(said, found, strict=True) if not option)
                raise ConfigError(
                    f"The prompt '{self._prompt.name}' has the answer '{empty}', of which this model's tokenizer "
                    "leaves nothing: give another word."
                )
        return [self._overflow(row, room) <= 0 for row in rows]

    def _overflow(self, row: _Row, room: int) -> int:
        if self._pieces.start is not None:
            return len(row.context) - self._max_length
        longest = max([room, *(len(option) - 1 for option in row.options)])
        return len(row.context) + longest - self._max_length

    def _cut(self, row: _Row, answers: Any, end: bool, room: int) -> None:
        """Shorten the row's longest text until the question fits."""
        row.cut = True
        while not self._encode([row], answers, end, room)[0]:
            encoded = self._pieces.encode(row.example.texts)
            lengths = [len(tokens) for tokens in encoded]
            longest = int(np.argmax(lengths))
            left = lengths[longest] - self._overflow(row, room)
            if not lengths[longest]:
                raise ConfigError(
                    f"The prompt '{self._prompt.name}' and its answers take more than {self._max_length} tokens "
                    "without any text of the row: raise --max-length or choose a shorter prompt."
                )
            texts = list(row.example.texts)
            shorter = self._pieces.first(texts[longest], max(0, left))
            texts[longest] = shorter if len(shorter) < len(texts[longest]) else texts[longest][:-1]
            row.example = replace(row.example, texts=tuple(texts))
            row.rendered = render(self._prompt, self._columns, row.example)


def _index(label: int | float | str) -> int:
    return label if isinstance(label, int) else 0


def _divisors(
    options: Sequence[Sequence[int]], words: Sequence[str], normalization: LengthNormalization
) -> tuple[float, ...]:
    if normalization == "tokens":
        return tuple(float(len(option)) for option in options)
    if normalization == "characters":
        return tuple(float(max(1, len(word.strip()))) for word in words)
    return (1.0,) * len(options)
