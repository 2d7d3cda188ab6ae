"""PEFT's methods that add a product of small matrices to each target: LoRA and its variants, LoHa, LoKr, MiSS.

Dropouts that PEFT draws without ``nn.Dropout`` (LoHa's and LoKr's rank and module dropout) are not offered: a resumed
run could not draw them again.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from adaptlab.errors import ConfigError
from adaptlab.methods._base import Attached, LearningRates, MethodOptions, ParameterGroup, Setup
from adaptlab.methods._peft import PeftMethod, Row
from adaptlab.methods._peft_fit import check_at_most, fitting_size, layers_of
from adaptlab.models._base import Layer, Layout


class LoraPlusOptions(MethodOptions):
    """What LoRA+ adds to LoRA and its variants (Hayou et al. 2024, arXiv 2402.12354)."""

    later: ClassVar[frozenset[str]] = frozenset({"loraplus_lr_ratio"})
    free: ClassVar[frozenset[str]] = frozenset({"loraplus_lr_ratio", "lora_alpha"})
    loraplus_lr_ratio: float | None = Field(
        None, gt=1, description="LoRA+: B's learning rate over A's, which is the run's; 16 in the paper"
    )


class LoraMethod(PeftMethod):
    """LoRA and its variants, with LoRA+."""

    def parameter_groups(self, attached: Attached) -> list[ParameterGroup]:
        """With LoRA+, B and magnitudes have a multiple of the rate; the head has the run's own."""
        groups = super().parameter_groups(attached)
        ratio: float | None = attached.setup.options.loraplus_lr_ratio  # type: ignore[attr-defined]
        if ratio is None:
            return groups
        faster = {n for n in attached.parameters if re.search(r"\.lora_(embedding_)?B|\.lora_magnitude_vector", n)}
        parts = []
        for group in groups:
            slow, fast = (tuple(n for n in group.names if (n in faster) == is_fast) for is_fast in (False, True))
            parts += [replace(group, names=slow), replace(group, names=fast, rate_factor=ratio)]
        return [part for part in parts if part.names]

    def _settle(self, layout: Layout, names: tuple[str, ...], setup: Setup) -> tuple[Any, dict[str, Any]]:
        options, settings = super()._settle(layout, names, setup)
        settings.pop("loraplus_lr_ratio", None)  # no setting of PEFT's, but of its optimiser
        return options, settings


