"""A look inside a few training steps: torch's profiler, its trace, and the operations that cost most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

#: The first step warms up; these are profiled.
_FIRST, _STEPS = 1, 3
_COSTLIEST = 10


class StepProfiler:
    """Profiles some steps of a run; call :meth:`step` after each, and :meth:`close` when training ends.

    Args:
        folder: gets ``trace.json`` (for chrome://tracing or Perfetto), ``operations.json`` and ``operations.txt``.
        total_steps: of the run; one of few steps is profiled from its first.
    """

    def __init__(self, folder: Path, device: str, total_steps: int) -> None:
        self._folder, self._cuda = folder, device == "cuda"
        self._first = _FIRST if total_steps > _FIRST else 0
        self._done = 0
        self._profile: Any = None
        if self._first == 0:
            self._start()

    def step(self) -> None:
        """A step is done."""
        self._done += 1
        if self._done == self._first:
            self._start()
        elif self._done == self._first + _STEPS:
            self.close()

    def close(self) -> None:
        """Write what was seen, if that has not been done."""
        if self._profile is None:
            return
        self._profile.__exit__(None, None, None)
        found, self._profile = self._profile, None
        self._folder.mkdir(parents=True, exist_ok=True)
        found.export_chrome_trace(str(self._folder / "trace.json"))
        averages = found.key_averages()
        column = "self_device_time_total" if self._cuda else "self_cpu_time_total"
        rows = sorted(averages, key=lambda one: float(getattr(one, column)), reverse=True)
        total = sum(float(getattr(one, column)) for one in rows)
        costliest = [
            {
                "operation": one.key,
                "calls": one.count,
                "seconds": float(getattr(one, column)) / 1e6,
                "share": float(getattr(one, column)) / total if total else 0.0,
            }
            for one in rows[:_COSTLIEST]
        ]
        document = {
            "device": "cuda" if self._cuda else "cpu",
            "steps": self._done - self._first,
            "operations": costliest,
        }
        (self._folder / "operations.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        table = averages.table(sort_by=column, row_limit=_COSTLIEST, max_name_column_width=60)
        (self._folder / "operations.txt").write_text(str(table), encoding="utf-8")

    def _start(self) -> None:
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._cuda else [])]
        self._profile = profile(activities=activities)
        if self._cuda:
            torch.cuda.synchronize()
        self._profile.__enter__()
