"""The fused engine: many runs over one copy of the frozen base, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from adaptlab.engines.layers import Lanes
from adaptlab.engines.passing import Passing
from adaptlab.engines.trunk import Trunk
from adaptlab.models._base import Layout
from adaptlab.training.batches import Batch
from adaptlab.training.dropout import DropoutClock, functional_dropout, key_dropout
from adaptlab.training.first_tokens import FirstTokens
from adaptlab.training.member import Member
from adaptlab.training.words import read

T = TypeVar("T")


class Fused(Passing):
    """Forward and backward of a group's runs in one batch.

    Every run keeps a whole model of its own, whose frozen tensors are the base's; the shared pass borrows from it what
    is the run's. So a run is evaluated, saved and exported as if it had been alone.

    Args:
        base: a copy of the base for this engine alone, prepared as the members' models are.
        members: the group, in the order of the lanes.
        clocks: the dropout clock of each member's own model.
        layout: the base's.

    Raises:
        ValueError: the members' methods cannot share a pass (:meth:`Method.company`).
    """

    def __init__(
        self,
        base: nn.Module,
        members: Sequence[Member],
        clocks: Sequence[DropoutClock],
        layout: Layout,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._members, self._clocks = list(members), list(clocks)
        self._lanes, self._clock = Lanes(), DropoutClock()
        self._clock.shared = {site for clock in clocks for site in clock.shared}
        self._at_once = len(self._members)
        key_dropout(base, layout.blocks, self._clock)
        FirstTokens(base, layout, [self._clock, *self._clocks])
        runs = [member.attached for member in members]
        companies = {run.method.company(run.setup.options) for run in runs}
        if len(companies) > 1:
            raise ValueError(f"these runs cannot share a pass, which has to have {' and '.join(sorted(companies))}")
        runs[0].method.hang_on_shared(base, runs, lambda: self._lanes.active)
        self._trunk = Trunk(base, [bare(run.model) for run in runs], self._lanes, self._clock)

    def __call__(self, members: Sequence[Member]) -> list[float]:
        """As every engine's; a batch that does not fit the device's memory goes through in parts from then on."""
        return [loss for part in self._split(members, self._try_step) for loss in part]

    def side_by_side(self, members: Sequence[Member]) -> Callable[..., Any]:
        """A model in evaluation whose ``logits`` ``[rows, members * outputs]`` are those of all ``members``."""

        def model(**inputs: Tensor) -> Any:
            rows = len(next(iter(inputs.values())))
            parts = self._split(members, lambda part: self._answers(part, inputs, rows))
            return SimpleNamespace(logits=torch.cat([logits for part in parts for logits in part], dim=1))

        return model

    def _try_step(self, members: Sequence[Member]) -> list[float]:
        before = [(m, m.progress.tokens, m.progress.padded_tokens) for m in members]
        try:
            return super().__call__(members)
        except torch.OutOfMemoryError:
            for member, tokens, padded in before:  # as if the step had not begun
                member.progress.tokens, member.progress.padded_tokens = tokens, padded
                member.optimizer.zero_grad(set_to_none=True)
            raise

    def _split(self, members: Sequence[Member], do: Callable[[Sequence[Member]], T]) -> list[T]:
        """``do`` for the members, as many at once as memory has been seen to hold.

        Raises:
            torch.OutOfMemoryError: it does not even hold one.
        """
        results: list[T] = []
        first = 0
        while first < len(members):
            part = members[first : first + self._at_once]
            try:
                results.append(do(part))
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self._at_once = len(part) // 2
            else:
                first += len(part)
                continue
            empty_cache(self._precision.device)  # outside the handler, which holds what the failed pass had
        return results

    def _forward(self, members: Sequence[Member], batches: Sequence[Batch], first: int) -> list[Any]:
        """In one pass for all batches of a shape: padding for a neighbour's sake would move the dropout of a run."""
        shapes: dict[Any, list[int]] = {}
        for place, batch in enumerate(batches):
            shapes.setdefault(tuple((name, tuple(t.shape)) for name, t in batch.inputs.items()), []).append(place)
        found: dict[int, Any] = {}
        for places in shapes.values():
            outputs = self._pass([members[place] for place in places], [batches[place] for place in places], first)
            found |= dict(zip(places, outputs, strict=True))
        return [found[place] for place in range(len(members))]

    def _pass(self, members: Sequence[Member], batches: Sequence[Batch], first: int) -> list[Any]:
        rows = batches[0].sequences
        self._carry(members, rows, first * (rows // len(batches[0].labels)))
        self._trunk.train()
        dropout = functional_dropout(self._clock, self._trunk.functional_rates) if self._functional else nullcontext()
        inputs, places = joined([batch.inputs for batch in batches], [batch.places for batch in batches])
        with dropout:
            logits = read(self._trunk.model, members[0].attached.layout.word_head, inputs, places)
        sizes = [len(batch.labels if batch.places is None else batch.places) for batch in batches]
        return list(torch.split(logits, sizes))

    def _answers(self, members: Sequence[Member], inputs: Mapping[str, Tensor], rows: int) -> list[Tensor]:
        self._carry(members, rows, 0)
        self._trunk.eval()
        logits = self._trunk.model(**joined([inputs] * len(members))[0]).logits
        return list(logits.chunk(len(members)))

    def _carry(self, members: Sequence[Member], rows: int, first: int) -> None:
        """The coming pass carries ``members``, each with ``rows`` sequences, the first of which is its ``first``."""
        lanes = [self._members.index(member) for member in members]
        self._lanes.set(lanes, rows)
        step = members[0].progress.step
        self._clock.set(step, [(member.seed, rows, first) for member in members])
        for lane in lanes:
            self._clocks[lane].set(step, [(self._members[lane].seed, rows, first)])


def empty_cache(device: str) -> None:
    """Give back what the allocator holds of a pass that did not fit."""
    if device == "cuda":
        torch.cuda.empty_cache()


def joined(
    inputs: Sequence[Mapping[str, Tensor]], places: Sequence[Tensor | None] = ()
) -> tuple[dict[str, Tensor], Tensor | None]:
    """The batches of several runs one after the other: their inputs, and the places where a language model is read."""
    whole = {name: torch.cat([one[name] for one in inputs]) for name in inputs[0]}
    moved, start = [], 0
    for one, own in zip(inputs, places, strict=False):
        if own is not None:
            moved.append(own + torch.tensor([start, 0]).to(own))
            start += len(one["input_ids"])
    return whole, torch.cat(moved) if moved else None


def bare(model: Any) -> nn.Module:
    """The Hugging Face model under PEFT's wrapper, if there is one."""
    wrapped: nn.Module = model.get_base_model() if hasattr(model, "get_base_model") else model
    return wrapped
