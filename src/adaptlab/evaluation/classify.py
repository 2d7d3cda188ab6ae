"""Answers of a head readout: one forward pass per row, sorted by length, the same batches every time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adaptlab.metrics._base import Answers
from adaptlab.training.batches import BatchRows, collate, evaluation_batches
from adaptlab.training.encode import Encoded
from adaptlab.training.precision import Precision
from adaptlab.training.ranks import here

if TYPE_CHECKING:
    from torch import Tensor


def logits(
    model: Callable[..., object], data: Encoded, precision: Precision, *, pad_id: int, padding_side: str = "right"
) -> NDArray[np.float32]:
    """``[rows, outputs]`` raw scores of ``model`` (in eval mode) for every row, in the order of ``data``.

    Processes that train together answer some of the batches each.
    """
    import torch

    ranks = here()
    batches = evaluation_batches(data.lengths)
    parts = []
    with torch.inference_mode(), precision.autocast():
        own = batches[ranks.index :: ranks.count]
        # All pass through the model equally often: one that has none left to answer looks at the first batch.
        for rows in own + batches[:1] * (-(-len(batches) // ranks.count) - len(own)):
            parts.append(logits_of(model, data, rows, precision, pad_id=pad_id, padding_side=padding_side))
    scores = torch.cat(parts).cpu().numpy()
    result = np.zeros((len(data), *scores.shape[1:]), dtype=scores.dtype)
    if own:
        answered = np.concatenate([rows.rows for rows in own])
        result[answered] = scores[: len(answered)]
    return ranks.merged(result)


def logits_of(
    model: Callable[..., object],
    data: Encoded,
    rows: BatchRows,
    precision: Precision,
    *,
    pad_id: int,
    padding_side: str,
) -> Tensor:
    """``[rows, outputs]`` raw scores of one batch."""
    batch = collate(data, rows.rows, rows.length, pad_id=pad_id, padding_side=padding_side, device=precision.device)
    with precision.attention(rows.length):
        scores: Tensor = model(**batch.inputs).logits.float()  # type: ignore[attr-defined]
    return scores


def answers(scores: NDArray[np.float32], gold: NDArray[np.generic], *, regression: bool) -> Answers:
    """Predictions from raw scores: the likeliest class, or the value itself."""
    if regression:
        return Answers(gold, scores[:, 0].astype(np.float64), None, 0)
    wide = scores.astype(np.float64)
    exponents = np.exp(wide - wide.max(axis=1, keepdims=True))
    probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    return Answers(gold, scores.argmax(axis=1), probabilities, scores.shape[1])
