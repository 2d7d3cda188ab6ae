"""Gradient checkpointing: blocks keep what they read, and compute the rest anew in the backward pass.

A training step then holds the activations of one block at a time and takes about a third longer. Losses and gradients
are those of a step without, since the second pass draws the same dropout: masks are a function of keys, and the clock
is put back to the start of the block (Chen et al. 2016, arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from adaptlab.training.dropout import DropoutClock, site_of

#: What a block may be given to keep keys and values in, which a second pass would fill twice.
_CACHES = ("past_key_values", "past_key_value", "layer_past")


def recompute_blocks(model: nn.Module, blocks: Sequence[str], clock: DropoutClock) -> None:
    """Have the ``blocks`` of ``model`` that take part in the backward pass compute anew there what they gave.

    Args:
        clock: of the model's dropouts; it is not set anew between a forward pass and its backward pass.
    """
    for name in blocks:
        block = model.get_submodule(name)
        block.forward = _recomputed(block, partial(_as_before, clock, site_of(name)))


@contextmanager
def _as_before(clock: DropoutClock, scope: int, dropout: Any, attention: Any) -> Iterator[None]:
    """What surrounds a block's first pass, autocast aside, which torch restores."""
    present = F.dropout, F.scaled_dot_product_attention
    F.dropout, F.scaled_dot_product_attention = dropout, attention
    clock.enter(scope)
    try:
        yield
    finally:
        F.dropout, F.scaled_dot_product_attention = present


def _recomputed(block: nn.Module, as_before: Callable[[Any, Any], AbstractContextManager[None]]) -> Callable[..., Any]:
    compute: Callable[..., Any] = block.forward
    trained = any(parameter.requires_grad for parameter in block.parameters())

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values())
        needed = trained or any(isinstance(value, Tensor) and value.requires_grad for value in given)
        if not (torch.is_grad_enabled() and needed):
            return compute(*args, **kwargs)
        kwargs = {key: None if key in _CACHES else value for key, value in kwargs.items()}
        again = as_before(F.dropout, F.scaled_dot_product_attention)
        return checkpoint(
            partial(compute, **kwargs),
            *args,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing draws from torch's generators
            context_fn=lambda: (nullcontext(), again),
        )

    return forward
