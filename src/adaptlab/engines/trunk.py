"""The models of a group's runs as one: what they share is computed once, where they differ each has its lane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adaptlab.engines.layers import (
    Hooked,
    LaneDropout,
    Lanes,
    LoraProducts,
    OneByOne,
    Plain,
    Server,
    Site,
    after_hooks,
    before_hooks,
    is_plain_lora,
    own_hooks,
)
from adaptlab.engines.stacks import Stacked, signature
from adaptlab.training.dropout import DropoutClock, KeyedDropout, SharedRowsError, keeps_rate_as_number


class Trunk:
    """One model for all runs of a group.

    Args:
        model: a copy of the base for this alone, prepared like the runs' models, dropout keyed by ``clock``.
        runs: each run's model, without PEFT's wrapper, in the order of the lanes; they share ``model``'s tensors.
    """

    def __init__(self, model: nn.Module, runs: Sequence[nn.Module], lanes: Lanes, clock: DropoutClock) -> None:
        self.model, self._runs, self._lanes, self._clock = model, list(runs), lanes, clock
        self._callers: list[nn.Module] = []
        self._twins: dict[nn.Module, list[nn.Module]] = {}
        self._weave(model, self._runs)

    def train(self) -> None:
        """Each module of the trunk trains if any run's own module does; lanes keep their own flags at dropouts."""
        for module, twins in self._twins.items():
            module.training = any(twins[lane].training for lane in self._lanes.active)

    def eval(self) -> None:
        self.model.eval()

    def functional_rates(self, p: float, training: bool) -> list[float]:
        """What a functional dropout of rate ``p`` is for each active lane, in the module that calls it."""
        if not self._callers:
            return [p if training else 0.0 for _ in self._lanes.active]
        twins = self._twins[self._callers[-1]]
        return [p if training and twins[lane].training else 0.0 for lane in self._lanes.active]

    def _weave(self, module: nn.Module, twins: list[nn.Module]) -> None:
        """Replace children of ``module`` where runs differ, and go down where they do not."""
        if module in self._twins:  # one module under two names, as T5's embeddings
            return
        self._twins[module] = twins
        if keeps_rate_as_number(module):
            module.register_forward_pre_hook(lambda m, args: self._callers.append(m))
            module.register_forward_hook(lambda m, args, output: _drop_last(self._callers), always_call=True)
        for name, child in list(module.named_children()):
            below = [twin.get_submodule(name) for twin in twins]
            if isinstance(child, KeyedDropout) and all(_alike(child, twin) for twin in below):
                setattr(module, name, LaneDropout(dict(enumerate(below)), child.site, self._lanes, self._clock))
            elif all(_alike(child, twin) for twin in below):
                if next(child.children(), None) is None and any(map(_hooked, below)):
                    setattr(module, name, self._site(child, below))
                else:
                    self._forward_hooks(child, below)
                    self._weave(child, below)
            else:
                setattr(module, name, self._site(child, below))

    def _forward_hooks(self, module: nn.Module, twins: list[nn.Module]) -> None:
        """Have hooks that runs hung on a module with children called on their lanes."""
        if not any(map(_hooked, twins)):
            return
        for twin in twins:
            if twin._forward_hooks_with_kwargs or twin._forward_pre_hooks_with_kwargs:
                raise SharedRowsError("a run's hook wants keyword arguments, which are not cut into lanes")

        def before(_: nn.Module, args: tuple[Any, ...]) -> None:
            for lane in self._lanes.active:
                if _hooked(twins[lane]) and before_hooks(twins[lane], self._cut(args, lane)) is not None:
                    raise SharedRowsError("a run's hook changes what a shared layer reads")

        def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            parts = []
            for lane in self._lanes.active:
                part = self._cut(output, lane)
                parts.append(after_hooks(twins[lane], self._cut(args, lane), part) if _hooked(twins[lane]) else part)
            return _joined(output, parts)

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)

    def _cut(self, value: Any, lane: int) -> Any:
        """A lane's part of a module's arguments or output; what is not laid out by rows goes to all."""
        if isinstance(value, tuple):
            return tuple(self._cut(item, lane) for item in value)
        if isinstance(value, Tensor) and value.ndim and value.shape[0] and value.shape[0] % self._lanes.rows == 0:
            size = self._lanes.per_lane(value)
            (place,) = self._lanes.places([lane])
            return value[place * size : (place + 1) * size]
        return value

    def _site(self, shared: nn.Module, twins: list[nn.Module]) -> Site:
        """The layer that serves each lane as its own layer asks for."""
        servers: dict[int, Server] = {}
        kinds: dict[Any, dict[int, nn.Module]] = {}
        twin: Any
        for lane, twin in enumerate(twins):
            if _same_tree(shared, twin):
                kinds.setdefault("plain", {})[lane] = twin
            elif next(shared.children(), None) is None and _alike(shared, twin):
                kinds.setdefault("hooked", {})[lane] = twin
            elif is_plain_lora(twin) and _same_tree(shared, twin.base_layer):
                kinds.setdefault("lora", {})[lane] = twin
            else:
                kinds.setdefault(signature(twin), {})[lane] = twin
        for kind, members in kinds.items():
            server: Server
            if kind == "plain":
                server = Plain()
            elif kind == "hooked":
                server = Hooked(members)
            elif kind == "lora":
                server = LoraProducts(members, self._lora_dropout(members))
            elif any(_hooked(part) for twin in members.values() for part in twin.modules()):
                server = OneByOne(members)
            else:
                server = Stacked(members, self._lanes, self._clock)
            servers |= dict.fromkeys(members, server)
        return Site(shared, servers, self._lanes)

    def _lora_dropout(self, members: Mapping[int, Any]) -> LaneDropout | None:
        dropouts = {lane: twin.lora_dropout[twin.active_adapters[0]] for lane, twin in members.items()}
        keyed = [d for d in dropouts.values() if isinstance(d, KeyedDropout)]
        return LaneDropout(dropouts, keyed[0].site, self._lanes, self._clock) if keyed else None


