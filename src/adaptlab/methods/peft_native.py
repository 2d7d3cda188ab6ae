"""PEFT's own methods, a row each: options under PEFT's names, defaults, and the closed form of the count."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from adaptlab.methods._base import LearningRates, MethodOptions
from adaptlab.methods._peft import PeftMethod, Row
from adaptlab.models._base import Layer, Layout, resolve_targets


class LowRankOptions(MethodOptions):
    r: int = Field(8, ge=1, description="rank")
    lora_alpha: int = Field(16, ge=1, description="the update is scaled by lora_alpha / r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    init_lora_weights: Literal[True, "gaussian"] = Field(True, description="how A starts (B starts at zero)")


class LoraOptions(LowRankOptions):
    use_rslora: bool = Field(False, description="scale by lora_alpha / sqrt(r)")


def _lora_count(layer: Layer, options: Any, layout: Layout) -> int:
    """A is r x inputs, B is outputs x r."""
    return int(options.r) * (layer.inputs + layer.outputs)


class Ia3Options(MethodOptions):
    feedforward_modules: str | tuple[str, ...] | None = Field(
        None, description="targets whose inputs are scaled, not outputs; by default those that lead out of the MLP"
    )


def _ia3_feedforward(layout: Layout, names: tuple[str, ...], options: Any) -> dict[str, Any]:
    if options.feedforward_modules is None:
        inwards = set(layout.words.get("mlp-output", ()))
    else:
        inwards = set(resolve_targets(layout, options.feedforward_modules, ("linear", "conv1d")))
    return {"feedforward_modules": [name for name in names if name in inwards]}


def _ia3_count(layer: Layer, options: Any, layout: Layout) -> int:
    """One factor for each output; for each input where the layer leads out of the feed-forward."""
    scaled = _ia3_feedforward(layout, (layer.name,), options)["feedforward_modules"]
    return layer.inputs if scaled else layer.outputs


ROWS = (
    Row(
        name="lora",
        summary="a low-rank update beside each target: W + (alpha / r) B A",
        paper="Hu et al. 2022, arXiv 2106.09685",
        peft_type="LORA",
        options=LoraOptions,
        aliases={"alpha": "lora_alpha", "dropout": "lora_dropout"},
        learning_rates=LearningRates(default=5e-3, low=3e-4, high=1e-2),
        count=_lora_count,
    ),
    Row(
        name="ia3",
        summary="learned factors on keys, values and what leads out of the feed-forward",
        paper="Liu et al. 2022, arXiv 2205.05638",
        peft_type="IA3",
        options=Ia3Options,
        learning_rates=LearningRates(default=3e-2, low=3e-3, high=1e-1),
        count=_ia3_count,
        targets=("key", "value", "mlp-output"),
        layer_kinds=("linear", "conv1d"),
        derived=_ia3_feedforward,
        note="PEFT's own table also scales the attention's output in BERT and RoBERTa; the paper does not.",
    ),
)

plugins = [PeftMethod(row) for row in ROWS]
