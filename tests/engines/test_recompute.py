"""Gradient checkpointing changes no number; it computes the blocks a second time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from adaptlab.engines.fused import bare
from adaptlab.training.recompute import recompute_blocks

from .conftest import Group, Spec

Build = Callable[..., Group]
SPECS = [
    Spec("lora", 0, {"lora_dropout": 0.2}),
    Spec("full", 1, learning_rate=1e-3),
    Spec("parallel-adapter", 2),
    Spec("top-layers", 3),
]


def passes(group: Group) -> list[dict[str, int]]:
    """Per member, how often each block's first linear layer computes while training: filled as it trains."""
    found: list[dict[str, int]] = []
    for member in group.members:
        model, counts = bare(member.attached.model), dict[str, int]()
        for name in member.attached.layout.blocks:
            part = next(m for m in model.get_submodule(name).modules() if isinstance(m, torch.nn.Linear))
            part.register_forward_hook(lambda *_, n=name, c=counts: c.__setitem__(n, c.get(n, 0) + 1))
        found.append(counts)
    return found


def checkpointed(group: Group) -> Group:
    for member, engine in zip(group.members, group.engines, strict=True):
        clock: Any = engine._clock  # type: ignore[attr-defined]
        recompute_blocks(bare(member.attached.model), member.attached.layout.blocks, clock)
    return group


@pytest.mark.parametrize(
    ("family", "dtype"), [("bert", "float64"), ("opt", "float64"), ("t5", "float64"), ("bert", "bfloat16")]
)
def test_losses_and_weights_are_those_of_runs_without(group_of: Build, family: str, dtype: str) -> None:
    plain = group_of(SPECS, fused=False, steps=4, family=family, dtype=dtype)
    again = checkpointed(group_of(SPECS, fused=False, steps=4, family=family, dtype=dtype))
    once, twice = passes(plain), passes(again)
    # T5's blocks share a position bias, whose gradients then add up in another order.
    tolerance = 1e-9 if family == "t5" else 0.0
    assert np.allclose(plain.train(4), again.train(4), rtol=0, atol=tolerance)
    for a, b in zip(plain.members, again.members, strict=True):
        assert all(torch.allclose(a.trained[n], b.trained[n], rtol=0, atol=tolerance) for n in a.trained)
    for member, counts, more in zip(plain.members, once, twice, strict=True):
        blocks = member.attached.layout.blocks
        still = blocks[:-1] if member.name == "top-layers" else ()
        if family != "t5" or member.name != "top-layers":
            assert more == {name: count if name in still else 2 * count for name, count in counts.items()}
