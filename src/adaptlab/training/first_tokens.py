"""What no head reads is not computed: behind the last attention, a row's first token goes on alone.

The head of BERT and its relatives reads each row's first token. Up to the last block's attention every token may reach
it; behind that a token sees no other, so all but the first would be multiplied by the block's widest matrices for
nothing. On a base of six blocks that is an eighth of a pass. Losses, gradients and answers are those of a pass over
all tokens, dropout included: what is left draws the masks that it would have drawn among the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from adaptlab.models._base import Layout
from adaptlab.training.dropout import DropoutClock


class FirstTokens:
    """Leaves all tokens but each row's first out of what follows the last attention of ``model``.

    Args:
        model: without PEFT's wrapper, read by a classification head.
        clocks: those that dropouts of the last block look at.
    """

    def __init__(self, model: nn.Module, layout: Layout, clocks: Sequence[DropoutClock]) -> None:
        self._clocks = list(clocks)
        if layout.tokens_part:
            model.get_submodule(layout.tokens_part).register_forward_pre_hook(self._part)
            model.get_submodule(layout.blocks[-1]).register_forward_hook(self._end)

    def _part(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """``[rows, tokens, features]`` each to ``[rows, 1, features]``."""
        for clock in self._clocks:
            clock.spread = args[0].shape[1]
        return tuple(given[:, :1].contiguous() for given in args)

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        for clock in self._clocks:
            clock.spread = 1
