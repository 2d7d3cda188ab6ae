"""Nothing is trained: the language model as it is, with or without demonstrations in its prompt."""

from __future__ import annotations

from adaptlab.errors import ConfigError
from adaptlab.methods._base import LearningRates, Setup
from adaptlab.methods._selection import SelectionMethod
from adaptlab.models._base import Layout


class Nothing(SelectionMethod):
    name = "none"
    summary = "nothing: zero-shot, or in-context learning with --shots"
    paper = "Brown et al. 2020, arXiv 2005.14165"
    placement = "nothing"
    trains = False
    learning_rates = LearningRates(default=1.0, low=1.0, high=1.0)  # of no step

    def chosen(self, layout: Layout, setup: Setup) -> tuple[str, ...]:
        if layout.head:
            raise ConfigError(
                "The method none trains nothing, and a new head is random: use --readout verbalizer or generate."
            )
        return ()


plugin = Nothing()
