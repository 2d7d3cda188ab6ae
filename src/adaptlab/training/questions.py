"""Rows for a language model: what is read, and the answers whose likelihood is wanted, as token ids.

Question and answer meet where lm-evaluation-harness has them meet: white space at the question's end belongs to the
answer, a decoder's tokens are those of the whole text cut behind the question's, and an encoder-decoder's question and
answer are tokenised on their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptlab.models._base import ModelKind
from adaptlab.training.batches import Batch
from adaptlab.training.words import Reading, Wanted

Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Question:
    """What is read, and the answers in question.

    Attributes:
        options: the tokens of each answer; none is empty.
        divisors: what each answer's log-likelihood is divided by before answers are compared.
        group: questions of one group begin alike, as far as they have a beginning in common.
    """

    context: Tokens
    options: tuple[tuple[int, ...], ...]
    divisors: tuple[float, ...]
    group: int = 0


@dataclass(frozen=True, slots=True)
class Questions:
    """The rows of a split.

    Attributes:
        ids: the examples' own ids, in order.
        labels: ``[rows]`` the option that is right (0 where there is one option, the target).
        start: the token that a decoder behind an encoder starts with; ``None`` for decoders alone.
        truncated: how many rows lost text to the maximal length.
        lost_shots: demonstrations that did not fit, over all rows.
        blanks: questions that say nothing, for calibration; ``blank_of`` ``[rows, blanks a row]`` says whose they are.
    """

    ids: tuple[str, ...]
    rows: tuple[Question, ...]
    labels: NDArray[np.int64]
    start: int | None = None
    truncated: int = 0
    lost_shots: int = 0
    blanks: tuple[Question, ...] = ()
    blank_of: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``[rows]`` tokens that the model reads of a row; of an encoder-decoder, its encoder."""
        more = [0 if self.start is not None else max(map(len, row.options), default=1) - 1 for row in self.rows]
        return np.array([len(row.context) + n for row, n in zip(self.rows, more, strict=True)], dtype=np.int64)

    def batch_tokens(self, rows: NDArray[np.int64]) -> int:
        """Tokens without padding of a batch of these rows: every row as often as the one that is read most often."""
        asked = [self.rows[int(row)] for row in rows]
        kept = [Reading.of(question.options).stems for question in asked]
        per_row = max(map(len, kept))
        framed = 0 if self.start is None else 1  # what an encoder-decoder's decoder starts with
        answers = sum(sum(map(len, own)) + (per_row - len(own)) * len(own[0]) for own in kept)
        return per_row * (sum(len(question.context) for question in asked) + framed * len(asked)) + answers

    def of_targets(self) -> Questions:
        """The same where every row has one option, which is right."""
        return replace(self, labels=np.zeros(len(self), dtype=np.int64))

    def sized(self, rows: int, length: int) -> Questions:
        """``rows`` times the longest row, its context brought to the length at which ``length`` tokens are read."""
        longest = int(np.argmax(self.lengths))
        row = self.rows[longest]
        context = np.resize(row.context, max(1, length - (int(self.lengths[longest]) - len(row.context))))
        ids, labels = self.ids[longest : longest + 1] * rows, np.repeat(self.labels[longest : longest + 1], rows)
        return replace(self, ids=ids, rows=(replace(row, context=context),) * rows, labels=labels)


