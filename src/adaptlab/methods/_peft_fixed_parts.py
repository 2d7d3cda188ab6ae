"""PEFT's methods with fixed random parts, drawn from a key of their own and not from the run's seed: VeRA, RandLoRA,
FourierFT, SHiRA; and VB-LoRA, whose layers share what is trained.

VeRA's and RandLoRA's projections are not saved but drawn again from ``projection_prng_key`` (PEFT would add them to
every adapter, and RandLoRA's are larger than what is trained).
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from adaptlab.methods._base import LearningRates, MethodOptions
from adaptlab.methods._peft import Row
from adaptlab.methods._peft_fit import check_at_most, fitting_size, layers_of
from adaptlab.models._base import Layer, Layout


class VeraOptions(MethodOptions):
    r: int = Field(256, ge=1, description="rank of the fixed projections")
    projection_prng_key: int = Field(0, description="seed of the fixed projections; the run's seed does not reach them")
    d_initial: float = Field(0.1, description="what the trained factors on the rank start at")
    vera_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")


def _vera_count(layer: Layer, options: Any) -> int:
    """A factor for each rank and for each output."""
    return int(options.r) + layer.outputs


class RandLoraOptions(MethodOptions):
    r: int = Field(32, ge=1, description="rank of each fixed basis; smaller means more bases and more to train")
    projection_prng_key: int = Field(0, description="seed of the fixed bases; the run's seed does not reach them")
    randlora_alpha: int = Field(640, ge=1, description="the update is scaled by randlora_alpha / r")
    randlora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    sparse: bool = Field(False, description="bases of -1, 0 and 1, two thirds of them 0")
    very_sparse: bool = Field(False, description="the same with all but one in sqrt(width) 0")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.sparse and self.very_sparse:
            raise ValueError("the bases are sparse or very_sparse: give one of them")
        return self


def _randlora_count(layer: Layer, options: Any) -> int:
    """As many bases as give full rank; for each a factor for every rank and for every feature of the smaller side."""
    smaller = min(layer.inputs, layer.outputs)
    bases = -(-smaller // options.r)
    return int(bases * (options.r + smaller))


class FourierOptions(MethodOptions):
    n_frequency: int | None = Field(
        None, ge=1, description="trained entries of each spectrum; by default 1000, or all where there are fewer"
    )
    scaling: float = Field(150.0, gt=0, description="factor on the update")
    random_loc_seed: int = Field(777, description="seed of which entries; the run's seed does not reach it")
    init_weights: bool = Field(False, description="start the spectra at zero, not from a normal distribution")


def _fourier_fit(layout: Layout, names: tuple[str, ...], options: Any) -> dict[str, Any]:
    smallest = min(layer.inputs * layer.outputs for layer in layers_of(layout, names))
    if options.n_frequency is None:
        return {"n_frequency": min(1000, smallest)}
    check_at_most("n_frequency", options.n_frequency, smallest, "the smallest of which has so many entries")
    return {}


def _fourier_count(layer: Layer, options: Any) -> int:
    """The trained entries of the spectrum, whatever the shape."""
    return int(options.n_frequency)


class ShiraOptions(MethodOptions):
    r: int = Field(8, ge=1, description="as many entries are trained as LoRA of this rank would train")
    random_seed: int = Field(0, description="seed of which entries; the run's seed does not reach it")


def _shira_fit(layout: Layout, names: tuple[str, ...], options: Any) -> dict[str, Any]:
    layers = layers_of(layout, names)
    largest = min(layer.inputs * layer.outputs // (layer.inputs + layer.outputs) for layer in layers)
    check_at_most("r", options.r, largest, "the smallest of which has no more entries")
    return {}


def _shira_count(layer: Layer, options: Any) -> int:
    """LoRA's."""
    return int(options.r) * (layer.inputs + layer.outputs)


