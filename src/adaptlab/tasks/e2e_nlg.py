"""E2E NLG: a restaurant's facts as a sentence (Novikova et al. 2017, https://aclanthology.org/W17-5525)."""

from __future__ import annotations

from dataclasses import replace

from adaptlab.config import Prompt
from adaptlab.tasks._base import Example
from adaptlab.tasks._hub import HubTask
from adaptlab.tasks._table import Table


class E2eNlg(HubTask):
    """Facts train once for each way in which people worded them; they are asked once, every wording a reference."""

    name = "e2e_nlg"
    summary = "put a restaurant's facts into words, generation, 42,061 training rows"
    version = 1
    kind = "generation"
    metrics = ("bleu", "chrf", "rouge_l")
    hub_id = "tuetschek/e2e_nlg"
    text_columns = ("meaning_representation",)
    label_column = "human_reference"
    test_split = "test"
    prompts = (
        Prompt(name="facts", template="{meaning_representation}\nIn words:"),
        Prompt(name="text-to-text", template="translate facts to text: {meaning_representation}"),
    )

    def examples(self, split: str, table: Table) -> list[Example]:
        """Training rows as they are; of the other splits one row for each meaning."""
        rows = super().examples(split, table)
        if split == self.train_split:
            return rows
        wordings: dict[tuple[str, ...], dict[str, None]] = {}
        for row in rows:
            wordings.setdefault(row.texts, {})[str(row.label)] = None
        first = {row.texts: row for row in reversed(rows)}
        return [replace(first[texts], references=tuple(references)) for texts, references in wordings.items()]


plugin = E2eNlg()
