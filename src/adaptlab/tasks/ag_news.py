"""AG News: which desk does a news item belong to? (Zhang et al. 2015, https://arxiv.org/abs/1509.01626)."""

from __future__ import annotations

from adaptlab.config import Prompt
from adaptlab.tasks._hub import HubTask


class AgNews(HubTask):
    name = "ag_news"
    summary = "which desk does a news item belong to? 4 classes, 120,000 training rows"
    version = 1
    kind = "classification"
    metrics = ("accuracy", "macro_f1")
    hub_id = "fancyzhx/ag_news"
    text_columns = ("text",)
    labels = ("World", "Sports", "Business", "Sci/Tech")
    validation_split = None
    test_split = "test"
    prompts = (
        Prompt(name="topic", template="{text}\nTopic:", answers=labels),
        Prompt(
            name="topic-sentence",
            template="{text}",
            answers=tuple(f"The topic of the article is: {label}" for label in labels),
        ),
    )


plugin = AgNews()
