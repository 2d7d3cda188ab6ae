"""HANS: can a model tell entailment from shared words? (McCoy et al. 2019, https://aclanthology.org/P19-1334)."""

from __future__ import annotations

from collections.abc import Sequence

from adaptlab.tasks._hub import HubTask
from adaptlab.tasks._nli import nli_prompts
from adaptlab.tasks._table import Table


class Hans(HubTask):
    """Scored apart for each heuristic, each heuristic with each answer, and each of the 30 subcases."""

    name = "hans"
    summary = "does the premise entail the hypothesis, where shared words mislead? 2 classes, 30,000 training rows"
    version = 1
    kind = "classification"
    metrics = ("accuracy",)
    hub_id = "jhu-cogsys/hans"
    text_columns = ("premise", "hypothesis")
    labels = ("entailment", "non-entailment")
    group_columns = ("heuristic", "subcase")
    prompts = nli_prompts("premise", "hypothesis", labels)

    def groups(self, split: str, table: Table) -> Sequence[tuple[str, ...]]:
        """Heuristic, heuristic with the right answer, subcase."""
        answers = (self.labels[int(label)] for label in self._labels(split, table))
        return [
            (heuristic, f"{heuristic}/{answer}", subcase)
            for (heuristic, subcase), answer in zip(super().groups(split, table), answers, strict=True)
        ]


plugin = Hans()
