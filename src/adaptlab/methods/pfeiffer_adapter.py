"""One bottleneck in every block, behind its feed-forward.

With ``A(h) = s * (W_up relu(W_down h + b_down) + b_up)`` and ``z`` the feed-forward's output plus its residual:
``norm(z + A(norm(z)))`` in post-norm blocks (BERT) and ``z + A(z)`` in pre-norm blocks (T5, OPT), which is AdapterHub's
convention. Pfeiffer et al. 2020 (MAD-X), arXiv 2005.00052; the place was found by a search in Pfeiffer et al. 2021
(AdapterFusion), arXiv 2005.00247.
"""

from __future__ import annotations

from adaptlab.methods._adapters import AdapterMethod, Site, feed_forwards, norms_of
from adaptlab.methods._base import LearningRates
from adaptlab.models._base import Layout


class PfeifferAdapter(AdapterMethod):
    name = "pfeiffer-adapter"
    summary = "a bottleneck behind the feed-forward of every block, which reads what leaves the block"
    paper = "Pfeiffer et al. 2021, arXiv 2005.00247; Pfeiffer et al. 2020, arXiv 2005.00052"
    std = 2e-2  # as BERT starts its linears, and AdapterHub its adapters
    # The papers take 1e-4 for up to 30 epochs; short runs want more (docs/learning-rates.md).
    learning_rates = LearningRates(default=5e-3, low=1e-4, high=1e-2)

    def sites(self, layout: Layout) -> tuple[Site, ...]:
        return tuple(
            Site(
                block=layout.blocks[found.block],
                child="pfeiffer_adapter",
                wiring="residual",
                features=found.writer.outputs,
                writer=found.writer.name,
                norms=norms_of(layout, found.block),
            )
            for found in feed_forwards(layout)
        )


plugin = PfeifferAdapter()
