"""What a step on a base in 4 or 8 bits costs on a CPU: seconds of the processor, LoRA on MiniLM, batches of 32.

    python benchmarks/quantised.py            (two minutes; one thread)

Seconds of the processor, not of the clock: other work on the machine hardly counts. Scores are another matter:
examples/quantised.yaml, docs/benchmarks/quantised.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, get_args

import torch

from adaptlab.config import MethodConfig, ModelConfig, Quantize, RunConfig, TaskConfig
from adaptlab.models.load import Base, load_base
from adaptlab.models.quantize import base_bytes, quantised_layers
from adaptlab.training.precision import Precision
from adaptlab.workshop import attach

ROWS, REPEATS = 32, 5


def main() -> None:
    torch.set_num_threads(1)
    bases = {how: load_base(ModelConfig(id="minilm", quantize=how), num_labels=2, regression=False, device="cpu")
             for how in get_args(Quantize)}  # fmt: skip
    print("| tokens | dtype | base | training step, ms | evaluation, ms |\n|---:|---|---|---:|---:|")
    for tokens in (16, 128):
        for dtype in ("float32", "bfloat16"):
            for how, base in bases.items():
                train, evaluate = _milliseconds(base, dtype, tokens)
                print(f"| {tokens} | {dtype} | {how} | {train:.0f} | {evaluate:.0f} |", flush=True)
    for how, base in bases.items():
        size = base_bytes(base.layout, quantised_layers(base.model, base.layout), how)
        print(f"\n{how}: the base's weights are {size / 1e6:.1f} MB", end="")
    print()


def _milliseconds(base: Base, dtype: str, tokens: int) -> tuple[float, float]:
    """Medians of forward and backward, and of a forward pass alone."""
    attached = attach(
        base, RunConfig(model=base.config, task=TaskConfig(name="sst2"), method=MethodConfig(name="lora"))
    )
    precision = Precision(dtype, "cpu")
    precision.prepare(attached, {})
    ids = torch.randint(1000, 20000, (ROWS, tokens), generator=torch.Generator().manual_seed(0))
    batch: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def train() -> None:
        attached.model.train()
        with precision.autocast(), precision.attention(tokens):
            logits = attached.model(**batch).logits
        logits.logsumexp(dim=1).sum().backward()

    def evaluate() -> None:
        attached.model.eval()
        with torch.inference_mode(), precision.autocast():
            attached.model(**batch)

    return statistics.median(_times(train)), statistics.median(_times(evaluate))


def _times(work: Callable[[], None]) -> Iterator[float]:
    work()  # allocations and first-use choices
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        yield 1000 * (time.process_time() - start)


if __name__ == "__main__":
    main()
