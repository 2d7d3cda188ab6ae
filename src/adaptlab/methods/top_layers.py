"""The last ``n`` transformer blocks and the head are trained, everything below is frozen."""

from __future__ import annotations

from pydantic import Field

from adaptlab.errors import ConfigError
from adaptlab.methods._base import LearningRates, MethodOptions, Setup
from adaptlab.methods._selection import SelectionMethod
from adaptlab.models._base import Layout


class Options(MethodOptions):
    n: int = Field(1, ge=1, description="how many blocks, counted from the top")


class TopLayers(SelectionMethod):
    name = "top-layers"
    summary = "the last n transformer blocks and the head"
    paper = "Lee, Tang and Lin 2019, arXiv 1911.03090"
    Config = Options
    learning_rates = LearningRates(default=1e-3, low=5e-5, high=5e-3)

    def chosen(self, layout: Layout, setup: Setup) -> tuple[str, ...]:
        options = setup.options
        assert isinstance(options, Options)
        if options.n > len(layout.blocks):
            raise ConfigError(
                f"top-layers was given n={options.n}, but this {layout.family} model has {len(layout.blocks)} blocks: "
                f"choose n from 1 to {len(layout.blocks)}."
            )
        prefixes = tuple(f"{block}." for block in layout.blocks[-options.n :])
        head = set(layout.head)
        return tuple(name for name in layout.parameters if name.startswith(prefixes) and name not in head)


plugin = TopLayers()
