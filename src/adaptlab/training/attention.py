"""Attention of short rows on a CPU in bfloat16, where torch's own kernels are slow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@contextmanager
def plain_attention() -> Iterator[None]:
    """While active, ``torch.nn.functional.scaled_dot_product_attention`` is two batched products in bfloat16.

    The softmax between them is summed in float32 and rounded, as in transformers' own ``eager`` attention. What the
    products do not cover (dropout, grouped queries, other dtypes) goes to torch's kernel of plain products.
    """
    original = F.scaled_dot_product_attention
    added: dict[int, tuple[Tensor, Tensor]] = {}  # by the mask's id; the mask is kept so that the id stays its own

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **other: Any,
    ) -> Tensor:
        covered = all(t.dtype == torch.bfloat16 and t.ndim == 4 for t in (query, key, value))
        if dropout_p or any(other.values()) or not covered or key.shape[:2] != query.shape[:2]:
            return original(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **other)
        if is_causal:
            attn_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        bias = None
        if attn_mask is not None:
            if id(attn_mask) not in added:
                added[id(attn_mask)] = attn_mask, _additive(attn_mask)
            bias = added[id(attn_mask)][1]
        return _attend(query, key, value, bias, query.shape[-1] ** -0.5 if scale is None else scale)

    F.scaled_dot_product_attention = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


def _additive(mask: Tensor) -> Tensor:
    """What is added to scores: 0 where ``mask`` is true, the lowest number elsewhere (whole rows may be)."""
    if mask.dtype != torch.bool:
        return mask
    lowest = torch.finfo(torch.bfloat16).min
    return torch.zeros(mask.shape, dtype=torch.bfloat16, device=mask.device).masked_fill_(~mask, lowest)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """``softmax(scale query key' + bias) value``, each ``[rows, heads, tokens, features]``."""
    rows, heads, tokens, _ = query.shape
    q, k, v = (part.flatten(0, 1) for part in (query, key, value))
    none = q.new_zeros(1, 1, 1).expand(len(q), tokens, k.shape[1])
    scores = torch.baddbmm(none, q, k.mT, beta=0, alpha=scale)
    if bias is not None:
        scores.view(rows, heads, tokens, -1).add_(bias)
    return torch.bmm(scores.softmax(-1), v).view(rows, heads, tokens, -1)