class Pieces:
    """A model's tokenizer, as questions and answers need it."""

    def __init__(self, tokenizer: Any, kind: ModelKind, *, start: int | None = None) -> None:
        self._tokenizer = tokenizer
        self.kind = kind
        self.start = start if kind == "encoder-decoder" else None
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = tokenizer("a")["input_ids"]
        at = next(i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare)
        self._before, self._after = whole[:at], whole[at + len(bare) :]
        self.end: int | None = tokenizer.eos_token_id

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without special ones."""
        if not texts:
            return []
        # Without transformers' sentence about texts longer than the model: what is too long is ours to mend.
        found: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return found

    def contexts(self, texts: Sequence[str]) -> list[list[int]]:
        """What the model reads of each text. One that is empty is read as the token that begins or ends texts."""
        found = []
        for tokens in self.encode([text.rstrip() for text in texts]):
            if self.kind == "encoder-decoder":
                found.append([*self._before, *tokens, *self._after])
            else:
                found.append([*self._before, *tokens] or self._blank())
        return found

    def options(
        self, texts: Sequence[str], contexts: Sequence[Sequence[int]], answers: Sequence[Sequence[str]]
    ) -> list[tuple[tuple[int, ...], ...]]:
        """The tokens of each of the answers to each text, which was read as its context."""
        gaps = [text[len(text.rstrip()) :] for text in texts]
        if self.kind == "encoder-decoder":
            flat = self.encode([gap + word for gap, words in zip(gaps, answers, strict=True) for word in words])
            return _grouped(flat, answers)
        whole = self.encode([text + word for text, words in zip(texts, answers, strict=True) for word in words])
        cut, found = iter(whole), []
        for text, context, words in zip(texts, contexts, answers, strict=True):
            skip = len(context) - len(self._before) if text.strip() else 0
            found.append(tuple(tuple(next(cut)[skip:]) for _ in words))
        return found

    def first(self, text: str, count: int) -> str:
        """The beginning of ``text`` that holds its first ``count`` tokens."""
        if not self._tokenizer.is_fast:
            tokens = self.encode([text])[0]
            return text[: len(text) * count // max(1, len(tokens))]
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = found["offset_mapping"]
        return text[: offsets[count - 1][1]] if count else ""

    def _blank(self) -> list[int]:
        token = self._tokenizer.bos_token_id
        return [next((found for found in (token, self.end) if found is not None), 0)]


def _grouped(flat: Sequence[Sequence[int]], like: Sequence[Sequence[str]]) -> list[tuple[tuple[int, ...], ...]]:
    tokens = iter(flat)
    return [tuple(tuple(next(tokens)) for _ in words) for words in like]


def collate(data: Questions, rows: NDArray[np.int64], length: int, *, pad_id: int, device: str = "cpu") -> Batch:
    """``rows`` as sequences padded on the right to ``length``: every question with what its options have in common.

    A row takes as many sequences as its options need (see :class:`adaptlab.training.words.Reading`), every row of the
    batch as many as the one that needs most.
    """
    import torch

    asked = [data.rows[int(row)] for row in rows]
    plans = [Reading.of(question.options) for question in asked]
    per_row = max(len(plan.stems) for plan in plans)
    options = max(len(question.options) for question in asked)
    reads: list[tuple[Tokens, tuple[int, ...]]] = []
    places: list[tuple[int, int]] = []
    entries: list[tuple[int, int, int]] = []
    counts = np.zeros((len(asked), options), dtype=np.int64)
    divisors = np.ones((len(asked), options), dtype=np.float32)
    for row, (question, plan) in enumerate(zip(asked, plans, strict=True)):
        first = 0 if data.start is not None else len(question.context) - 1
        divisors[row, : len(question.options)] = question.divisors
        for o, (option, of_token) in enumerate(zip(question.options, plan.of_option, strict=True)):
            counts[row, o] = len(option)
            entries += [
                (len(places) + place, token, row * options + o) for place, token in zip(of_token, option, strict=True)
            ]
        places += [(row * per_row + stem, first + read) for stem, read in plan.places]
        kept = plan.stems
        reads += [(question.context, kept[i] if i < len(kept) else kept[0]) for i in range(per_row)]
    lists = [torch.tensor(found, device=device) for found in (places, entries)]
    wanted = Wanted(*lists, *(torch.from_numpy(table).to(device) for table in (counts, divisors)))
    if data.start is None:
        inputs = _padded([[*context, *stem] for context, stem in reads], length, pad_id)
    else:
        begun = [[data.start, *stem] for _, stem in reads]
        decoder = _padded(begun, max(map(len, begun)), pad_id)
        inputs = _padded([context for context, _ in reads], length, pad_id)
        inputs |= {f"decoder_{name}": value for name, value in decoder.items()}
    masks = [value for name, value in inputs.items() if name.endswith("attention_mask")]
    return Batch(
        inputs={name: torch.from_numpy(value).to(device) for name, value in inputs.items()},
        labels=torch.from_numpy(data.labels[rows]).to(device),
        tokens=int(sum(mask.sum() for mask in masks)),
        padded_tokens=sum(mask.size for mask in masks),
        wanted=wanted,
    )


def _padded(rows: Sequence[Sequence[int] | Tokens], length: int, pad_id: int) -> dict[str, NDArray[np.int64]]:
    ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), length), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}
