"""MED: entailment by monotonicity (Yanaka et al. 2019, https://aclanthology.org/W19-4804). Only for looking at."""

from __future__ import annotations

from collections.abc import Sequence

from adaptlab.tasks._hub import HubTask
from adaptlab.tasks._nli import nli_prompts
from adaptlab.tasks._table import Table

#: What a row's genre says about it that is scored apart: the direction of the inference, and the phenomenon.
PARTS = (
    "upward_monotone",
    "downward_monotone",
    "non_monotone",
    "conditionals",
    "conjunction",
    "disjunction",
    "lexical_knowledge",
    "npi",
    "reverse",
)


class Med(HubTask):
    """Two classes, as in the paper: what is not entailed may be neutral or contradicted."""

    name = "med"
    summary = "inference by monotonicity, 2 classes, 5,382 rows, for --also-evaluate; from a data root"
    version = 1
    kind = "classification"
    metrics = ("accuracy",)
    hub_id = "med"
    text_columns = ("premise", "hypothesis")
    labels = ("entailment", "not_entailment")
    renamed = {"neutral": "not_entailment", "contradiction": "not_entailment"}
    group_columns = ("genre",)
    trainable = False
    train_split = validation_split = None
    test_split = "test"
    prompts = nli_prompts("premise", "hypothesis", labels)

    def groups(self, split: str, table: Table) -> Sequence[tuple[str, ...]]:
        """The parts of the genre, e.g. ``crowd:downward_monotone:npi``, that are scored apart."""
        genres = (set(genre.split(":")) for (genre,) in super().groups(split, table))
        return [tuple(part for part in PARTS if part in genre) for genre in genres]


plugin = Med()
