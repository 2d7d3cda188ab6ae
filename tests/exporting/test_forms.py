"""Merging: every way round a weight can lie, every head, and what has to be refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from adaptlab import merging
from adaptlab.config import Quantize
from adaptlab.errors import ConfigError
from adaptlab.methods import registry
from adaptlab.models.quantize import is_quantised
from tests.contracts.method_checks import Bench, bench
from tests.methods.test_peft_native import attach


def logits(model: nn.Module, on: Bench) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(**on.inputs).logits
    return found


@pytest.mark.parametrize(
    ("family", "method", "how"),
    [
        ("t5", "oft", "none"),  # PEFT by itself fails on a head of two layers
        ("gpt2", "lora", "4bit"),  # Conv1D has its weight the other way round
        ("llama", "ia3", "4bit"),  # PEFT by itself refuses
        ("bert", "layer-norm", "4bit"),
    ],
)
def test_a_merged_model_is_plain_and_answers_the_same(
    family: str, method: str, how: Quantize, blocks_of_64: Callable[[str], Path]
) -> None:
    if how != "none":
        pytest.importorskip("bitsandbytes")
    on = bench(blocks_of_64(family), quantize=how)
    attached = on.attach(registry.get(method))
    on.train(attached, 5)
    before = logits(attached.model, on)
    merged = merging.merged(attached, on.base)
    torch.testing.assert_close(logits(merged, on), before, rtol=0, atol=1e-4)
    assert not any(is_quantised(module) for module in merged.modules())
    plain = bench(blocks_of_64(family)).base.model
    assert {name: p.shape for name, p in merged.named_parameters()} == {n: p.shape for n, p in plain.named_parameters()}


def test_a_weight_that_another_layer_shares_is_not_merged(tiny_model_folder: Callable[[str], Path]) -> None:
    on = bench(tiny_model_folder("t5"))
    attached = attach(on, "lora", targets="transformer.encoder.embed_tokens")
    on.train(attached, 2)
    with pytest.raises(ConfigError, match=r"encoder.embed_tokens shares its weight with .*which a merge would change"):
        merging.merged(attached, on.base)


@pytest.mark.parametrize(
    ("method", "said"), [("prefix-tuning", "it adds tokens to its input"), ("houlsby-adapter", "it adds layers")]
)
def test_what_cannot_be_merged_says_so(method: str, said: str, tiny_model_folder: Callable[[str], Path]) -> None:
    on = bench(tiny_model_folder("bert"))
    with pytest.raises(ConfigError, match=f"{method} cannot be merged into the base, for {said}.*without --merge"):
        merging.merged(on.attach(registry.get(method)), on.base)
