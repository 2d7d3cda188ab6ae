"""PEFT's methods that scale, rotate, reflect or convolve what a target reads or gives: IA3, OFT, BOFT, HRA, RoAd, C3A.

BOFT's and OFT's block dropouts are not offered: PEFT draws them without ``nn.Dropout``, so a resumed run could not draw
them again.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from adaptlab.errors import ConfigError
from adaptlab.methods._base import LearningRates, MethodOptions
from adaptlab.methods._peft import Row
from adaptlab.methods._peft_fit import fitting_size, layers_of
from adaptlab.models._base import Layer, Layout, resolve_targets


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


def _ia3_count(layer: Layer, options: Any) -> int:
    """One factor for each output; for each input where the layer leads out of the feed-forward."""
    return layer.inputs if layer.name in options.feedforward_modules else layer.outputs


class OftOptions(MethodOptions):
    oft_block_size: int | None = Field(
        None, ge=2, description="inputs that are rotated together; by default the largest fit up to 32"
    )
    r: int | None = Field(None, ge=1, description="number of blocks, instead of their size")
    block_share: bool = Field(False, description="one rotation for all blocks of a layer")
    use_cayley_neumann: bool = Field(True, description="invert by a short Neumann series instead of exactly")
    num_cayley_neumann_terms: int = Field(5, ge=2, description="terms of that series")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.r is not None and self.oft_block_size is not None:
            raise ValueError("r and oft_block_size say the same (r x oft_block_size = inputs): give one of them")
        return self


def _oft_blocks(layout: Layout, names: tuple[str, ...], options: Any) -> dict[str, Any]:
    inputs = [layer.inputs for layer in layers_of(layout, names)]
    if options.r is not None:
        settled = {"r": fitting_size("r", options.r, inputs, limit=options.r, least=1), "oft_block_size": 0}
    else:
        settled = {"r": 0, "oft_block_size": fitting_size("oft_block_size", options.oft_block_size, inputs, limit=32)}
    if options.block_share and (settled["r"] == 1 or set(inputs) == {settled["oft_block_size"]}):
        raise ConfigError(
            f"block_share has no effect where each target has one block, of {', '.join(map(str, sorted(set(inputs))))} "
            f"inputs: give a smaller oft_block_size, or leave block_share out."
        )
    return settled


def _oft_count(layer: Layer, options: Any) -> int:
    """A skew-symmetric matrix for each block."""
    size = options.oft_block_size or layer.inputs // options.r
    blocks = 1 if options.block_share else layer.inputs // size
    return int(blocks * size * (size - 1) // 2)


class BoftOptions(MethodOptions):
    boft_block_size: int | None = Field(
        None, ge=2, description="inputs that are rotated together; by default the largest fit up to 4"
    )


def _boft_blocks(layout: Layout, names: tuple[str, ...], options: Any) -> dict[str, Any]:
    inputs = [layer.inputs for layer in layers_of(layout, names)]
    return {"boft_block_size": fitting_size("boft_block_size", options.boft_block_size, inputs, limit=4)}


def _boft_count(layer: Layer, options: Any) -> int:
    """A square matrix for each block, of which the skew-symmetric part counts, and a factor for each output."""
    return int(layer.inputs * options.boft_block_size + layer.outputs)


class HraOptions(MethodOptions):
    r: int = Field(8, ge=2, multiple_of=2, description="reflections; they start in pairs that undo each other")


def _hra_count(layer: Layer, options: Any) -> int:
    """A direction for each reflection."""
    return int(options.r) * layer.inputs


class RoadOptions(MethodOptions):
    variant: Literal["road_1", "road_2", "road_4"] = Field(
        "road_1", description="angles for a pair of outputs: one, one for each, or two for each"
    )
    group_size: int | None = Field(
        None, ge=2, description="outputs rotated with each other in pairs; by default the largest fit up to 64"
    )


def _road_groups(layout: Layout, names: tuple[str, ...], options: Any) -> dict[str, Any]:
    outputs = [layer.outputs for layer in layers_of(layout, names)]
    return {"group_size": fitting_size("group_size", options.group_size, outputs, limit=64)}


def _road_count(layer: Layer, options: Any) -> int:
    """An angle and a length for each pair, for each output, or two for each output."""
    return layer.outputs * {"road_1": 1, "road_2": 2, "road_4": 4}[options.variant]


class C3aOptions(MethodOptions):
    block_size: int | None = Field(
        None, ge=2, description="side of the circular blocks; by default the largest fit up to 256"
    )
    init_weights: Literal[True, "gaussian", "kaiming_uniform", "xavier_uniform"] = Field(
        "xavier_uniform", description="how the kernels start; true is at zero"
    )


def _c3a_blocks(layout: Layout, names: tuple[str, ...], options: Any) -> dict[str, Any]:
    features = [size for layer in layers_of(layout, names) for size in (layer.inputs, layer.outputs)]
    return {"block_size": fitting_size("block_size", options.block_size, features, limit=256, least=1)}


def _c3a_count(layer: Layer, options: Any) -> int:
    """A kernel of block_size for each block of the matrix."""
    return int(layer.inputs * layer.outputs // options.block_size)


def _norm_count(layer: Layer, options: Any) -> int:
    """A copy of the gain, and of the bias where there is one."""
    return layer.outputs * (2 if layer.bias else 1)


ROWS = (
    Row(
        name="ln-tuning",
        summary="copies of the norms' gains and biases, trained in their place",
        paper="Qi et al. 2022, arXiv 2211.08682",
        peft_type="LN_TUNING",
        options=MethodOptions,
        learning_rates=LearningRates(default=1e-2, low=1e-4, high=3e-2),
        count=_norm_count,
        targets=("norms",),
        layer_kinds=("norm",),
        note="The numbers of layer-norm, in an adapter that PEFT alone can load.",
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
    Row(
        name="oft",
        summary="rotates each target's inputs in blocks",
        paper="Qiu et al. 2023, arXiv 2306.07280",
        peft_type="OFT",
        options=OftOptions,
        aliases={"block_size": "oft_block_size"},
        learning_rates=LearningRates(default=1e-2, low=1e-4, high=3e-2),
        count=_oft_count,
        layer_kinds=("linear",),
        derived=_oft_blocks,
    ),
    Row(
        name="boft",
        summary="rotates each target's inputs in small blocks and scales its outputs",
        paper="Liu et al. 2024, arXiv 2311.06243",
        peft_type="BOFT",
        options=BoftOptions,
        aliases={"block_size": "boft_block_size"},
        learning_rates=LearningRates(default=2e-2, low=1e-4, high=5e-2),
        count=_boft_count,
        layer_kinds=("linear",),
        fixed={"boft_n_butterfly_factor": 1},
        derived=_boft_blocks,
        note="One butterfly factor: PEFT takes more only with an extension compiled for CUDA.",
    ),
    Row(
        name="hra",
        summary="reflects each target's inputs at learned directions, one after the other",
        paper="Yuan et al. 2024, arXiv 2405.17484",
        peft_type="HRA",
        options=HraOptions,
        learning_rates=LearningRates(default=2e-2, low=2e-4, high=3e-2),
        count=_hra_count,
        layer_kinds=("linear",),
    ),
    Row(
        name="road",
        summary="rotates and scales each target's outputs in pairs",
        paper="Liao and Monz 2024, arXiv 2409.00119",
        peft_type="ROAD",
        options=RoadOptions,
        learning_rates=LearningRates(default=2e-2, low=5e-4, high=5e-2),
        count=_road_count,
        layer_kinds=("linear",),
        derived=_road_groups,
    ),
    Row(
        name="c3a",
        summary="adds a matrix of circular convolutions to each target",
        paper="Chen et al. 2024, arXiv 2407.19342",
        peft_type="C3A",
        options=C3aOptions,
        learning_rates=LearningRates(default=1e-1, low=3e-3, high=3e-1),
        count=_c3a_count,
        layer_kinds=("linear",),
        derived=_c3a_blocks,
    ),
)
