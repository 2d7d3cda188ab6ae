"""The best matrix product that a machine does in the shapes of a run."""

from __future__ import annotations

import time
from typing import Any

Shape = tuple[int, int, int]  # tokens, inputs, outputs


def own_shapes(model: str, settings: dict[str, Any], data_root: str) -> list[Shape]:
    """Of every batch of a run, its products with the matrices of a block."""
    from engines_trainer import read_rows
    from transformers import AutoConfig, AutoTokenizer

    from adaptlab.training.batches import BatchPlan
    from adaptlab.training.encode import encode

    rows, _, _ = read_rows(settings, data_root)
    tokenizer = AutoTokenizer.from_pretrained(model)
    lengths = encode(tokenizer, rows, max_length=settings["max_length"], regression=False).lengths
    tokens = {len(b.rows) * b.length for b in BatchPlan(lengths, settings["batch_size"]).epoch(0, 0)}
    config = AutoConfig.from_pretrained(model)
    narrow, wide = config.hidden_size, config.intermediate_size
    return [(count, *sides) for count in sorted(tokens) for sides in ((narrow, narrow), (narrow, wide), (wide, narrow))]


def matrix_peak(shapes: list[Shape], device: str, dtype: str) -> float:
    """Floating-point operations a second of the best product of ``shapes``, at the threads that torch has."""
    import torch

    best = 0.0
    for tokens, inputs, outputs in shapes:
        left = torch.randn(tokens, inputs, device=device, dtype=getattr(torch, dtype))
        right = torch.randn(inputs, outputs, device=device, dtype=getattr(torch, dtype))
        for _ in range(15):
            before = time.perf_counter()
            left @ right
            if device == "cuda":
                torch.cuda.synchronize()
            best = max(best, 2 * tokens * inputs * outputs / (time.perf_counter() - before))
    return best
