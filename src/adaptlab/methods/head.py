"""Only the head is trained: a linear probe (or the architecture's own head) on frozen features."""

from __future__ import annotations

from adaptlab.errors import ConfigError
from adaptlab.methods._base import LearningRates, Setup
from adaptlab.methods._selection import SelectionMethod
from adaptlab.models._base import Layout


class Head(SelectionMethod):
    name = "head"
    summary = "the classification head alone, on frozen features"
    paper = "Alain and Bengio 2016, arXiv 1610.01644"
    placement = "nothing"
    learning_rates = LearningRates(default=2e-2, low=1e-3, high=1e-1)

    def chosen(self, layout: Layout, setup: Setup) -> tuple[str, ...]:
        if setup.head != "trained" or not layout.head:
            given = f"--head {setup.head} was given" if layout.head else "this readout has no head"
            raise ConfigError(f"The method head trains the head and nothing else, but {given}: choose another method.")
        return ()


plugin = Head()