class VbLoraOptions(MethodOptions):
    r: int = Field(4, ge=1, description="rank")
    num_vectors: int = Field(256, ge=2, description="vectors in the bank that all layers share")
    vector_length: int | None = Field(
        None, ge=2, description="length of a vector; by default the largest fit up to 256"
    )
    topk: int = Field(2, ge=1, description="vectors that are mixed for each part of a matrix")
    vblora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")

    @model_validator(mode="after")
    def _enough_vectors(self) -> Self:
        if self.topk > self.num_vectors:
            raise ValueError(f"topk={self.topk} vectors cannot be chosen of num_vectors={self.num_vectors}")
        return self


def _vblora_fit(layout: Layout, names: tuple[str, ...], options: Any) -> dict[str, Any]:
    features = [size for layer in layers_of(layout, names) for size in (layer.inputs, layer.outputs)]
    return {"vector_length": fitting_size("vector_length", options.vector_length, features, limit=256)}


def _vblora_count(layer: Layer, options: Any) -> int:
    """For each part of A and of B, a weight for every vector."""
    parts = (layer.inputs + layer.outputs) // options.vector_length
    return int(options.r * parts * options.num_vectors)


def _vblora_bank(options: Any) -> int:
    return int(options.num_vectors * options.vector_length)


#: Families where PEFT's own table adapts every linear layer.
ALL_LINEAR = dict.fromkeys(("t5", "mt5", "bart", "opt", "deberta-v2"), ("all-linear",))

ROWS = (
    Row(
        name="vera",
        summary="learned factors around two fixed random matrices that all layers share",
        paper="Kopiczko et al. 2024, arXiv 2310.11454",
        peft_type="VERA",
        options=VeraOptions,
        aliases={"dropout": "vera_dropout"},
        learning_rates=LearningRates(default=5e-2, low=1e-3, high=1e-1),
        count=_vera_count,
        layer_kinds=("linear", "conv1d"),
        fixed={"save_projection": False},
    ),
    Row(
        name="randlora",
        summary="a full-rank update: learned factors around fixed random bases that all layers share",
        paper="Albert et al. 2025, arXiv 2502.00987",
        peft_type="RANDLORA",
        options=RandLoraOptions,
        aliases={"alpha": "randlora_alpha", "dropout": "randlora_dropout"},
        learning_rates=LearningRates(default=1e-3, low=1e-4, high=1e-2),
        count=_randlora_count,
        layer_kinds=("linear", "conv1d"),
        fixed={"save_projection": False},
    ),
    Row(
        name="fourierft",
        summary="adds the Fourier transform of a sparse learned spectrum to each target",
        paper="Gao et al. 2024, arXiv 2405.03003",
        peft_type="FOURIERFT",
        options=FourierOptions,
        learning_rates=LearningRates(default=3e-2, low=3e-3, high=1e-1),
        count=_fourier_count,
        layer_kinds=("linear", "conv1d"),
        derived=_fourier_fit,
        note="It starts away from the pretrained model, as in the paper; init_weights=true starts at it.",
    ),
    Row(
        name="shira",
        summary="trains a few entries of each target's weight, chosen at random",
        paper="Bhardwaj et al. 2024, arXiv 2406.13175",
        peft_type="SHIRA",
        options=ShiraOptions,
        learning_rates=LearningRates(default=1e-2, low=3e-4, high=3e-2),
        count=_shira_count,
        layer_kinds=("linear",),
        derived=_shira_fit,
        note="The adapter also holds where the entries are, as integers.",
    ),
    Row(
        name="vblora",
        summary="low-rank updates mixed from one learned bank of vectors that all layers share",
        paper="Li et al. 2024, arXiv 2405.15179",
        peft_type="VBLORA",
        options=VbLoraOptions,
        aliases={"dropout": "vblora_dropout"},
        learning_rates=LearningRates(default=1e-2, low=1e-3, high=3e-2),
        count=_vblora_count,
        shared_count=_vblora_bank,
        family_targets=ALL_LINEAR,
        layer_kinds=("linear", "conv1d"),
        derived=_vblora_fit,
    ),
)
