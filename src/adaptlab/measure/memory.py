"""The most memory that a stretch of work held, and what was there before it.

On CUDA the allocator keeps the books: bytes allocated (what the work needed) and reserved (what it took from the
device). On a CPU it is the resident memory of the process above what it was when the meter was made: made in a fresh
process after its libraries are loaded, it shows what the work itself holds.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_SAMPLE_SECONDS = 0.001
#: Where Linux tells the memory that a container or job may take.
_CONTROL_GROUP = Path("/sys/fs/cgroup")


def available_bytes(device: str) -> int:
    """Memory that a new process could take: of the GPU, or of this machine within its control group's limit."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    free = int(psutil.virtual_memory().available)
    try:
        limit = (_CONTROL_GROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CONTROL_GROUP / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used))


def give_back() -> None:
    """Return freed memory of this process to the system.

    The C library keeps what was freed, in pieces between what is still held: after a full fine-tuning of MiniLM 456 of
    its 678 MiB (docs/reliability.md).
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


def _found_malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # not glibc: musl, macOS and Windows have allocators of their own
        return None


_malloc_trim = _found_malloc_trim()


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes. ``reserved`` is ``None`` on a CPU."""

    allocated: int
    reserved: int | None = None


class MemoryMeter:
    """Measures peaks on ``device``, one stretch of work after the other.

    On Linux the kernel keeps a process's peak and resets it on request; elsewhere resident memory is sampled.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._sampler: _Sampler | None = None
        self._baseline = 0 if self._cuda else psutil.Process().memory_info().rss
        self.reset()

    def reset(self) -> None:
        """Begin a stretch: what was held before it and is free now no longer counts."""
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        elif not _reset_kernel_peak():
            if self._sampler is not None:
                self._sampler.stop()
            self._sampler = _Sampler()

    def peak(self) -> Peak:
        """The most since the last :meth:`reset`."""
        if self._cuda:
            torch.cuda.synchronize()
            return Peak(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
        most = _kernel_peak() if self._sampler is None else self._sampler.stop()
        return Peak(max(0, most - self._baseline))


def _reset_kernel_peak() -> bool:
    try:
        _CLEAR.write_text("5")  # proc(5): reset the peak resident set size
    except OSError:
        return False
    return True


def _kernel_peak() -> int:
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} names no VmHWM")


class _Sampler:
    """Looks at resident memory once a millisecond; torch lets other threads run while it computes."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._most = int(self._process.memory_info().rss)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self._most = max(self._most, int(self._process.memory_info().rss))

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return max(self._most, int(self._process.memory_info().rss))
