"""What dropout's random numbers cost on a CPU: torch's own draw against the keyed one.

    python benchmarks/dropout.py

One forward pass through dropout, on the shapes that a BERT-like model of width 384 has at batch 32. The two take turns;
the figure is the median of many.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from adaptlab.measure.environment import processor_name
from adaptlab.training.dropout import DropoutClock, KeyedDropout

REPEATS = 200
SHAPES = [(32, 8, 384), (32, 16, 384), (32, 64, 384), (32, 128, 384)]


def seconds(call: Callable[[], object]) -> float:
    """Wall clock of one call."""
    before = time.perf_counter()
    call()
    return time.perf_counter() - before


def main() -> None:
    """Print a line per shape and dtype."""
    print(f"{processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("| shape | dtype | torch, microseconds | keyed, microseconds | ratio |\n|---|---|---|---|---|")
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            clock = DropoutClock()
            clock.set(1, [(0, shape[0], 0)])
            plain, keyed = torch.nn.Dropout(0.1), KeyedDropout(0.1, 1, clock)
            values = torch.randn(shape, dtype=dtype)
            taken: dict[str, list[float]] = {"torch": [], "keyed": []}
            for _ in range(REPEATS):
                taken["torch"].append(seconds(lambda: plain(values)))  # noqa: B023 - called at once
                taken["keyed"].append(seconds(lambda: keyed(values)))  # noqa: B023
            theirs, ours = (1e6 * statistics.median(taken[name]) for name in ("torch", "keyed"))
            name = str(dtype).removeprefix("torch.")
            print(f"| {' x '.join(map(str, shape))} | {name} | {theirs:.0f} | {ours:.0f} | {theirs / ours:.1f}x |")


if __name__ == "__main__":
    main()
