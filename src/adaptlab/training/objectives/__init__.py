"""What training minimises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from adaptlab.errors import unknown_name
from adaptlab.training.objectives.supervised import Supervised

if TYPE_CHECKING:
    from torch import Tensor

    from adaptlab.training.batches import Batch


class Objective(Protocol):
    """A loss per example, so that slices and micro-batches of a batch can be averaged exactly."""

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[rows]`` losses in float32 (float64 for float64 logits)."""


_OBJECTIVES: dict[str, type[Supervised]] = {"supervised": Supervised}


def build(name: str, *, regression: bool) -> Objective:
    """The objective called ``name``.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in _OBJECTIVES:
        raise unknown_name("objective", name, _OBJECTIVES)
    return _OBJECTIVES[name](regression=regression)
