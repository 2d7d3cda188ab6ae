"""Dropout whose masks are a function of (run seed, step, site, row), not of a generator's history.

The same run draws the same masks alone, beside other runs in one batch, and after a resume. One draw covers all rows
of a group: each row carries its own run's key. A mask element is a 32-bit integer hash of (row key xor column key)
compared with a threshold: a handful of elementwise integer operations, which on a CPU is several times cheaper
than torch's own generator (see docs/architecture.md for the measurement).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

_MASK64 = (1 << 64) - 1
_ROW_STRIDE, _COLUMN_STRIDE = -0x61C88647, 0x45D9F3B


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

    A group's batch holds the rows of its runs one run after the other, equally many of each.

    Attributes:
        shared: sites where dropout falls on numbers that all rows share, however many they are.
    """

    def __init__(self) -> None:
        self.step = 0
        self.shared: set[int] = set()
        self._runs: list[tuple[int, int, int]] = []  # (seed, rows, first row) of each run's slice
        self._ordinal = 0
        self._scope = 0
        #: From one row's number to the next one's: above 1 where of each row's tokens the first alone is left.
        self.spread = 1

    def set(self, step: int, runs: Sequence[tuple[int, int, int]]) -> None:
        """``runs``: for every slice of the batch its run's seed, its number of rows, and the index that its first
        row has in the run's whole batch (above 0 for a later micro-batch)."""
        self.step = step
        self._runs = list(runs)
        self.enter(0)

    def enter(self, scope: int) -> None:
        """A transformer block starts: functional dropouts inside it are numbered from 0 again."""
        self._scope, self._ordinal, self.spread = scope, 0, 1

    def next_site(self) -> int:
        """The site of a functional dropout, by block and order in the block."""
        self._ordinal += 1
        return _key(self._scope, self._ordinal)

    def only(self, places: Sequence[int]) -> DropoutClock:
        """The clock of some of the runs alone, by their ``places`` in the order of :meth:`set`."""
        part = DropoutClock()
        part.shared = self.shared
        part.set(self.step, [self._runs[place] for place in places])
        part.spread = self.spread
        return part

    def keys(self, site: int, places: Sequence[int], device: torch.device) -> Tensor:
        """``[places]`` int32: what each of these runs adds to its rows' numbers at ``site``."""
        keys = [_key(self._runs[place][0], self.step, site) for place in places]
        return torch.tensor(keys, dtype=torch.int32, device=device)

    def first_of(self, numbers: int) -> int:
        """Where a run's numbering starts that has ``numbers`` rows (or rows and tokens) in this pass."""
        _, rows, first = self._runs[0]
        return first * (numbers // rows)

    def column_key(self, site: int) -> int:
        """What is added to the columns' numbers at ``site``, the same for every run."""
        return _key(self.step, site, 1)

    def keep(self, shape: torch.Size, p: float | Sequence[float], site: int, device: torch.device) -> Tensor:
        """A boolean mask of ``shape``, True with probability ``1 - p`` (of each run's slice its own, if several).

        Raises:
            SharedRowsError: as :meth:`hashes`.
        """
        h = self.hashes(shape, site, device)
        if not isinstance(p, Sequence):
            return h >= threshold(p)
        limits = torch.tensor([threshold(rate) for rate in p], dtype=torch.int32, device=device)
        return (h.view(len(p), -1) >= limits[:, None]).view(shape)

    def hashes(self, shape: torch.Size, site: int, device: torch.device) -> Tensor:
        """``shape`` int32 numbers, uniform over the integers; an element is kept whose number reaches the threshold.

        The first dimension is the batch's rows, or its rows and tokens in one.

        Raises:
            SharedRowsError: several runs share what is to be dropped, so no mask is all of theirs.
        """
        columns = shape[-1] if len(shape) > 1 else 1
        batch = shape[0]
        inner = max(1, shape.numel() // max(1, batch * columns))
        rows = sum(count for _, count, _ in self._runs)
        runs = self._runs
        if batch % rows == 0 and site not in self.shared:
            times = inner * (batch // rows)
        elif len(runs) == 1:  # not laid out by rows of the batch (a shared position table, say)
            runs, times = [(runs[0][0], batch, 0)], inner
        else:
            raise SharedRowsError("dropout falls on numbers that all rows of the batch share")
        slices = [(first * times, (first + count) * times, _key(seed, self.step, site)) for seed, count, first in runs]
        if device.type == "cpu":
            return _hash_grid_on_cpu(slices, columns, self.column_key(site), self.spread).view(shape)
        parts = [row_numbers(start, end, device, self.spread).add_(key) for start, end, key in slices]
        row_keys = torch.cat(parts) if len(parts) > 1 else parts[0]
        return hash_grid(row_keys, columns, self.column_key(site)).view(shape)


class SharedRowsError(RuntimeError):
    """Numbers that belong to no single row of a group's batch were met where each run has its own."""


def row_numbers(first: int, end: int, device: torch.device, spread: int = 1) -> Tensor:
    """``[end - first]`` int32 numbers of rows, ``spread`` apart, and then spread over the integers."""
    numbers = torch.arange(first * spread, end * spread, spread, dtype=torch.int32, device=device)
    return numbers.mul_(_ROW_STRIDE)


def threshold(p: float) -> int:
    """The hash below which an element is dropped, as a signed 32-bit integer; even, for :func:`_factors`."""
    return (int(p * 2**32) - 2**31) & ~1


def hash_grid(row_keys: Tensor, columns: int, column_key: int) -> Tensor:
    """``[rows, columns]`` int32 hashes of ``[rows]`` row keys (changed in place) with every column's key."""
    row_keys = _mix(row_keys)
    column_keys = torch.arange(columns, dtype=torch.int32, device=row_keys.device).mul_(_COLUMN_STRIDE)
    return _crossed(row_keys, _mix(column_keys.add_(column_key)))


def _hash_grid_on_cpu(slices: Sequence[tuple[int, int, int]], columns: int, column_key: int, spread: int = 1) -> Tensor:
    """The same for rows of several (start, end, key): the keys, which are few, by numpy, whose calls cost less."""
    numbers = [
        np.arange(start * spread, end * spread, spread, dtype=np.int32) * np.int32(_ROW_STRIDE) + np.int32(key)
        for start, end, key in slices
    ]
    column_keys = np.arange(columns, dtype=np.int32) * np.int32(_COLUMN_STRIDE) + np.int32(column_key)
    rows = _mix_array(np.concatenate(numbers))
    return _crossed(torch.from_numpy(rows), torch.from_numpy(_mix_array(column_keys)))


def _mix_array(h: NDArray[np.int32]) -> NDArray[np.int32]:
    """As :func:`_mix`."""
    h = (h ^ (h >> 16)) * np.int32(0x2C1B3C6D)
    h = (h ^ (h >> 15)) * np.int32(0x297A2D39)
    return h ^ (h >> 16)


def _crossed(row_keys: Tensor, column_keys: Tensor) -> Tensor:
    h = row_keys[:, None] ^ column_keys
    h.mul_(0x2C1B3C6D)
    return h.bitwise_xor_(h >> 15).mul_(0x297A2D39)


class KeyedDropout(nn.Dropout):
    """``nn.Dropout`` with masks from a :class:`DropoutClock`."""

    def __init__(self, p: float, site: int, clock: DropoutClock) -> None:
        super().__init__(p)
        self.site = site
        self.clock = clock
        self.leading: int | None = None  # the first dimension of what it last saw

    def forward(self, input: Tensor) -> Tensor:
        self.leading = input.shape[0]
        if not self.training or self.p == 0.0:
            return input
        return apply_keyed(input, self.p, self.site, self.clock)


def apply_keyed(x: Tensor, p: float | Sequence[float], site: int, clock: DropoutClock) -> Tensor:
    """Zero a fraction ``p`` of ``x`` and scale the rest by ``1 / (1 - p)``; with several rates, of each run's rows."""
    if isinstance(p, Sequence):
        if len(set(p)) > 1:
            return _apply_rates(x, p, site, clock)
        p = p[0]
    if p == 0.0:
        return x
    if p >= 1.0:
        return torch.zeros_like(x)
    scale = 1.0 / (1.0 - p)
    if x.device.type != "cpu":
        return torch.where(clock.keep(x.shape, p, site, x.device), x * scale, 0.0)
    factors = _factors(clock.hashes(x.shape, site, x.device), p, scale if x.dtype == torch.float32 else 1.0)
    return x * factors if x.dtype == torch.float32 else x * scale * factors.to(x.dtype)


def _factors(hashes: Tensor, p: float, scale: float) -> Tensor:
    """float32 numbers: ``scale`` where an element is kept, 0 where it is dropped. ``hashes`` are used up.

    The comparison is made in integers that vectorise, since on a CPU torch's selections by a boolean take ten times
    as long as a product: kept is where ``threshold / 2 - 1 - hash / 2`` is negative, whose sign bit, drawn out over
    all 32, lets the bits of ``scale`` through. Halves, so that the difference does not overflow.
    """
    bits = int(np.float32(scale).view(np.int32))
    hashes.bitwise_right_shift_(1).neg_().add_((threshold(p) >> 1) - 1)
    return hashes.bitwise_right_shift_(31).bitwise_and_(bits).view(torch.float32)


def _apply_rates(x: Tensor, rates: Sequence[float], site: int, clock: DropoutClock) -> Tensor:
    scales = torch.tensor([1.0 / (1.0 - p) if p < 1.0 else 0.0 for p in rates], dtype=x.dtype, device=x.device)
    keep = clock.keep(x.shape, rates, site, x.device).view(len(rates), -1)
    scaled = x.reshape(len(rates), -1) * scales[:, None]
    return torch.where(keep, scaled, 0.0).view(x.shape)


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
            module.register_forward_pre_hook(EnterBlock(clock, site_of(name)))
    return replaced


def find_shared(model: nn.Module, clock: DropoutClock, rows: int, twice: Callable[[], object]) -> None:
    """Tell ``clock`` at which sites dropout falls on numbers that all rows share, as on DeBERTa's table of positions.

    Args:
        model: it has just passed ``rows`` rows.
        twice: passes twice as many of the same length; it is called where what passed leaves room for doubt.
    """
    sites = [module for module in model.modules() if isinstance(module, KeyedDropout)]
    before = {module: module.leading for module in sites if module.leading not in (None, rows)}
    if before:
        twice()
        clock.shared |= {module.site for module, leading in before.items() if module.leading == leading}


class EnterBlock:
    """A forward pre-hook: tells the clock that a transformer block starts."""

    def __init__(self, clock: DropoutClock, scope: int) -> None:
        self._clock, self._scope = clock, scope

    def __call__(self, module: nn.Module, args: Any) -> None:
        self._clock.enter(self._scope)


Rates = Callable[[float, bool], float | Sequence[float]]


def _own_rate(p: float, training: bool) -> float:
    return p if training else 0.0


@contextmanager
def functional_dropout(clock: DropoutClock, rates: Rates = _own_rate) -> Iterator[None]:
    """While active, ``torch.nn.functional.dropout`` draws keyed masks too.

    Args:
        rates: from the rate and the training flag of a call to the rate that holds, or to one for each run.
    """
    original = F.dropout

    def keyed(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        rate = rates(p, training)
        if not (any(rate) if isinstance(rate, Sequence) else rate):
            return input
        return apply_keyed(input, rate, clock.next_site(), clock)

    F.dropout = keyed
    try:
        yield
    finally:
        F.dropout = original


def keeps_rate_as_number(module: nn.Module) -> bool:
    """True if ``module`` has a dropout rate that is a plain number, as OPT's and BART's layers do."""
    names = ("dropout", "activation_dropout", "hidden_dropout", "resid_dropout")
    return any(isinstance(rate, float) and rate > 0 for rate in (getattr(module, n, None) for n in names))


def calls_functional_dropout(model: nn.Module) -> bool:
    """True if a module of ``model`` draws its dropout by ``torch.nn.functional.dropout``."""
    return any(map(keeps_rate_as_number, model.modules()))
