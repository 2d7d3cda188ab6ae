"""The solo engine: a group of one run, in micro-batches whose gradients add up to the whole batch's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from adaptlab.training.batches import Batch, collate
from adaptlab.training.dropout import DropoutClock, functional_dropout
from adaptlab.training.member import Member
from adaptlab.training.precision import Precision


class Solo:
    """Forward and backward of one run.

    Args:
        micro_batch_size: rows that pass through the model at once; ``None`` for the whole batch. The result is the
            same: the loss is a mean over rows, and dropout is keyed by a row's place in the whole batch.
        functional: True if the model calls ``torch.nn.functional.dropout`` itself.
    """

    def __init__(
        self,
        precision: Precision,
        clock: DropoutClock,
        *,
        pad_id: int,
        padding_side: str = "right",
        micro_batch_size: int | None = None,
        functional: bool = False,
    ) -> None:
        self._precision, self._clock, self._functional = precision, clock, functional
        self._pad_id, self._padding_side = pad_id, padding_side
        self._micro = micro_batch_size

    def __call__(self, members: Sequence[Member]) -> list[float]:
        (member,) = members
        rows = member.rows()
        count = len(rows.rows)
        micro = min(self._micro or count, count)
        total: Tensor | None = None
        for first in range(0, count, micro):
            part = rows.rows[first : first + micro]
            batch = collate(
                member.data,
                part,
                rows.length,
                pad_id=self._pad_id,
                padding_side=self._padding_side,
                device=self._precision.device,
            )
            self._clock.set(member.progress.step, [(member.seed, len(part), first)])
            loss = self._loss(member, batch) / count
            extra = member.attached.method.extra_loss(member.attached) if first == 0 else None
            whole = loss if extra is None else loss + extra
            (member.scaler.scale(whole) if member.scaler else whole).backward()  # type: ignore[no-untyped-call]
            total = loss.detach() if total is None else total + loss.detach()
            member.progress.tokens += batch.tokens
            member.progress.padded_tokens += batch.padded_tokens
        member.progress.examples += count
        assert total is not None
        return [float(total)]

    def _loss(self, member: Member, batch: Batch) -> Tensor:
        dropout = functional_dropout(self._clock) if self._functional else nullcontext()
        length = batch.inputs["input_ids"].shape[1]
        with self._precision.autocast(), self._precision.attention(length), dropout:
            logits = member.attached.model(**batch.inputs).logits
        return member.objective.losses(logits, batch).sum()


def calls_functional_dropout(model: torch.nn.Module) -> bool:
    """True if a module of ``model`` keeps a dropout rate as a plain number, as OPT and BART do."""
    names = ("dropout", "activation_dropout", "hidden_dropout", "resid_dropout")
    return any(
        isinstance(rate, float) and rate > 0 for m in model.modules() for rate in (getattr(m, n, None) for n in names)
    )
