"""A group's forward and backward pass, in micro-batches whose gradients add up to the whole batch's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptlab.training.batches import Batch, BatchRows
from adaptlab.training.member import Member
from adaptlab.training.precision import Precision
from adaptlab.training.ranks import here


class Passing(ABC):
    """What engines have in common; how the batches go through the model is theirs.

    Args:
        micro_batch_size: rows of a run that pass through the model at once; ``None`` for the whole batch. The result is
            the same: a run's loss is a mean over its rows, and dropout is keyed by a row's place in the whole batch.
        functional: True if the model calls ``torch.nn.functional.dropout`` itself.
    """

    def __init__(
        self,
        precision: Precision,
        *,
        micro_batch_size: int | None = None,
        functional: bool = False,
    ) -> None:
        self._precision, self._functional = precision, functional
        self.micro_batch_size = micro_batch_size

    def __call__(self, members: Sequence[Member]) -> list[float]:
        """Gradients of every member's next batch, in its own parameters; returns each member's mean loss.

        The members are at the same step, and their batches have one shape. Where several processes train together
        (:mod:`adaptlab.training.ranks`), each takes its part of the rows, and all have the sums.
        """
        ranks = here()
        rows = [member.rows() for member in members]
        totals, tokens = self.gradients(members, rows)
        ranks.add_gradients([parameter for member in members for parameter in member.trained.values()])
        own_losses = [0.0] * len(members) if totals is None else totals.tolist()
        sums = ranks.total([*own_losses, *tokens.ravel().tolist()])
        means, read, padded = (sums[part * len(members) : (part + 1) * len(members)] for part in range(3))
        for member, of_texts, whole in zip(members, read, padded, strict=True):
            member.progress.tokens += int(of_texts)
            member.progress.padded_tokens += int(whole)
            member.progress.examples += len(rows[0].rows)
        return means

    def gradients(
        self, members: Sequence[Member], rows: Sequence[BatchRows]
    ) -> tuple[Tensor | None, NDArray[np.int64]]:
        """This process's part of the gradients of each member's ``rows``, in its own parameters.

        No number is looked at, so that a step without numbers (:mod:`adaptlab.rehearsing`) is this one.

        Returns:
            ``[members]`` losses, if this process had a row, and ``[2, members]`` tokens without and with padding.
        """
        ranks = here()
        count, length = len(rows[0].rows), rows[0].length
        micro = min(self.micro_batch_size or count, count)
        totals: Tensor | None = None
        tokens = np.zeros((2, len(members)), dtype=np.int64)
        for first, end, counts in ranks.passes(count, micro):
            batches = [
                member.collate(member.data, own.rows[first:end], length)
                for member, own in zip(members, rows, strict=True)
            ]
            with self._precision.autocast(), self._precision.attention(length):
                outputs = self._forward(members, batches, first)
            losses = torch.stack(
                [m.objective.losses(o, b).sum() / count for m, o, b in zip(members, outputs, batches, strict=True)]
            )
            losses = losses if counts else losses * 0.0
            self._whole(members, losses, with_extra=counts and first == 0).backward()  # type: ignore[no-untyped-call]
            totals = losses.detach() if totals is None else totals + losses.detach()
            if counts:
                tokens += [[batch.tokens for batch in batches], [batch.padded_tokens for batch in batches]]
        return totals, tokens

    @abstractmethod
    def _forward(self, members: Sequence[Member], batches: Sequence[Batch], first: int) -> list[Any]:
        """Each member's logits for its batch, whose first row is row ``first`` of the member's whole batch."""

    @staticmethod
    def _whole(members: Sequence[Member], losses: Tensor, *, with_extra: bool) -> Tensor:
        """The number to differentiate: no run's loss depends on another's weights, so a sum keeps them apart."""
        wholes = []
        for member, loss in zip(members, losses, strict=True):
            extra = member.attached.method.extra_loss(member.attached) if with_extra else None
            whole = loss if extra is None else loss + extra
            wholes.append(member.scaler.scale(whole) if member.scaler else whole)
        return torch.stack(wholes).sum()
