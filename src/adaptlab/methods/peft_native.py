"""PEFT's own methods, a row each: options under PEFT's names, defaults, and the closed form of the count."""

from __future__ import annotations

from adaptlab.methods import _peft_fixed_parts, _peft_low_rank, _peft_rotations
from adaptlab.methods._adalora import AdaLora
from adaptlab.methods._peft import PeftMethod
from adaptlab.methods._peft_low_rank import LoraMethod, LoraPlusOptions

ROWS = (*_peft_low_rank.ROWS, *_peft_rotations.ROWS, *_peft_fixed_parts.ROWS)

plugins = [
    *((LoraMethod if issubclass(row.options, LoraPlusOptions) else PeftMethod)(row) for row in ROWS),
    AdaLora(),
]
