"""Dropout whose masks are a function of (run seed, step, site, row), not of a generator's history.

The same run draws the same masks alone, beside other runs in one batch, and after a resume. One draw covers all rows
of a group: each row carries its own run's key. A mask element is a 32-bit integer hash of (row key xor column key)
compared with a threshold: a handful of elementwise integer operations, which on a CPU is several times cheaper
than torch's own generator (see docs/architecture.md for the measurement).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MASK64 = (1 << 64) - 1


def _key(*parts: int) -> int:
    """A signed 32-bit key from integers (splitmix64's finaliser over each part in turn)."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state + part * 0xBF58476D1CE4E5B9 + 0x9E3779B97F4A7C15) & _MASK64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
        state ^= state >> 31
    low = state & 0xFFFFFFFF
    return low - (1 << 32) if low >= 1 << 31 else low


def site_of(name: str) -> int:
    """A site's number from its module name, the same with and without PEFT's wrapping around the model."""
    bare = name.removeprefix("base_model.model.")
    return int.from_bytes(hashlib.sha256(bare.encode()).digest()[:8], "big")


def _mix(h: Tensor) -> Tensor:
    """A 32-bit integer finaliser, in place; multiplication wraps around."""
    h.bitwise_xor_(h >> 16).mul_(0x2C1B3C6D)
    h.bitwise_xor_(h >> 15).mul_(0x297A2D39)
    return h.bitwise_xor_(h >> 16)


class DropoutClock:
    """What the masks of a forward pass depend on. The loop sets it before every forward pass.

    A group's batch holds the rows of its runs one run after the other.
    """

    def __init__(self) -> None:
        self.step = 0
        self._runs: list[tuple[int, int, int]] = []  # (seed, rows, first row) of each run's slice
        self._ordinal = 0
        self._scope = 0

    def set(self, step: int, runs: Sequence[tuple[int, int, int]]) -> None:
        """``runs``: for every slice of the batch its run's seed, its number of rows, and the index that its first
        row has in the run's whole batch (above 0 for a later micro-batch)."""
        self.step = step
        self._runs = list(runs)
        self.enter(0)

    def enter(self, scope: int) -> None:
        """A transformer block starts: functional dropouts inside it are numbered from 0 again."""
        self._scope, self._ordinal = scope, 0

    def next_site(self) -> int:
        """The site of a functional dropout, by block and order in the block."""
        self._ordinal += 1
        return _key(self._scope, self._ordinal)

    def keep(self, shape: torch.Size, p: float, site: int, device: torch.device) -> Tensor:
        """A boolean mask of ``shape``, True with probability ``1 - p``. The first dimension is the batch's rows."""
        columns = shape[-1] if len(shape) > 1 else 1
        batch = shape[0]
        inner = max(1, shape.numel() // max(1, batch * columns))
        if sum(rows for _, rows, _ in self._runs) == batch:
            slices = self._runs
        else:  # not laid out by rows of the batch (a shared position table, say): the first run's key
            slices = [(self._runs[0][0], batch, 0)]
        parts = []
        for seed, rows, first in slices:
            row = torch.arange(first * inner, (first + rows) * inner, dtype=torch.int32, device=device)
            parts.append(row.mul_(-0x61C88647).add_(_key(seed, self.step, site)))
        row_keys = _mix(torch.cat(parts) if len(parts) > 1 else parts[0])
        column_keys = torch.arange(columns, dtype=torch.int32, device=device).mul_(0x45D9F3B)
        column_keys = _mix(column_keys.add_(_key(self.step, site, 1)))
        h = row_keys[:, None] ^ column_keys
        h.mul_(0x2C1B3C6D)
        h.bitwise_xor_(h >> 15).mul_(0x297A2D39)
        return (h >= int(p * 2**32) - 2**31).view(shape)


class KeyedDropout(nn.Dropout):
    """``nn.Dropout`` with masks from a :class:`DropoutClock`."""

    def __init__(self, p: float, site: int, clock: DropoutClock) -> None:
        super().__init__(p)
        self.site = site
        self.clock = clock

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return input
        return apply_keyed(input, self.p, self.site, self.clock)


def apply_keyed(x: Tensor, p: float, site: int, clock: DropoutClock) -> Tensor:
    """Zero a fraction ``p`` of ``x`` and scale the rest by ``1 / (1 - p)``."""
    if p >= 1.0:
        return torch.zeros_like(x)
    return torch.where(clock.keep(x.shape, p, site, x.device), x * (1.0 / (1.0 - p)), 0.0)


def key_dropout(model: nn.Module, blocks: Sequence[str], clock: DropoutClock) -> int:
    """Replace every active ``nn.Dropout`` of ``model`` by a keyed one; returns how many.

    Models that call ``nn.functional.dropout`` themselves (OPT, BART) are covered by :func:`functional_dropout`, for
    which the blocks report their start.
    """
    replaced = 0
    for name, module in list(model.named_modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout) and not isinstance(child, KeyedDropout) and child.p > 0:
                site = site_of(f"{name}.{child_name}" if name else child_name)
                keyed = KeyedDropout(child.p, site, clock)
                keyed.train(child.training)
                setattr(module, child_name, keyed)
                replaced += 1
    wanted = set(blocks)
    for name, module in model.named_modules():
        if name.removeprefix("base_model.model.") in wanted:
            module.register_forward_pre_hook(_enter_hook(clock, site_of(name)))
    return replaced


def _enter_hook(clock: DropoutClock, scope: int) -> Any:
    def hook(module: nn.Module, args: Any) -> None:
        clock.enter(scope)

    return hook


@contextmanager
def functional_dropout(clock: DropoutClock) -> Iterator[None]:
    """While active, ``torch.nn.functional.dropout`` draws keyed masks too."""
    original = F.dropout

    def keyed(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0.0:
            return input
        return apply_keyed(input, p, clock.next_site(), clock)

    F.dropout = keyed
    try:
        yield
    finally:
        F.dropout = original
