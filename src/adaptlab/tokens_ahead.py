"""A run's rows as its readout will read them, before there is a model.

They are in the model's own tokens where its tokenizer is on this machine, and in estimated ones elsewhere.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from adaptlab import readouts
from adaptlab.config import RunConfig
from adaptlab.models._base import Layout
from adaptlab.models.load import ensure_padding, local_tokenizer
from adaptlab.readouts import Head, Readout, Rows, Setting
from adaptlab.tasks._base import Example, TaskData
from adaptlab.training.batches import BatchRows
from adaptlab.training.encode import Encoded
from adaptlab.workshop import setting_of

#: Tokens to a word where the tokenizer is not here to be asked.
_TOKENS_A_WORD = 1.35
#: Texts of a split that are tokenised, and questions; the others are taken to be as long as these.
_MOST_TEXTS, _MOST_QUESTIONS = 2000, 400
#: Tokens of a row where there is no task.
_LENGTH_WITHOUT_TASK = 128


@dataclass(frozen=True, slots=True)
class Portion:
    """Some rows that pass through a model together."""

    rows: Any
    batch: BatchRows

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and tokens."""
        return len(self.batch.rows), self.batch.length


@dataclass(frozen=True, slots=True)
class RowsAhead:
    """The rows of a run.

    Attributes:
        train: what training passes over, or a sample of it.
        lengths: ``[rows]`` tokens of every training row.
        answered: of every other split a sample, and how many rows there are in all.
        exact: whether a tokenizer told how long they are.
    """

    readout: Readout
    train: Rows
    lengths: NDArray[np.int64]
    answered: Mapping[str, tuple[Rows, int]]
    exact: bool

    def portion(self, batch: BatchRows) -> Portion:
        """A training batch. What a sample stands for is its rows over and over."""
        return Portion(self.train, BatchRows(batch.rows % len(self.train), batch.length))


def rows_ahead(run: RunConfig, skeleton: nn.Module, layout: Layout, data: TaskData | None) -> RowsAhead:
    """The rows of ``run``, whose maximal length is decided.

    Args:
        skeleton: its model on the meta device.
        data: the task's rows; ``None`` for a head on batches of 128 tokens (or the maximal length).

    Raises:
        ConfigError: the task has no prompt, or one that does not fit the model.
    """
    config: Any = skeleton.config
    if data is None:
        length = min(int(run.task.max_length), _LENGTH_WITHOUT_TASK)
        rows = padded(run.training.batch_size, length).rows
        return RowsAhead(unread_head(layout), rows, rows.lengths, {}, False)
    tokenizer = local_tokenizer(run.model)
    exact = tokenizer is not None
    if tokenizer is None:
        tokenizer = WordCounter(config.vocab_size)
    else:
        ensure_padding(skeleton, tokenizer, run.model, [])
    start = getattr(config, "decoder_start_token_id", None) if layout.kind == "encoder-decoder" else None
    readout = readouts.build(run.readout, setting_of(run, data, tokenizer, layout, start))
    most = _MOST_TEXTS if run.readout == "head" else _MOST_QUESTIONS
    train = readout.encode(_sample(data.trained_on, most), training=True)
    others: Mapping[str, Sequence[Example]] = {"select": data.select, **data.report}
    answered = {
        name: (readout.encode(_sample(rows, most), training=False), len(rows)) for name, rows in others.items() if rows
    }
    return RowsAhead(readout, train, np.resize(train.lengths, len(data.trained_on)), answered, exact)


def _sample(rows: Sequence[Example], most: int) -> list[Example]:
    return [rows[i] for i in np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]


def padded(rows: int, length: int) -> Portion:
    """``rows`` rows of ``length`` tokens for a head, whatever they say."""
    tokens, labels = np.zeros(rows * length, dtype=np.int32), np.zeros(rows, dtype=np.int64)
    offsets = np.arange(rows + 1, dtype=np.int64) * length
    encoded = Encoded(tuple(map(str, range(rows))), tokens, None, offsets, labels, 0)
    return Portion(encoded, BatchRows(np.arange(rows), length))


def unread_head(layout: Layout) -> Head:
    """A head whose rows nobody has to tokenise."""
    setting = Setting(
        tokenizer=WordCounter(1), layout=layout, kind="classification", labels=(), columns=(), prompt=None, max_length=1
    )
    return Head(setting)


class WordCounter:
    """Stands in for a tokenizer that is not here: so many tokens to a word, a text is framed by two, and texts that
    begin alike begin with the same tokens."""

    is_fast = False
    padding_side = "right"
    pad_token_id, bos_token_id, eos_token_id = 0, 1, 1

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary

    def __len__(self) -> int:
        return self._vocabulary

    def __call__(
        self,
        *columns: str | Sequence[str],
        add_special_tokens: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
        verbose: bool = True,
    ) -> dict[str, Any]:
        """Token ids of one text, or of many, each in one or more columns."""
        single = isinstance(columns[0], str)
        rows = [columns] if single else zip(*columns, strict=True)
        found = []
        for row in rows:
            tokens = self._tokens(" ".join(map(str, row)))
            framed = [1, *tokens, 1] if add_special_tokens else tokens
            found.append(framed[:max_length] if truncation else framed)
        return {"input_ids": found[0] if single else found}

    def _tokens(self, text: str) -> list[int]:
        words = [zlib.crc32(word.encode()) % self._vocabulary for word in text.split()]
        return [words[int(i / _TOKENS_A_WORD)] for i in range(math.ceil(len(words) * _TOKENS_A_WORD))]
