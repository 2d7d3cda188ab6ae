"""Two bottlenecks in every block: behind its self-attention and behind its feed-forward.

``h' = h + s * (W_up gelu(W_down h + b_down) + b_up)``, where ``h`` is the sub-layer's output projection, before the
residual and the norm: Houlsby et al. 2019, arXiv 1902.00751, section 2. The authors also train the layer norms; here
the base stays frozen whole. Both matrices start from a normal distribution of deviation 0.01, cut at two (section 3.6).
"""

from __future__ import annotations

from pydantic import Field

from adaptlab.methods._adapters import (
    AdapterMethod,
    AdapterOptions,
    NonLinearity,
    Site,
    attention_outputs,
    feed_forwards,
)
from adaptlab.methods._base import LearningRates
from adaptlab.models._base import Layout


class Options(AdapterOptions):
    non_linearity: NonLinearity = Field("gelu", description="between the two projections")


class HoulsbyAdapter(AdapterMethod):
    name = "houlsby-adapter"
    summary = "a bottleneck behind the self-attention and one behind the feed-forward of every block"
    paper = "Houlsby et al. 2019, arXiv 1902.00751"
    Config = Options
    std = 1e-2
    # The paper searches 3e-5 to 3e-3; short runs want the upper end (docs/learning-rates.md).
    learning_rates = LearningRates(default=5e-3, low=1e-4, high=1e-2)

    def sites(self, layout: Layout) -> tuple[Site, ...]:
        found: list[Site] = []
        for (index, attention), feed_forward in zip(attention_outputs(layout), feed_forwards(layout), strict=True):
            for child, writer in (("attention_adapter", attention), ("feed_forward_adapter", feed_forward.writer)):
                found.append(Site(layout.blocks[index], child, "series", writer.outputs, writer.name))
        return tuple(found)


plugin = HoulsbyAdapter()
