"""The layers of a fused model: where runs differ, each gets its own slice of the batch.

A group's batch holds the rows of its runs one run after the other, equally many of each: its *lanes*. Where runs have
layers of their own, a :class:`Site` stands in the shared model and hands every lane to what serves it: the shared layer
plus a batched product for plain LoRA, one stacked pass for layers of the same shape that ``torch.func.vmap`` can trace,
and each run's own layer on its slice for all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptlab.methods._base import ForAllRows
from adaptlab.training.dropout import DropoutClock, EnterBlock, KeyedDropout, SharedRowsError, apply_keyed
from adaptlab.training.first_tokens import FirstTokens


class Lanes:
    """Which runs the present batch carries, by their place in the group; the engine sets it before every pass."""

    def __init__(self) -> None:
        self.active: tuple[int, ...] = ()
        self.rows = 0  # of all lanes together

    def set(self, active: Sequence[int], rows_per_lane: int) -> None:
        self.active, self.rows = tuple(active), len(active) * rows_per_lane

    def places(self, lanes: Sequence[int]) -> list[int]:
        """Where ``lanes`` stand among those that the batch carries."""
        return [self.active.index(lane) for lane in lanes]

    def per_lane(self, x: Tensor) -> int:
        """How many of ``x``'s first entries belong to each lane.

        Raises:
            SharedRowsError: they are not laid out by rows of the batch.
        """
        if x.ndim == 0 or x.shape[0] == 0 or x.shape[0] % self.rows:
            raise SharedRowsError(
                f"a layer that differs between runs is given numbers of shape {tuple(x.shape)}, which are not laid out "
                f"by the batch's {self.rows} rows"
            )
        return x.shape[0] // len(self.active)


class Server(Protocol):
    """What computes a layer for some lanes.

    Attributes:
        on_shared: True if it adds to what the shared layer gives; else it replaces that.
    """

    on_shared: bool

    def __call__(self, x: Tensor, lanes: Sequence[int], shared: Tensor | None) -> Tensor:
        """The layer's output for ``x``, the equal slices of ``lanes`` one after the other."""


class Plain:
    """Lanes whose layer is the shared one."""

    on_shared = True

    def __call__(self, x: Tensor, lanes: Sequence[int], shared: Tensor | None) -> Tensor:
        assert shared is not None
        return shared


class OneByOne:
    """Each lane's own layer on its own slice: right for every layer, whatever it does."""

    on_shared = False

    def __init__(self, twins: Mapping[int, nn.Module]) -> None:
        self._twins = twins

    def __call__(self, x: Tensor, lanes: Sequence[int], shared: Tensor | None) -> Tensor:
        return torch.cat([self._twins[lane](part) for lane, part in zip(lanes, x.chunk(len(lanes)), strict=True)])


class Hooked:
    """Lanes whose layer is the shared one with hooks of the run's own around it (bottleneck adapters)."""

    on_shared = True

    def __init__(self, twins: Mapping[int, nn.Module]) -> None:
        self._twins = twins

    def __call__(self, x: Tensor, lanes: Sequence[int], shared: Tensor | None) -> Tensor:
        assert shared is not None
        xs, outputs = x.chunk(len(lanes)), shared.chunk(len(lanes))
        for lane, part in zip(lanes, xs, strict=True):
            if before_hooks(self._twins[lane], (part,)) is not None:
                raise SharedRowsError("a run's hook changes what a shared layer reads")
        return torch.cat([after_hooks(self._twins[n], (a,), out) for n, a, out in zip(lanes, xs, outputs, strict=True)])


def before_hooks(module: nn.Module, args: tuple[Any, ...]) -> Any:
    """Run a module's forward pre-hooks; the arguments as they changed them, or ``None``."""
    changed = None
    for hook in own_hooks(module._forward_pre_hooks):
        result = hook(module, args)
        if result is not None:
            changed = args = result if isinstance(result, tuple) else (result,)
    return changed


