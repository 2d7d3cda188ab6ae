"""Sentiment of financial news (Malo et al. 2014, https://arxiv.org/abs/1307.5336), by how many annotators agree.

There is one published set of rows a level: it is divided 80/10/10 by a hash of the rows' places, the same everywhere.
"""

from __future__ import annotations

from adaptlab.config import Prompt
from adaptlab.tasks._hub import HubTask


class FinancialPhrasebank(HubTask):
    """What the four levels have in common."""

    version = 1
    kind = "classification"
    metrics = ("accuracy", "macro_f1")
    hub_id = "takala/financial_phrasebank"
    text_columns = ("sentence",)
    labels = ("negative", "neutral", "positive")
    validation_split = None
    prompts = (
        Prompt(name="sentiment", template="News: {sentence}\nFor investors this is", answers=labels),
        Prompt(name="text-to-text", template="sentiment: {sentence}", answers=labels),
    )


def _level(agreement: str, share: str, rows: str) -> FinancialPhrasebank:
    task = FinancialPhrasebank()
    task.name = f"financial_phrasebank-{agreement}"
    task.hub_config = f"sentences_{agreement}"
    task.summary = f"sentiment of financial news, {share} of the annotators agree, 3 classes, {rows} rows in all"
    return task


plugins = (
    _level("50agree", "more than 50 %", "4,846"),
    _level("66agree", "more than 66 %", "4,217"),
    _level("75agree", "more than 75 %", "3,453"),
    _level("allagree", "all", "2,264"),
)
