"""Plain products give what torch's attention gives, and its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from adaptlab.training.attention import plain_attention


def masks() -> dict[str, dict[str, Any]]:
    keep = torch.ones(3, 1, 5, 7, dtype=torch.bool)
    keep[0, ..., 4:] = False
    return {
        "none": {},
        "padding": {"attn_mask": keep},
        "added": {"attn_mask": torch.randn(3, 4, 5, 7)},
        "scale": {"scale": 1.0, "attn_mask": keep},
    }


def answer(dtype: torch.dtype, keys: int, **settings: Any) -> list[torch.Tensor]:
    torch.manual_seed(0)
    parts = [torch.randn(3, 4, n, 8) for n in (5, keys, keys)]
    parts = [part.to(dtype).requires_grad_() for part in parts]
    out = F.scaled_dot_product_attention(*parts, **settings)
    out.float().square().sum().backward()
    return [out.detach().float(), *(part.grad.float() for part in parts if part.grad is not None)]


@pytest.mark.parametrize("case", [*masks(), "causal"])
def test_outputs_and_gradients_are_those_of_exact_attention(case: str) -> None:
    keys, settings = (5, {"is_causal": True}) if case == "causal" else (7, masks()[case])
    exact = answer(torch.float32, keys, **settings)
    with plain_attention():
        found = answer(torch.bfloat16, keys, **settings)
    for a, b in zip(found, exact, strict=True):
        assert float((a - b).abs().max()) < 0.03 * float(b.abs().max())


def test_what_it_does_not_cover_is_left_to_torch() -> None:
    expected = answer(torch.float32, 7)
    with plain_attention():
        assert all(map(torch.equal, answer(torch.float32, 7), expected))
        q, kv = torch.randn(2, 4, 3, 8).bfloat16(), torch.randn(2, 2, 3, 8).bfloat16()
        grouped = F.scaled_dot_product_attention(q, kv, kv, enable_gqa=True)
    assert torch.equal(grouped, F.scaled_dot_product_attention(q, kv, kv, enable_gqa=True))
