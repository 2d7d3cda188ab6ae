"""Bottleneck adapters: small networks beside or behind the sub-layers of every block, over a frozen base.

Where an adapter goes is read off the layout, so no architecture is asked for by name. The modules themselves are in
``_bottleneck``, the only file here that needs torch to be imported.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from adaptlab.errors import ConfigError
from adaptlab.methods._base import Attached, MethodOptions, Placement, Setup
from adaptlab.methods._selection import SelectionMethod
from adaptlab.models._base import Layer, Layout

if TYPE_CHECKING:
    from torch import nn

NonLinearity = Literal["relu", "gelu", "silu", "tanh"]


class AdapterOptions(MethodOptions):
    """What all bottleneck adapters have in common; a method sets its own defaults."""

    reduction_factor: int | None = Field(16, ge=1, description="the bottleneck's width is the hidden size over this")
    bottleneck: int | None = Field(None, ge=1, description="the bottleneck's width, in place of reduction_factor")
    non_linearity: NonLinearity = Field("relu", description="between the two projections")
    scaling: float = Field(1.0, gt=0, description="factor on what the adapter adds")

    @model_validator(mode="before")
    @classmethod
    def _one_width(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        factor, bottleneck = data.get("reduction_factor"), data.get("bottleneck")
        if bottleneck is not None and factor is not None:
            raise ValueError("reduction_factor and bottleneck both say how wide the adapter is: give one of the two")
        if bottleneck is None and factor is None:
            return {key: value for key, value in data.items() if key != "reduction_factor"}
        return {**data, "reduction_factor": factor}

    def width(self, features: int) -> int:
        """The bottleneck's width at a place with ``features`` features.

        Raises:
            ConfigError: ``reduction_factor`` leaves nothing of them.
        """
        if self.reduction_factor is None:
            assert self.bottleneck is not None
            return self.bottleneck
        if self.reduction_factor > features:
            raise ConfigError(
                f"reduction_factor is {self.reduction_factor}, but this model has {features} features, so the adapter "
                f"would have no width: give at most {features}."
            )
        return features // self.reduction_factor


@dataclass(frozen=True, slots=True)
class Site:
    """Where one adapter stands; all names are the unwrapped model's.

    Attributes:
        block: the transformer block that it becomes a child of.
        child: the adapter's name in the block.
        wiring: ``parallel`` reads what ``reader`` reads and adds to what ``writer`` gives; ``series`` reads and changes
            what ``writer`` gives; ``residual`` reads what leaves the block and adds to its residual stream.
        features: how many features it reads, and how many it adds to.
        writer: the linear that leads out of the sub-layer.
        reader: the linear that leads into it.
        norms: all norms of the block.
    """

    block: str
    child: str
    wiring: Literal["parallel", "series", "residual"]
    features: int
    writer: str
    reader: str = ""
    norms: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The adapter module's whole name."""
        return f"{self.block}.{self.child}"


class AdapterMethod(SelectionMethod):
    """A method that puts bottlenecks into every block. ``std`` is that of their initial weights.

    Without ``std`` the up-projection starts at zero, so that the adapted model starts as the base.
    """

    placement: Placement = "layers"
    Config: type[AdapterOptions] = AdapterOptions
    std: float | None = None

    @abstractmethod
    def sites(self, layout: Layout) -> tuple[Site, ...]:
        """Where adapters go, bottom first.

        Raises:
            ConfigError: the model's blocks have no such places.
        """

    def chosen(self, layout: Layout, setup: Setup) -> tuple[str, ...]:
        leaves = ("down.weight", "down.bias", "up.weight", "up.bias")
        return tuple(f"{site.name}.bottleneck.{leaf}" for site in self._sites(layout, setup) for leaf in leaves)

    def attach(self, model: nn.Module, layout: Layout, setup: Setup) -> Attached:
        from adaptlab.methods._bottleneck import Bottleneck, place

        options = self._options(setup)
        for site in self._sites(layout, setup):
            width = options.width(site.features)
            place(model, site, Bottleneck(site.features, width, options.non_linearity, options.scaling, self.std))
        return super().attach(model, layout, setup)

    def trainable_count(self, layout: Layout, setup: Setup) -> int:
        """Down: ``width x features`` and ``width`` biases; up: ``features x width`` and ``features`` biases."""
        options = self._options(setup)
        sites = [(site.features, options.width(site.features)) for site in self._sites(layout, setup)]
        return sum(2 * features * width + width + features for features, width in sites)

    def _options(self, setup: Setup) -> AdapterOptions:
        assert isinstance(setup.options, AdapterOptions)
        return setup.options

    def _sites(self, layout: Layout, setup: Setup) -> tuple[Site, ...]:
        if setup.targets is not None:
            raise ConfigError(
                f"The method {self.name} has places of its own in every block, so it takes no targets: leave them out, "
                f"or choose a method that sits at single layers, such as lora."
            )
        return self.sites(layout)


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The feed-forward sub-layer of a block: the linear that leads in (not a gate) and the one that leads out."""

    block: int
    reader: Layer
    writer: Layer


def feed_forwards(layout: Layout) -> Iterator[FeedForward]:
    """The feed-forward of every block, bottom first.

    Raises:
        ConfigError: a block has none, or several (a mixture of experts).
    """
    inward, outward = (_by_block(layout, word) for word in ("mlp-input", "mlp-output"))
    for index, block in enumerate(layout.blocks):
        readers, writers = inward.get(index, []), outward.get(index, [])
        if len(readers) != 1 or len(writers) != 1 or readers[0].inputs != writers[0].outputs:
            raise ConfigError(
                f"The block {block} of this {layout.family} model has no single feed-forward, from one linear to "
                f"another and back to its width, for an adapter to go to: choose another method, such as lora."
            )
        yield FeedForward(index, readers[0], writers[0])


def attention_outputs(layout: Layout) -> Iterator[tuple[int, Layer]]:
    """The linear that leads out of every block's self-attention, bottom first.

    Raises:
        ConfigError: a block has none.
    """
    found = _by_block(layout, "output")
    for index, block in enumerate(layout.blocks):
        if index not in found:
            raise ConfigError(
                f"The block {block} of this {layout.family} model has no linear that leads out of its attention, for "
                f"an adapter to go to: choose another method, such as lora."
            )
        yield index, found[index][0]  # a decoder's cross-attention comes second


def norms_of(layout: Layout, block: int) -> tuple[str, ...]:
    """The norms of a block."""
    return tuple(layer.name for layer in layout.layers if layer.block == block and layer.kind == "norm")


def _by_block(layout: Layout, word: str) -> dict[int, list[Layer]]:
    names = set(layout.words.get(word, ()))
    found: dict[int, list[Layer]] = {}
    for layer in layout.layers:
        if layer.name in names and layer.block is not None:
            found.setdefault(layer.block, []).append(layer)
    return found
