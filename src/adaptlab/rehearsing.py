"""A run's step and answers on tensors that have shapes and no numbers: its real model, method, engine and readout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adaptlab.config import TrainingConfig
from adaptlab.engines.fused import bare
from adaptlab.engines.solo import Solo
from adaptlab.measure.flops import Counted, count
from adaptlab.methods._base import Attached
from adaptlab.models._base import Layout
from adaptlab.readouts import Readout
from adaptlab.tokens_ahead import Portion
from adaptlab.training.batches import Batch, BatchPlan, BatchRows
from adaptlab.training.dropout import DropoutClock, calls_functional_dropout, key_dropout
from adaptlab.training.first_tokens import FirstTokens
from adaptlab.training.member import Member
from adaptlab.training.modes import Modes
from adaptlab.training.objectives import Objective
from adaptlab.training.precision import Precision
from adaptlab.training.recompute import recompute_blocks

#: Of several passes of one shape so many are made.
_PASSES = 2


class Rehearsal:
    """A run that takes steps.

    Args:
        rows: training rows, the first to be gone over.
        micro_batch_size: rows that pass through the model at once, if the readout does not want fewer.
    """

    def __init__(
        self,
        attached: Attached,
        layout: Layout,
        readout: Readout,
        portion: Portion,
        training: TrainingConfig,
        precision: Precision,
        micro_batch_size: int | None,
    ) -> None:
        self._precision, self._readout, self._attached = precision, readout, attached
        self._clock = DropoutClock()
        key_dropout(attached.model, layout.blocks, self._clock)
        FirstTokens(bare(attached.model), layout, [self._clock])
        with precision.autocast():
            modes = Modes(attached.model, self._collate(portion.rows, portion.batch.rows[:1], portion.shape[1]).inputs)
        self._objective = _Sized(readout.objective())
        # Its updates are arithmetic: the optimiser here is the one that has nothing to set up.
        decided = {"optimizer": "sgd", "learning_rate": 1.0, "eval_every": 1, "steps": training.steps or 1}
        self._member = Member(
            name="rehearsal",
            seed=0,
            attached=attached,
            modes=modes,
            data=portion.rows,
            collate=self._collate,
            plan=BatchPlan(portion.rows.lengths, training.batch_size),
            training=training.model_copy(update=decided),
            objective=self._objective,
        )
        limits = [limit for limit in (micro_batch_size, readout.at_once(portion.rows)) if limit]
        functional = calls_functional_dropout(attached.model)
        self._backward = Solo(precision, self._clock, micro_batch_size=min(limits, default=None), functional=functional)

    def recompute(self, layout: Layout) -> None:
        """Train with gradient checkpointing."""
        recompute_blocks(bare(self._attached.model), layout.blocks, self._clock)

    def times(self, portion: Portion) -> float:
        """How often :meth:`step` would have to be taken to be the whole step."""
        rows = portion.shape[0]
        passes = -(-rows // min(self._backward.micro_batch_size or rows, rows))
        return max(1.0, passes / _PASSES)

    def step(self, portion: Portion) -> int:
        """Forward and backward of the first passes of a step; returns the bytes of the model's scores in a pass."""
        rows = portion.batch.rows[: _PASSES * (self._backward.micro_batch_size or len(portion.batch.rows))]
        self._member.modes.train()
        self._member.data = portion.rows
        self._backward.gradients([self._member], [BatchRows(rows, portion.batch.length)])
        return self._objective.bytes

    def count(self, rows: int, length: int) -> Counted:
        """Operations of one pass over ``rows`` rows like the longest, without dropout, which is no product."""
        self._member.modes.eval()
        sized, own = self._member.data.sized(rows, length), self._member.data
        self._member.data = sized
        batch = BatchRows(np.arange(rows), int(sized.lengths.max()))
        found = count(lambda: self._backward.gradients([self._member], [batch]))
        self._member.data = own
        self.forget()
        return found

    def forget(self) -> None:
        """Drop the gradients."""
        for parameter in self._attached.trained.values():
            parameter.grad = None

    def _collate(self, rows: Any, which: NDArray[np.int64], length: int) -> Batch:
        batch = self._readout.collate(rows, which, length, device="cpu")
        return shapes_of(batch, self._precision.device)


def answers(
    model: nn.Module, readout: Readout, portion: Portion, precision: Precision
) -> Iterator[tuple[float, Callable[[], object]]]:
    """As :meth:`adaptlab.readouts.Readout.passes`, with ``model`` in eval mode."""
    model.eval()
    with torch.no_grad(), precision.autocast():
        yield from readout.passes(model, portion.rows, portion.batch, precision)


def shapes_of(batch: Batch, device: str) -> Batch:
    """``batch`` in tensors without numbers; on the meta device without masks, which some models look into."""

    def blank(tensor: Tensor) -> Tensor:
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)

    inputs = {name: blank(tensor) for name, tensor in batch.inputs.items() if device != "meta" or "mask" not in name}
    wanted = batch.wanted
    if wanted is not None:
        wanted = type(wanted)(*(blank(getattr(wanted, one.name)) for one in fields(wanted)))
    return replace(batch, inputs=inputs, labels=blank(batch.labels), wanted=wanted)


class _Sized:
    """An objective that remembers how large the scores were."""

    def __init__(self, objective: Objective) -> None:
        self._objective, self.bytes = objective, 0

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """The objective's own."""
        self.bytes = int(logits.nbytes)
        return self._objective.losses(logits, batch)
