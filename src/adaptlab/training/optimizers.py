"""Optimisers by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from adaptlab.errors import unknown_name
from adaptlab.methods._base import Attached

Build = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]

_BUILDERS: dict[str, Build] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=True),
    "adam": lambda groups: torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-8, fused=True),
    "sgd": lambda groups: torch.optim.SGD(groups),
}


def names() -> list[str]:
    """The optimisers there are."""
    return sorted(_BUILDERS)


def build(name: str, attached: Attached, *, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """An optimiser over everything that ``attached`` trains.

    Each parameter group carries ``peak_rate``: the loop multiplies it by the schedule's factor at every step.

    Raises:
        UnknownNameError: no optimiser is called so.
    """
    if name not in _BUILDERS:
        raise unknown_name("optimizer", name, _BUILDERS)
    trained = attached.trained
    groups: list[dict[str, Any]] = []
    for group in attached.method.parameter_groups(attached):
        rate = learning_rate * group.rate_factor
        groups.append(
            {
                "params": [trained[n] for n in group.names],
                "lr": rate,
                "peak_rate": rate,
                "weight_decay": weight_decay if group.decay else 0.0,
            }
        )
    _check_complete(trained, groups)
    return _BUILDERS[name](groups)


def _check_complete(trained: dict[str, torch.nn.Parameter], groups: Sequence[dict[str, Any]]) -> None:
    """A method whose groups leave a parameter out would train it never, without a word."""
    grouped = [id(p) for group in groups for p in group["params"]]
    if sorted(grouped) != sorted(id(p) for p in trained.values()):
        raise RuntimeError("parameter_groups must name every trained parameter exactly once")
