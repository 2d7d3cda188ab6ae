"""BitFit: the bias terms and the head are trained. A pretrained pooler stays frozen."""

from __future__ import annotations

from adaptlab.errors import ConfigError
from adaptlab.methods._base import LearningRates, Setup
from adaptlab.methods._selection import SelectionMethod, in_pooler
from adaptlab.models._base import Layout


class BitFit(SelectionMethod):
    name = "bitfit"
    summary = "the bias terms (of linears and norms) and the head"
    paper = "Ben Zaken et al. 2022, arXiv 2106.10199"
    learning_rates = LearningRates(default=6e-3, low=5e-4, high=2e-2)

    def chosen(self, layout: Layout, setup: Setup) -> tuple[str, ...]:
        head = set(layout.head)
        names = (name for name in layout.parameters if name not in head and not in_pooler(name))
        # DeBERTa calls two of its biases q_bias and v_bias.
        chosen = tuple(n for n in names if n.rpartition(".")[2] == "bias" or n.endswith("_bias"))
        if not chosen:
            raise ConfigError(
                f"This {layout.family} model has no bias terms, so bitfit would train nothing but the head: "
                f"choose another method, such as lora."
            )
        return chosen


plugin = BitFit()
