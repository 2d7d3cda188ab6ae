"""Texts to token ids, kept flat: one array for all rows, so that a data set costs four bytes a token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from adaptlab.tasks._base import Example

_ROWS_PER_CALL = 10_000


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


def encode(tokenizer: Any, examples: Sequence[Example], *, max_length: int, regression: bool) -> Encoded:
    """Tokenise ``examples`` (single texts or pairs), cutting the longer text first at ``max_length`` tokens."""
    rows: list[list[int]] = []
    types: list[list[int]] = []
    truncated = 0
    for start in range(0, len(examples), _ROWS_PER_CALL):
        part = examples[start : start + _ROWS_PER_CALL]
        output = tokenizer(*_columns(part), add_special_tokens=True)
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