class LowRankOptions(LoraPlusOptions):
    r: int = Field(8, ge=1, description="rank")
    lora_alpha: int = Field(16, ge=1, description="the update is scaled by lora_alpha / r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    init_lora_weights: Literal[True, "gaussian"] = Field(True, description="how A starts (B starts at zero)")


class LoraOptions(LowRankOptions):
    use_rslora: bool = Field(False, description="scale by lora_alpha / sqrt(r)")


class RsLoraOptions(LowRankOptions):
    lora_alpha: int = Field(16, ge=1, description="the update is scaled by lora_alpha / sqrt(r)")


class PissaOptions(LoraPlusOptions):
    r: int = Field(8, ge=1, description="how many singular directions are trained")
    lora_alpha: int = Field(8, ge=1, description="the update is scaled by lora_alpha / r; the paper has both the same")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")


def _lora_count(layer: Layer, options: Any) -> int:
    """A is r x inputs, B is outputs x r."""
    return int(options.r) * (layer.inputs + layer.outputs)


def _dora_count(layer: Layer, options: Any) -> int:
    """LoRA's, and a magnitude for each output."""
    return _lora_count(layer, options) + layer.outputs


def _pissa_rank(layout: Layout, names: tuple[str, ...], options: Any) -> dict[str, Any]:
    smallest = min(min(layer.inputs, layer.outputs) for layer in layers_of(layout, names))
    check_at_most("r", options.r, smallest, "whose smallest matrix has so many singular values")
    return {}


class LohaOptions(MethodOptions):
    free: ClassVar[frozenset[str]] = frozenset({"alpha"})
    r: int = Field(8, ge=1, description="rank of each of the two products")
    alpha: int = Field(8, ge=1, description="the update is scaled by alpha / r")


def _loha_count(layer: Layer, options: Any) -> int:
    """Two products of rank r."""
    return 2 * int(options.r) * (layer.inputs + layer.outputs)


class LokrOptions(MethodOptions):
    free: ClassVar[frozenset[str]] = frozenset({"alpha"})
    r: int = Field(8, ge=1, description="rank of the larger Kronecker factor")
    alpha: int = Field(8, ge=1, description="the update is scaled by alpha / r")
    decompose_both: bool = Field(False, description="make the smaller factor a product of rank r too")
    decompose_factor: int = Field(-1, ge=-1, description="size of the smaller factor; -1 for about the square root")


def _factors(dimension: int, factor: int) -> tuple[int, int]:
    """PEFT's split of a dimension in two, the first at most ``factor`` and as near the square root as it goes."""
    if factor > 0 and dimension % factor == 0:
        return factor, dimension // factor
    limit = dimension if factor == -1 else factor
    small = max(n for n in range(1, int(dimension**0.5) + 1) if dimension % n == 0 and n <= max(limit, 1))
    return small, dimension // small


def _lokr_count(layer: Layer, options: Any) -> int:
    """The smaller factor whole, the larger as a product of rank r where that is fewer than half its side."""
    rows, columns = (_factors(n, options.decompose_factor) for n in (layer.outputs, layer.inputs))
    counts = []
    for side, split in ((0, options.decompose_both), (1, True)):
        height, width = rows[side], columns[side]
        low_rank = split and options.r < max(height, width) / 2
        counts.append(options.r * (height + width) if low_rank else height * width)
    return int(sum(counts))


class MissOptions(MethodOptions):
    r: int = Field(32, ge=1, description="rows of the one trained matrix; the inputs are added up in groups of r")
    init_weights: Literal[True, "bat"] = Field(True, description="'bat' trains r x r blocks times the weight")
    miss_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input (not with 'bat')")


def _miss_fit(layout: Layout, names: tuple[str, ...], options: Any) -> dict[str, Any]:
    layers = layers_of(layout, names)
    check_at_most("r", options.r, min(layer.inputs for layer in layers), "the narrowest of which has so many inputs")
    if options.init_weights == "bat":
        fitting_size("r", options.r, [n for layer in layers for n in (layer.inputs, layer.outputs)], limit=64, least=1)
        if options.miss_dropout:
            raise ConfigError("miss_dropout has no effect with init_weights=bat: leave one of them out.")
    return {}


def _miss_count(layer: Layer, options: Any) -> int:
    """r x outputs; of Bat, outputs / r blocks of r x r, which is the same."""
    return int(options.r) * layer.outputs


LORA_ALIASES = {"alpha": "lora_alpha", "dropout": "lora_dropout"}

ROWS = (
    Row(
        name="lora",
        summary="a low-rank update beside each target: W + (alpha / r) B A",
        paper="Hu et al. 2022, arXiv 2106.09685",
        peft_type="LORA",
        options=LoraOptions,
        aliases=LORA_ALIASES,
        learning_rates=LearningRates(default=5e-3, low=3e-4, high=1e-2),
        count=_lora_count,
    ),
    Row(
        name="rslora",
        summary="low-rank updates that keep their size as the rank grows: W + (alpha / sqrt(r)) B A",
        paper="Kalajdzievski 2023, arXiv 2312.03732",
        peft_type="LORA",
        options=RsLoraOptions,
        aliases=LORA_ALIASES,
        learning_rates=LearningRates(default=2e-3, low=1e-4, high=1e-2),
        count=_lora_count,
        fixed={"use_rslora": True},
    ),
    Row(
        name="dora",
        summary="a low-rank update of the direction of each output's weights, and a trained length for each",
        paper="Liu et al. 2024, arXiv 2402.09353",
        peft_type="LORA",
        options=LowRankOptions,
        aliases=LORA_ALIASES,
        learning_rates=LearningRates(default=5e-3, low=3e-4, high=1e-2),
        count=_dora_count,
        layer_kinds=("linear", "conv1d"),
        fixed={"use_dora": True},
    ),
    Row(
        name="pissa",
        summary="trains the largest singular directions of each weight as a low-rank pair, and freezes the rest",
        paper="Meng et al. 2024, arXiv 2404.02948",
        peft_type="LORA",
        options=PissaOptions,
        aliases=LORA_ALIASES,
        learning_rates=LearningRates(default=5e-3, low=1e-4, high=1e-2),
        count=_lora_count,
        layer_kinds=("linear", "conv1d"),
        fixed={"init_lora_weights": "pissa"},
        derived=_pissa_rank,
        placement="base",  # each target's weight becomes what is left of it
        note="Loading takes the base's weights apart again, so the adapter belongs to that base alone.",
    ),
    Row(
        name="loha",
        summary="the elementwise product of two low-rank updates",
        paper="Hyeon-Woo et al. 2022, arXiv 2108.06098",
        peft_type="LOHA",
        options=LohaOptions,
        learning_rates=LearningRates(default=2e-2, low=5e-4, high=5e-2),
        count=_loha_count,
        layer_kinds=("linear",),
    ),
    Row(
        name="lokr",
        summary="a Kronecker product of a small matrix and a low-rank one",
        paper="Yeh et al. 2024, arXiv 2309.14859",
        peft_type="LOKR",
        options=LokrOptions,
        learning_rates=LearningRates(default=2e-2, low=5e-4, high=3e-2),
        count=_lokr_count,
        layer_kinds=("linear",),
    ),
    Row(
        name="miss",
        summary="one small matrix beside each target, its inputs added up in groups (earlier: Bone)",
        paper="Kang and Yin 2024, arXiv 2409.15371",
        peft_type="MISS",
        options=MissOptions,
        aliases={"dropout": "miss_dropout"},
        learning_rates=LearningRates(default=2e-3, low=1e-4, high=1e-2),
        count=_miss_count,
        layer_kinds=("linear",),
        derived=_miss_fit,
    ),
)
