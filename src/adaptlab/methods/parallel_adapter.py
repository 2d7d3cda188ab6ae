"""A bottleneck beside the feed-forward of every block.

``y = FFN(x) + s * (W_up relu(W_down x + b_down) + b_up)``, where ``x`` is the feed-forward's own input (after the layer
norm in pre-norm blocks), ``s`` is 4, and ``W_up`` starts at zero: He et al. 2022, arXiv 2110.04366, section 4.
"""

from __future__ import annotations

from pydantic import Field

from adaptlab.methods._adapters import AdapterMethod, AdapterOptions, Site, feed_forwards
from adaptlab.methods._base import LearningRates
from adaptlab.models._base import Layout


class Options(AdapterOptions):
    scaling: float = Field(4.0, gt=0, description="factor on what the adapter adds")


class ParallelAdapter(AdapterMethod):
    name = "parallel-adapter"
    summary = "a bottleneck beside the feed-forward of every block"
    paper = "He et al. 2022, arXiv 2110.04366"
    Config = Options
    # The paper takes 1e-4 over thousands of steps; short runs want more (docs/learning-rates.md).
    learning_rates = LearningRates(default=2e-3, low=1e-4, high=1e-2)

    def sites(self, layout: Layout) -> tuple[Site, ...]:
        return tuple(
            Site(
                block=layout.blocks[found.block],
                child="parallel_adapter",
                wiring="parallel",
                features=found.reader.inputs,
                writer=found.writer.name,
                reader=found.reader.name,
            )
            for found in feed_forwards(layout)
        )


plugin = ParallelAdapter()
