"""How fast this machine is, from about ten seconds of calibration: what a plan's seconds are made of.

A step is a list of operations. Each takes the time that its products need at the machine's rate or that its bytes need
to move, whichever is longer, and a little for being called (the roofline model; Williams et al. 2009).
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from adaptlab.measure.clock import synchronise

_VERSION = 1
#: How long the calibration takes.
SECONDS = 10.0
_WIDTHS = (128, 384, 768, 1536)
_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Machine:
    """A calibrated machine.

    Attributes:
        products: operations a second of matrix products, by dtype and width.
        bytes_per_second: moved by the elementwise work of a transformer, read and written.
        call_seconds: of one operation on next to nothing.
    """

    products: dict[str, dict[int, float]]
    bytes_per_second: float
    call_seconds: float

    def seconds(self, flops: float, moved: int, width: float, dtype: str) -> float:
        """Of one operation. ``width`` is the geometric mean of a product's three sizes."""
        rate = self._rate(width, dtype)
        return self.call_seconds + max(flops / rate, moved / self.bytes_per_second)

    def _rate(self, width: float, dtype: str) -> float:
        known = self.products.get(dtype) or self.products["float32"]
        widths = sorted(known)
        if width <= widths[0]:
            return known[widths[0]]
        for low, high in itertools.pairwise(widths):
            if width <= high:
                share = math.log(width / low) / math.log(high / low)
                return float(known[low] * (known[high] / known[low]) ** share)
        return known[widths[-1]]


def calibrated(device: str, fingerprint: str, folder: Path) -> Machine:
    """The machine as it was measured before (kept in ``folder`` by the environment's fingerprint), or measured now."""
    path = folder / "machines" / f"{fingerprint}-{_VERSION}.json"
    if path.is_file():
        document = json.loads(path.read_text(encoding="utf-8"))
        rates = {dtype: {int(k): v for k, v in rates.items()} for dtype, rates in document.pop("products").items()}
        return Machine(products=rates, **document)
    machine = calibrate(device)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(machine)), encoding="utf-8")
    return machine


def calibrate(device: str) -> Machine:
    """Measure this machine, in about :data:`SECONDS`."""
    dtypes = (torch.float32, torch.bfloat16)
    share = SECONDS / (len(dtypes) * len(_WIDTHS) + 2)
    products: dict[str, dict[int, float]] = {}
    for dtype in dtypes:
        rates = {}
        for width in _WIDTHS:
            left = torch.ones(_ROWS, width, device=device, dtype=dtype)
            right = torch.ones(width, width, device=device, dtype=dtype)
            size = round((_ROWS * width * width) ** (1 / 3))
            rates[size] = 2.0 * _ROWS * width * width / _each(partial(torch.matmul, left, right), device, share)
        products[str(dtype).removeprefix("torch.")] = rates
    return Machine(products, _elementwise(device, share), _each(_nothing(device), device, share))


def _elementwise(device: str, seconds: float) -> float:
    """Bytes a second of what stands between the products of a transformer's block, forward."""
    x = torch.ones(_ROWS, 768, device=device)
    wide = torch.ones(_ROWS, 3072, device=device)
    work = (
        (lambda: x + x, 3 * x.nbytes),
        (lambda: torch.nn.functional.layer_norm(x, (768,)), 2 * x.nbytes),
        (lambda: torch.nn.functional.gelu(wide), 2 * wide.nbytes),
        (lambda: torch.softmax(wide, -1), 2 * wide.nbytes),
        (lambda: wide * wide, 3 * wide.nbytes),
    )
    each = [_each(run, device, seconds / len(work)) for run, _ in work]
    return sum(moved for _, moved in work) / sum(each)


def _nothing(device: str) -> Callable[[], Any]:
    one = torch.ones(1, device=device)
    return lambda: one + one


def _each(work: Callable[[], Any], device: str, seconds: float) -> float:
    """Seconds of one call: the fastest tenth of the calls that fit into ``seconds``, after one that warms up."""
    work()
    synchronise(device)
    clocks: list[float] = []
    batch, end = 1, time.perf_counter() + seconds
    while time.perf_counter() < end or len(clocks) < 3:
        started = time.perf_counter()
        for _ in range(batch):
            work()
        synchronise(device)
        spent = time.perf_counter() - started
        clocks.append(spent / batch)
        if spent < 1e-3:
            batch *= 2
    return sorted(clocks)[len(clocks) // 10]
