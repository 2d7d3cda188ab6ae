"""Film reviews, for or against (Maas et al. 2011, https://aclanthology.org/P11-1015)."""

from __future__ import annotations

from adaptlab.config import Prompt
from adaptlab.tasks._hub import HubTask


class Imdb(HubTask):
    name = "imdb"
    summary = "is a film review for or against? 2 classes, 25,000 training rows"
    version = 1
    kind = "classification"
    metrics = ("accuracy",)
    hub_id = "stanfordnlp/imdb"
    hub_config = "plain_text"
    text_columns = ("text",)
    labels = ("neg", "pos")
    validation_split = None
    test_split = "test"
    prompts = (Prompt(name="sentiment", template="Review: {text}\nSentiment:", answers=("negative", "positive")),)


plugin = Imdb()
