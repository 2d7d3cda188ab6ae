"""The fused engine: many runs over one copy of the frozen base, in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from adaptlab.engines.layers import Lanes
from adaptlab.engines.passing import Passing
from adaptlab.engines.trunk import Trunk
from adaptlab.training.batches import Batch
from adaptlab.training.dropout import DropoutClock, functional_dropout, key_dropout
from adaptlab.training.member import Member


class Fused(Passing):
    """Forward and backward of a group's runs in one batch.

    Every run keeps a whole model of its own, whose frozen tensors are the base's; the shared pass borrows from it what
    is the run's. So a run is evaluated, saved and exported as if it had been alone.

    Args:
        base: a copy of the base for this engine alone, prepared as the members' models are.
        members: the group, in the order of the lanes.
        clocks: the dropout clock of each member's own model.
        blocks: names of the base's transformer blocks.
    """

    def __init__(
        self,
        base: nn.Module,
        members: Sequence[Member],
        clocks: Sequence[DropoutClock],
        blocks: Sequence[str],
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._members, self._clocks = list(members), list(clocks)
        self._lanes, self._clock = Lanes(), DropoutClock()
        key_dropout(base, blocks, self._clock)
        self._trunk = Trunk(base, [bare(m.attached.model) for m in members], self._lanes, self._clock)

    def _forward(self, members: Sequence[Member], batches: Sequence[Batch], first: int) -> list[Any]:
        lanes = [self._members.index(member) for member in members]
        rows = len(batches[0].labels)
        self._lanes.set(lanes, rows)
        step = members[0].progress.step
        self._clock.set(step, [(member.seed, rows, first) for member in members])
        for lane in lanes:
            self._clocks[lane].set(step, [(self._members[lane].seed, rows, first)])
        self._trunk.train()
        dropout = functional_dropout(self._clock, self._trunk.functional_rates) if self._functional else nullcontext()
        inputs = joined([batch.inputs for batch in batches])
        with dropout:
            logits = self._trunk.model(**inputs).logits
        return list(logits.chunk(len(members)))


def joined(inputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The batches of several runs one after the other."""
    return {name: torch.cat([one[name] for one in inputs]) for name in inputs[0]}


def bare(model: Any) -> nn.Module:
    """The Hugging Face model under PEFT's wrapper, if there is one."""
    wrapped: nn.Module = model.get_base_model() if hasattr(model, "get_base_model") else model
    return wrapped
