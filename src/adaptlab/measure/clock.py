"""Seconds of repeated work with their spread, and the energy that a GPU says it took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one repetition: median, sample standard deviation (None for one alone), how many.

    ``joules`` is the GPU's energy for one repetition; ``None`` where none is reported.
    """

    median: float
    std: float | None
    n: int
    joules: float | None = None


def timed(work: Callable[[], object], device: str, *, least: int, most: int, seconds: float) -> Timing:
    """Repeat ``work`` until ``seconds`` are spent, at least ``least`` and at most ``most`` times."""
    clocks: list[float] = []
    energy = EnergyMeter(device)
    while len(clocks) < least or (len(clocks) < most and sum(clocks) < seconds):
        synchronise(device)
        started = time.perf_counter()
        work()
        synchronise(device)
        clocks.append(time.perf_counter() - started)
    joules = energy.joules()
    return Timing(
        statistics.median(clocks),
        statistics.stdev(clocks) if len(clocks) > 1 else None,
        len(clocks),
        None if joules is None else joules / len(clocks),
    )


def synchronise(device: str) -> None:
    """Wait for what a GPU has been given to do."""
    if device == "cuda":
        torch.cuda.synchronize()


class EnergyMeter:
    """Energy since it was made, by the GPU's own counter (NVML), which counts everything that the GPU does."""

    def __init__(self, device: str) -> None:
        self._handle = _nvml_handle() if device == "cuda" else None
        self._started = self._counter()

    def joules(self) -> float | None:
        """Joules so far, or ``None`` where there is no counter (a CPU, no nvidia-ml-py, a GPU before Volta)."""
        now = self._counter()
        return None if now is None or self._started is None else (now - self._started) / 1000

    def _counter(self) -> int | None:
        if self._handle is None:
            return None
        import pynvml

        try:
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except pynvml.NVMLError:
            return None


def _nvml_handle() -> object | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
        handle: object = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
    except pynvml.NVMLError:
        return None
    return handle
