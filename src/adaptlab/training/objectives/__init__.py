"""What training minimises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from adaptlab.training.batches import Batch


class Objective(Protocol):
    """A loss per example, so that slices and micro-batches of a batch can be averaged exactly."""

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[rows]`` losses in float32 (float64 for float64 logits).

        ``logits`` are what :func:`adaptlab.training.words.read` gives for ``batch``.
        """