def after_hooks(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """A module's output after its forward hooks."""
    for hook in own_hooks(module._forward_hooks):
        result = hook(module, args, output)
        output = output if result is None else result
    return output


def own_hooks(hooks: Mapping[int, Callable[..., Any]]) -> list[Callable[..., Any]]:
    """Hooks that see a run's rows alone: not those that tell a dropout clock where the pass is or leave tokens out, nor
    those of a method that hangs on the whole model. The shared model has its own of all."""
    for_all = (EnterBlock, FirstTokens, ForAllRows)
    return [h for h in hooks.values() if not isinstance(getattr(h, "__self__", h), for_all)]


class LoraProducts:
    """Plain LoRA of any ranks: one batched product for all lanes, narrower ranks padded with zeros."""

    on_shared = True

    def __init__(self, twins: Mapping[int, Any], dropout: LaneDropout | None) -> None:
        self._twins = {lane: _LoraParts(twin) for lane, twin in twins.items()}
        self._dropout = dropout
        self._rank = max(parts.down.shape[0] for parts in self._twins.values())

    def __call__(self, x: Tensor, lanes: Sequence[int], shared: Tensor | None) -> Tensor:
        assert shared is not None
        parts = [self._twins[lane] for lane in lanes]
        if self._dropout is not None:
            x = self._dropout.on(x, lanes)
        down = torch.stack([self._padded(p.down, (0, 0, 0, self._rank - len(p.down))) for p in parts])
        up = torch.stack([self._padded(p.up, (0, self._rank - p.up.shape[1])) for p in parts])
        added = x.view(len(lanes), -1, x.shape[-1]) @ down.mT @ up.mT
        scales = [p.scale for p in parts]
        if len(set(scales)) == 1:
            added = added * scales[0]
        else:
            added = added * torch.tensor(scales, dtype=added.dtype, device=added.device)[:, None, None]
        return (shared + added.view(shared.shape)).to(shared.dtype)

    @staticmethod
    def _padded(matrix: Tensor, pad: tuple[int, ...]) -> Tensor:
        return F.pad(matrix, pad) if any(pad) else matrix


class _LoraParts:
    """The two matrices and the scale of a PEFT LoRA layer."""

    def __init__(self, twin: Any) -> None:
        (name,) = twin.active_adapters
        self.down: Tensor = twin.lora_A[name].weight
        self.up: Tensor = twin.lora_B[name].weight
        self.scale = float(twin.scaling[name])


def is_plain_lora(twin: Any) -> bool:
    """True if a layer is ``W x + s B A x`` and nothing else: no variant, no bias, one adapter, not merged."""
    from peft.tuners.lora.layer import Linear

    if type(twin) is not Linear or twin.merged or twin.disable_adapters or len(twin.active_adapters) != 1:
        return False
    (name,) = twin.active_adapters
    if name not in twin.lora_A or name in twin.lora_variant:
        return False
    return twin.lora_A[name].bias is None and twin.lora_B[name].bias is None


class LaneDropout(nn.Module):
    """A dropout of the shared model: each lane's rate and training flag are those of the run's own module."""

    def __init__(self, twins: Mapping[int, nn.Module], site: int, lanes: Lanes, clock: DropoutClock) -> None:
        super().__init__()
        self._twins, self._site, self._lanes, self._clock = dict(twins), site, lanes, clock

    def forward(self, x: Tensor) -> Tensor:
        rates = self._rates(self._lanes.active)
        return apply_keyed(x, rates, self._site, self._clock) if any(rates) else x

    def on(self, x: Tensor, lanes: Sequence[int]) -> Tensor:
        """Dropout on the slices of some lanes alone."""
        rates = self._rates(lanes)
        return apply_keyed(x, rates, self._site, self._clock.only(self._lanes.places(lanes))) if any(rates) else x

    def _rates(self, lanes: Sequence[int]) -> list[float]:
        found = (self._twins[lane] for lane in lanes)
        return [float(t.p) if t.training and isinstance(t, KeyedDropout) else 0.0 for t in found]


class Site(nn.Module):
    """A place where runs have different layers, in the shared model.

    Args:
        shared: the base's layer.
        servers: what computes each lane; lanes side by side with one server go through it together.
    """

    def __init__(self, shared: nn.Module, servers: Mapping[int, Server], lanes: Lanes) -> None:
        super().__init__()
        self.shared = shared
        self._servers, self._lanes = dict(servers), lanes

    def __getattr__(self, name: str) -> Any:
        """Models ask layers for their weight's dtype, their width ...: the base's layer answers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("shared"), name)

    def forward(self, x: Tensor) -> Tensor:
        active, servers = self._lanes.active, self._servers
        size = self._lanes.per_lane(x)
        outputs: list[Tensor] = []
        first = 0
        for on_shared, block in groupby(active, key=lambda lane: servers[lane].on_shared):
            block_lanes = list(block)
            part = x[first * size : (first + len(block_lanes)) * size]
            base = self.shared(part) if on_shared else None
            inner = 0
            for _, run in groupby(block_lanes, key=lambda lane: id(servers[lane])):
                lanes = list(run)
                slice_ = slice(inner * size, (inner + len(lanes)) * size)
                outputs.append(servers[lanes[0]](part[slice_], lanes, None if base is None else base[slice_]))
                inner += len(lanes)
            first += len(block_lanes)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