def _drop_last(stack: list[nn.Module]) -> None:
    stack.pop()


def _hooked(module: nn.Module) -> bool:
    return bool(own_hooks(module._forward_pre_hooks) or own_hooks(module._forward_hooks))


def _alike(shared: nn.Module, twin: nn.Module) -> bool:
    """True if ``twin`` by itself, children aside, computes what the base's module does, hooks aside."""
    if type(twin) is not type(shared) or "forward" in twin.__dict__ or "forward" in shared.__dict__:
        return False
    if not {name for name, _ in shared.named_children()} <= {name for name, _ in twin.named_children()}:
        return False
    return _same_tensors(shared._parameters, twin._parameters) and _same_tensors(shared._buffers, twin._buffers)


def _same_tensors(shared: Mapping[str, Tensor | None], twin: Mapping[str, Tensor | None]) -> bool:
    if shared.keys() != twin.keys():
        return False
    for name, tensor in shared.items():
        other = twin[name]
        if tensor is None or other is None:
            if tensor is not other:
                return False
        elif other.requires_grad or not (tensor.data_ptr() == other.data_ptr() or _is_equal_buffer(tensor, other)):
            return False
    return True


def _is_equal_buffer(a: Tensor, b: Tensor) -> bool:
    return not isinstance(a, nn.Parameter) and a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a, b))


def _same_tree(shared: nn.Module, twin: nn.Module) -> bool:
    """True if ``twin`` with everything below it is the base's module, without hooks of the run's own."""
    if not _alike(shared, twin) or _hooked(twin):
        return False
    return all(_same_tree(child, twin.get_submodule(name)) for name, child in shared.named_children())


def _joined(whole: Any, parts: list[Any]) -> Any:
    """The lanes' outputs as one: tensors that were changed are joined, all others stay as they were."""
    if isinstance(whole, tuple):
        return tuple(_joined(item, [part[i] for part in parts]) for i, item in enumerate(whole))
    return torch.cat(parts) if isinstance(whole, Tensor) and parts[0] is not whole else whole
