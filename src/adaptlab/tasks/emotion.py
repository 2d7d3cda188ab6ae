"""Six emotions in English tweets (Saravia et al. 2018, https://aclanthology.org/D18-1404)."""

from __future__ import annotations

from adaptlab.config import Prompt
from adaptlab.tasks._hub import HubTask


class Emotion(HubTask):
    name = "emotion"
    summary = "which of six emotions does a tweet tell? 6 classes, 16,000 training rows"
    version = 1
    kind = "classification"
    metrics = ("accuracy", "macro_f1")
    hub_id = "dair-ai/emotion"
    hub_config = "split"
    text_columns = ("text",)
    labels = ("sadness", "joy", "love", "anger", "fear", "surprise")
    test_split = "test"
    prompts = (
        Prompt(name="feeling", template="{text}\nWhat this person feels is", answers=labels),
        Prompt(name="text-to-text", template="emotion: {text}", answers=labels),
    )


plugin = Emotion()
