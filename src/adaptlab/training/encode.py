"""Texts to token ids, kept flat: one array for all rows, so that a data set costs four bytes a token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from adaptlab.tasks._base import Example

_ROWS_PER_CALL = 10_000


class Rows(Protocol):
    """Tokenised rows of a split."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The examples' own ids, in order."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``[rows]`` tokens that the model reads of each."""

    @property
    def truncated(self) -> int:
        """How many rows lost text to the maximal length."""

    def __len__(self) -> int: ...

    def batch_tokens(self, rows: NDArray[np.int64]) -> int:
        """Tokens without padding of a batch of these rows."""

    def sized(self, rows: int, length: int) -> Any:
        """``rows`` times the longest row, brought to ``length`` tokens: for counting what a step computes."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokenised examples.

    Attributes:
        ids: the examples' own ids, in order.
        tokens: ``[total]`` int32 token ids of all rows, one after the other.
        types: ``[total]`` int8 segment ids, or ``None`` where the tokenizer has none.
        offsets: ``[rows + 1]``; row ``i`` is ``tokens[offsets[i]:offsets[i + 1]]``.
        labels: ``[rows]`` int64 class indices or float32 values.
        truncated: how many rows lost tokens to the maximal length.
    """

    ids: tuple[str, ...]
    tokens: NDArray[np.int32]
    types: NDArray[np.int8] | None
    offsets: NDArray[np.int64]
    labels: NDArray[np.generic]
    truncated: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``[rows]`` tokens per row, special tokens included."""
        return np.diff(self.offsets)

    def batch_tokens(self, rows: NDArray[np.int64]) -> int:
        """Tokens without padding of a batch of these rows."""
        return int((self.offsets[rows + 1] - self.offsets[rows]).sum())

    def sized(self, rows: int, length: int) -> Encoded:
        """``rows`` times the longest row, brought to ``length`` tokens; its last token stays the last."""
        longest = int(np.argmax(self.lengths))
        start, end = int(self.offsets[longest]), int(self.offsets[longest + 1])
        at = np.arange(start, end)
        at = np.r_[np.resize(at[:-1] if len(at) > 1 else at, length - 1), at[-1]]
        return replace(
            self,
            ids=self.ids[longest : longest + 1] * rows,
            tokens=np.tile(self.tokens[at], rows),
            types=None if self.types is None else np.tile(self.types[at], rows),
            offsets=np.arange(rows + 1, dtype=np.int64) * length,
            labels=np.repeat(self.labels[longest : longest + 1], rows),
        )


def encode(tokenizer: Any, examples: Sequence[Example], *, max_length: int, regression: bool) -> Encoded:
    """Tokenise ``examples`` (single texts or pairs), cutting the longer text first at ``max_length`` tokens."""
    rows: list[list[int]] = []
    types: list[list[int]] = []
    truncated = 0
    for start in range(0, len(examples), _ROWS_PER_CALL):
        part = examples[start : start + _ROWS_PER_CALL]
        output = tokenizer(*_columns(part), add_special_tokens=True, verbose=False)  # too long is ours to mend
        cut = [i for i, ids in enumerate(output["input_ids"]) if len(ids) > max_length]
        if cut:
            truncated += len(cut)
            short = tokenizer(*_columns([part[i] for i in cut]), truncation=True, max_length=max_length)
            for key in output:
                for i, value in zip(cut, short[key], strict=True):
                    output[key][i] = value
        rows += output["input_ids"]
        types += output.get("token_type_ids") or []
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    return Encoded(
        ids=tuple(example.id for example in examples),
        tokens=_flat(rows, lengths, np.int32),
        types=_flat(types, lengths, np.int8) if types else None,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        labels=np.array([example.label for example in examples], dtype=np.float32 if regression else np.int64),
        truncated=truncated,
    )


def _columns(examples: Sequence[Example]) -> list[list[str]]:
    return [list(column) for column in zip(*(example.texts for example in examples), strict=True)]


def _flat(rows: Iterable[Sequence[int]], lengths: NDArray[np.int64], dtype: Any) -> NDArray[Any]:
    return np.fromiter((token for row in rows for token in row), dtype=dtype, count=int(lengths.sum()))
