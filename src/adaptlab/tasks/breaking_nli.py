"""Breaking NLI: one word differs (Glockner et al. 2018, https://aclanthology.org/P18-2103). Only for looking at."""

from __future__ import annotations

from adaptlab.tasks._hub import HubTask
from adaptlab.tasks._nli import NLI_LABELS, nli_prompts


class BreakingNli(HubTask):
    """Scored apart for each kind of word that was exchanged."""

    name = "breaking-nli"
    summary = "inference where one word differs, 3 classes, 8,193 rows, for --also-evaluate; from a data root"
    version = 1
    kind = "classification"
    metrics = ("accuracy",)
    hub_id = "breaking_nli"
    text_columns = ("premise", "hypothesis")
    labels = NLI_LABELS
    group_columns = ("category",)
    trainable = False
    train_split = validation_split = None
    test_split = "test"
    prompts = nli_prompts("premise", "hypothesis", labels)


plugin = BreakingNli()
