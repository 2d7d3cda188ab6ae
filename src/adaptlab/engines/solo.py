"""The solo engine: a group of one run, through the run's own model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from adaptlab.engines.passing import Passing
from adaptlab.training.batches import Batch
from adaptlab.training.dropout import DropoutClock, functional_dropout
from adaptlab.training.member import Member
from adaptlab.training.precision import Precision
from adaptlab.training.words import read


class Solo(Passing):
    """Forward and backward of one run. ``clock`` is the one that the model's dropouts look at."""

    def __init__(self, precision: Precision, clock: DropoutClock, **settings: Any) -> None:
        super().__init__(precision, **settings)
        self._clock = clock

    def _forward(self, members: Sequence[Member], batches: Sequence[Batch], first: int) -> list[Any]:
        (member,), (batch,) = members, batches
        per_row = batch.sequences // len(batch.labels)
        self._clock.set(member.progress.step, [(member.seed, batch.sequences, first * per_row)])
        with functional_dropout(self._clock) if self._functional else nullcontext():
            return [read(member.attached.model, member.attached.layout.word_head, batch.inputs, batch.places)]
