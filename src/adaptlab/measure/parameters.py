"""How many numbers a model has and trains: always three figures, trainable without the head, head, total."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptlab.methods._base import Attached
from adaptlab.runs.record import Parameters

if TYPE_CHECKING:
    from torch import nn


def count_parameters(attached: Attached) -> Parameters:
    """Trainable without the head, trainable head, and everything that the model holds (shared tensors once)."""
    held = {id(p): p for p in attached.model.parameters()}
    return Parameters(
        trainable=sum(p.numel() for p in attached.parameters.values()),
        head=sum(p.numel() for p in attached.head.values()),
        total=sum(p.numel() for p in held.values()) - _idle_copies(attached.model),
    )


def _idle_copies(model: nn.Module) -> int:
    """Numbers that PEFT keeps of a module it trains a copy of; they take no part in the model."""
    wrappers = [m for m in model.modules() if hasattr(m, "modules_to_save") and hasattr(m, "original_module")]
    originals = [m.get_submodule("original_module") for m in wrappers]
    return sum(p.numel() for module in originals for p in module.parameters())
