"""Which modules are in training mode: nothing trained, nothing random.

Modules that finish before the first trained one starts compute the same thing in every step if they draw no dropout;
so they run in eval mode. The order is the order of execution, seen in one forward pass, whatever the architecture. A
layer that an adapter is built around starts as a whole: what the adapter drops of its input is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Modes:
    """Switches a model between training and evaluation.

    Args:
        model: the model with its method attached and ``requires_grad`` set.
        inputs: keyword arguments of a small forward pass.
    """

    def __init__(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> None:
        self._model = model
        self._frozen_below = _modules_before_first_trained(model, inputs)

    @property
    def still(self) -> tuple[nn.Module, ...]:
        """The modules that stay in eval mode while training."""
        return self._frozen_below

    def train(self) -> None:
        """Training mode, except below the lowest trained module."""
        self._model.train()
        for module in self._frozen_below:
            module.training = False

    def eval(self) -> None:
        """Evaluation mode everywhere."""
        self._model.eval()


def _modules_before_first_trained(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[nn.Module, ...]:
    entries: dict[nn.Module, int] = {}
    exits: dict[nn.Module, int] = {}
    ticks = iter(range(1_000_000_000))

    def on_entry(module: nn.Module, *_: Any) -> None:
        entries.setdefault(module, next(ticks))

    def on_exit(module: nn.Module, *_: Any) -> None:
        exits[module] = next(ticks)

    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(on_entry))
        handles.append(module.register_forward_hook(on_exit))
    model.eval()
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()

    parents: dict[nn.Module, list[nn.Module]] = {}
    for parent in model.modules():
        for child in parent.children():
            parents.setdefault(child, []).append(parent)
    first = min((_entry(owner, entries, parents) for owner in _owners_of_trained(model)), default=len(entries) * 2)

    def still(module: nn.Module) -> bool:
        """Some modules are not called, or not outside training: those go with what holds them."""
        if module in exits:
            return exits[module] < first
        return all(map(still, parents.get(module, ())))

    return tuple(filter(still, model.modules()))


def _owners_of_trained(model: nn.Module) -> list[nn.Module]:
    """The modules that hold what is trained; of PEFT's layers, which keep the layer they adapt, the whole."""
    owners = [m for m in model.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
    adapted = [m for m in model.modules() if "base_layer" in dict(m.named_children())]
    return owners + [m for m in adapted if any(p.requires_grad for p in m.parameters())]


def _entry(
    module: nn.Module, entries: Mapping[nn.Module, int], parents: Mapping[nn.Module, Sequence[nn.Module]]
) -> int:
    """When ``module`` starts; for one that is never called itself (a ParameterDict), when its nearest caller does: the
    first of several, where layers share their numbers."""
    if module in entries:
        return entries[module]
    holders = parents.get(module, ())
    nearest = [one for one in holders if not any(part in holders for part in one.modules() if part is not one)]
    return min((_entry(holder, entries, parents) for holder in nearest), default=0)
