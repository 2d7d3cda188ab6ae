"""Which examples make each batch, and the padded tensors of a batch.

Rows are sorted by length and cut into *bins* of similar length. In every epoch the sequence of (bin, batch) depends
on the lengths, the batch size and the epoch alone; the seed decides only which of a bin's examples fill each of its
batches. So runs with different seeds have batches of the same shape at every step: they can be trained side by side
without padding for each other, and a clock is compared at equal work. Every example is seen once per epoch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adaptlab.training.encode import Encoded

if TYPE_CHECKING:
    from torch import Tensor

    from adaptlab.training.words import Wanted

#: A bin holds at least this many batches (else the seed could not mix it), and is searched for up to that many.
_LEAST_BATCHES, _MOST_BATCHES = 2, 64
#: What a bin more must save, in padded tokens, as a share of a mean batch: fewer bins let the seed mix more.
_PRICE_OF_A_BIN = 0.25


@dataclass(frozen=True, slots=True)
class BatchRows:
    """One batch: ``rows`` indexes the data, ``length`` is what they are padded to."""

    rows: NDArray[np.int64]
    length: int


class BatchPlan:
    """The batches of a training run, any step of it by arithmetic: a resumed run needs the step number only.

    Args:
        lengths: ``[rows]`` tokens per row.
        batch_size: rows per batch; the last batch of the longest bin may be smaller.
    """

    def __init__(self, lengths: NDArray[np.int64], batch_size: int) -> None:
        if not len(lengths):
            raise ValueError("a batch plan needs at least one row")
        self.batch_size = batch_size
        order = np.argsort(lengths, kind="stable")
        self._bins = [order[start:end] for start, end in _bin_bounds(lengths[order], batch_size)]
        self._bin_lengths = [int(lengths[rows[-1]]) for rows in self._bins]
        self._slots = [(b, k) for b, rows in enumerate(self._bins) for k in range(-(-len(rows) // batch_size))]
        self._data_key = int.from_bytes(hashlib.sha256(np.ascontiguousarray(lengths).tobytes()).digest()[:8], "big")
        self._epoch: tuple[int, int] | None = None
        self._batches: list[BatchRows] = []

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch: rows / batch size, rounded up."""
        return len(self._slots)

    @property
    def padded_tokens_per_epoch(self) -> int:
        """Tokens per epoch, padding included."""
        return sum(len(rows) * length for rows, length in zip(self._bins, self._bin_lengths, strict=True))

    def epoch(self, epoch: int, seed: int) -> list[BatchRows]:
        """All batches of an epoch (counted from 0), in order."""
        mixed = [np.random.default_rng([seed, epoch, b]).permutation(rows) for b, rows in enumerate(self._bins)]
        sequence = np.random.default_rng([self._data_key, self.batch_size, epoch]).permutation(len(self._slots))
        batches = []
        for slot in sequence:
            b, k = self._slots[slot]
            rows = mixed[b][k * self.batch_size : (k + 1) * self.batch_size]
            batches.append(BatchRows(rows, self._bin_lengths[b]))
        return batches

    def batch(self, step: int, seed: int) -> BatchRows:
        """The batch of optimiser step ``step`` (counted from 0)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._epoch != (epoch, seed):
            self._epoch, self._batches = (epoch, seed), self.epoch(epoch, seed)
        return self._batches[position]


def _bin_bounds(lengths: NDArray[np.int64], batch_size: int) -> list[tuple[int, int]]:
    """Cuts of sorted ``lengths`` into bins of whole batches; only the last bin may end in a partial one.

    Of all such cuts the one with the least padding, each bin costing ``_PRICE_OF_A_BIN`` (dynamic programming).
    """
    rows = len(lengths)
    batches = -(-rows // batch_size)
    if batches < 2 * _LEAST_BATCHES:
        return [(0, rows)]
    ends = np.minimum(np.arange(batches + 1) * batch_size, rows)
    price = _PRICE_OF_A_BIN * batch_size * lengths.mean()
    cost = np.full(batches + 1, np.inf)
    cost[0] = 0.0
    previous = np.zeros(batches + 1, dtype=np.int64)
    for end in range(_LEAST_BATCHES, batches + 1):
        starts = np.arange(max(0, end - _MOST_BATCHES), end - _LEAST_BATCHES + 1)
        total = cost[starts] + (ends[end] - ends[starts]) * lengths[ends[end] - 1] + price
        best = int(np.argmin(total))
        cost[end], previous[end] = total[best], starts[best]
    bounds, end = [], batches
    while end > 0:
        start = int(previous[end])
        bounds.append((int(ends[start]), int(ends[end])))
        end = start
    return bounds[::-1]


@dataclass(slots=True)
class Batch:
    """A padded batch on a device. ``inputs`` are the model's keyword arguments, ``labels`` ``[rows]``.

    ``wanted`` says where a language model is read, and what for; a row may then take several of its sequences, the
    same number for all rows. ``None`` means the model gives ``[rows, outputs]`` logits by itself.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    tokens: int  # without padding
    padded_tokens: int
    wanted: Wanted | None = None
    teacher: Tensor | None = None  # [rows, options] or [places, vocabulary] to be drawn to, of context distillation

    @property
    def places(self) -> Tensor | None:
        """Where the model is read; ``None`` for what it gives by itself."""
        return None if self.wanted is None else self.wanted.places

    @property
    def sequences(self) -> int:
        """Sequences that the model reads."""
        return len(self.inputs["input_ids"])


def collate(
    data: Encoded,
    rows: NDArray[np.int64],
    length: int,
    *,
    pad_id: int,
    device: str = "cpu",
    padding_side: str = "right",
) -> Batch:
    """``rows`` padded to ``length``: ``input_ids``, ``attention_mask`` and, where there are any, ``token_type_ids``."""
    sizes = data.lengths[rows]
    column = np.arange(length)
    if padding_side == "right":
        mask = column < sizes[:, None]
        source = data.offsets[rows][:, None] + column
    else:
        mask = column >= length - sizes[:, None]
        source = data.offsets[rows][:, None] + column - (length - sizes[:, None])
    source = np.where(mask, source, 0)
    inputs = {
        "input_ids": np.where(mask, data.tokens[source], pad_id).astype(np.int64),
        "attention_mask": mask.astype(np.int64),
    }
    if data.types is not None:
        inputs["token_type_ids"] = np.where(mask, data.types[source], 0).astype(np.int64)
    return Batch(
        inputs={name: on_device(value, device) for name, value in inputs.items()},
        labels=on_device(data.labels[rows], device),
        tokens=int(sizes.sum()),
        padded_tokens=len(rows) * length,
    )


def on_device(values: NDArray[Any], device: str) -> Tensor:
    """``values`` as a tensor on ``device``; to a GPU from pinned memory, so that the CPU does not wait for the copy."""
    import torch

    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else tensor.to(device)


def evaluation_batches(lengths: NDArray[np.int64], *, most_tokens: int = 4096, most_rows: int = 128) -> list[BatchRows]:
    """Batches for evaluation: sorted by length, bounded in padded tokens; a function of the lengths alone."""
    order = np.argsort(lengths, kind="stable")[::-1]
    batches, start = [], 0
    while start < len(order):
        length = int(lengths[order[start]])
        count = max(1, min(most_rows, most_tokens // max(length, 1)))
        batches.append(BatchRows(order[start : start + count].astype(np.int64), length))
        start += count
    return batches
