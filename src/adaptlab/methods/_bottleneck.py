"""The modules of the bottleneck adapters, and how they are hung into a block.

A :class:`Bottleneck` is a plain module from what it reads to what is added. An :class:`Adapter` places it: it is a
child of the block and hangs on hooks of the block's own layers, so that nothing of the base is wrapped or renamed. The
hooks are bound methods of the adapter: ``copy.deepcopy`` and ``pickle`` give a copied model adapters of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptlab.errors import ConfigError
from adaptlab.methods._adapters import NonLinearity, Site


class Bottleneck(nn.Module):
    """``scaling * (W_up f(W_down x + b_down) + b_up)``: from ``(..., features)`` to what is added, of the same shape.

    Args:
        std: of the normal distribution, cut at two standard deviations, that both matrices start from; ``None`` starts
            the up-projection at zero and the down-projection as torch starts a linear.
    """

    def __init__(self, features: int, width: int, non_linearity: NonLinearity, scaling: float, std: float | None):
        super().__init__()
        self.down = nn.Linear(features, width, dtype=torch.float32)
        self.up = nn.Linear(width, features, dtype=torch.float32)
        self.non_linearity = non_linearity
        self.scaling = scaling
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)
        if std is None:
            nn.init.zeros_(self.up.weight)
        else:
            for linear in (self.down, self.up):
                nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.up(getattr(F, self.non_linearity)(self.down(x)))
        return self.scaling * added

    def extra_repr(self) -> str:
        return f"non_linearity={self.non_linearity}, scaling={self.scaling:g}"


class Adapter(nn.Module):
    """A bottleneck in its place. While ``enabled`` is false the block computes exactly what it computes without it."""

    def __init__(self, bottleneck: nn.Module) -> None:
        super().__init__()
        self.bottleneck = bottleneck
        self.enabled = True

    def added(self, output: Tensor, read: Tensor) -> Tensor:
        """``output`` plus what the bottleneck makes of ``read``, in the dtype of ``output``."""
        delta: Tensor = self.bottleneck(read)
        return output + delta.to(output.dtype)


class _Held(threading.local):
    """A tensor on its way from one hook to the next: each thread has its own, and a copy starts without one."""

    tensor: Tensor | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Held, ()


class ParallelAdapter(Adapter):
    """Reads what ``reader`` reads and adds to what ``writer`` gives."""

    def __init__(self, bottleneck: nn.Module, reader: nn.Module, writer: nn.Module) -> None:
        super().__init__(bottleneck)
        self._held = _Held()
        reader.register_forward_pre_hook(self._read)
        writer.register_forward_hook(self._write)

    def _read(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self.enabled:
            self._held.tensor = args[0]

    def _write(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        if not self.enabled:
            return None
        read, self._held.tensor = self._held.tensor, None
        assert read is not None
        return self.added(output, read)


class SeriesAdapter(Adapter):
    """Reads what ``writer`` gives and adds to it."""

    def __init__(self, bottleneck: nn.Module, writer: nn.Module) -> None:
        super().__init__(bottleneck)
        writer.register_forward_hook(self._write)

    def _write(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        return self.added(output, output) if self.enabled else None


class ResidualAdapter(Adapter):
    """Reads what leaves the block and adds to its residual stream ``z``.

    Where a norm comes after the feed-forward (BERT) that is ``norm(z + A(norm(z)))``, otherwise (T5, OPT) ``z + A(z)``.
    Which of the two, and which norm, only the order of execution tells: the first forward pass settles it.
    """

    _END = -1

    def __init__(self, bottleneck: nn.Module, block: nn.Module, writer: nn.Module, norms: Sequence[nn.Module]) -> None:
        super().__init__(bottleneck)
        self._place: int | None = None  # index of the norm, or _END
        self._passed = False  # the feed-forward, in a block that has not settled it yet
        block.register_forward_pre_hook(self._at_start)
        writer.register_forward_hook(self._behind_feed_forward)
        for index, norm in enumerate(norms):
            norm.register_forward_hook(partial(self._behind_norm, index))
        block.register_forward_hook(self._at_end)

    def _at_start(self, module: nn.Module, args: Any) -> None:
        self._passed = False

    def _behind_feed_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        self._passed = True

    def _behind_norm(self, index: int, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if self._place is None and self._passed:
            self._place = index
        if self._place != index or not self.enabled:
            return None
        normed: Tensor = module.forward(self.added(args[0], output))  # not called: its hooks have run
        return normed

    def _at_end(self, module: nn.Module, args: Any, output: Any) -> Any:
        if self._place is None:
            self._place = self._END
        if self._place != self._END or not self.enabled:
            return None
        if isinstance(output, tuple):
            return (self.added(output[0], output[0]), *output[1:])
        return self.added(output, output)


def place(model: nn.Module, site: Site, bottleneck: Bottleneck) -> Adapter:
    """Hang ``bottleneck`` into ``model`` at ``site``.

    Raises:
        ConfigError: there is an adapter of this method already.
    """
    block, writer = model.get_submodule(site.block), model.get_submodule(site.writer)
    if hasattr(block, site.child):
        raise ConfigError(f"This model has a {site.name} already: attach to a model without one.")
    bottleneck.to(next(writer.parameters()).device)
    adapter: Adapter
    if site.wiring == "parallel":
        adapter = ParallelAdapter(bottleneck, model.get_submodule(site.reader), writer)
    elif site.wiring == "series":
        adapter = SeriesAdapter(bottleneck, writer)
    else:
        adapter = ResidualAdapter(bottleneck, block, writer, [model.get_submodule(name) for name in site.norms])
    block.add_module(site.child, adapter)
    return adapter


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """While active, ``model`` computes what its base does, to the bit."""
    adapters = [module for module in model.modules() if isinstance(module, Adapter)]
    before = [adapter.enabled for adapter in adapters]
    try:
        for adapter in adapters:
            adapter.enabled = False
        yield
    finally:
        for adapter, enabled in zip(adapters, before, strict=True):
            adapter.enabled = enabled
