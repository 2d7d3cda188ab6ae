"""LN tuning: the gains and biases of the norms and the head are trained."""

from __future__ import annotations

from adaptlab.errors import ConfigError
from adaptlab.methods._base import LearningRates, Setup
from adaptlab.methods._selection import SelectionMethod, in_pooler
from adaptlab.models._base import Layout


class LayerNorm(SelectionMethod):
    name = "layer-norm"
    summary = "the gains and biases of the norms, and the head"
    paper = "Qi et al. 2022, arXiv 2211.08682"
    learning_rates = LearningRates(default=1e-2, low=1e-4, high=3e-2)

    def chosen(self, layout: Layout, setup: Setup) -> tuple[str, ...]:
        norms = {layer.name for layer in layout.layers if layer.kind == "norm"}
        head = set(layout.head)
        chosen = tuple(
            name
            for name in layout.parameters
            if layout.owner(name) in norms and name not in head and not in_pooler(name)
        )
        if not chosen:
            raise ConfigError(
                f"This {layout.family} model has no norms with gains or biases, so layer-norm would train nothing but "
                f"the head: choose another method, such as lora."
            )
        return chosen


plugin = LayerNorm()
