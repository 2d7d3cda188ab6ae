"""CommonsenseQA: questions with five options each (Talmor et al. 2019, https://aclanthology.org/N19-1421)."""

from __future__ import annotations

from adaptlab.config import Prompt
from adaptlab.errors import DataError
from adaptlab.tasks._base import Example
from adaptlab.tasks._hub import HubTask
from adaptlab.tasks._table import Table


class CommonsenseQa(HubTask):
    """The test labels are not public, so validation is halved into selection and report."""

    name = "commonsense_qa"
    summary = "questions of common sense, five options each, multiple choice, 9,741 training rows"
    version = 1
    kind = "multiple-choice"
    metrics = ("accuracy",)
    hub_id = "tau/commonsense_qa"
    text_columns = ("question",)
    label_column = "answerKey"
    prompts = (
        Prompt(name="letter", template="{question}\n{choices}\nAnswer:", answers="{key}"),
        Prompt(
            name="key-and-text",
            template="The question is: {question}\nThe possible answers are: \n{choices}",
            choice="{key} - {text}",
            answers="The correct answer for the question is: {key} - {text}",
        ),
        Prompt(name="text", template="Question: {question}\nAnswer:"),
    )

    def examples(self, split: str, table: Table) -> list[Example]:
        """The options are ``{"label": ["A", ...], "text": [...]}``, the answer one of those labels."""
        questions, choices = (self._column(split, table, name) for name in ("question", "choices"))
        found = []
        for place, (question, options, key) in enumerate(
            zip(questions, choices, self._column(split, table, self.label_column), strict=True)
        ):
            if key not in options["label"]:
                raise DataError(f"{self.name}: row {place + 1} of {split} has the answer {key!r}, which is no option.")
            label = options["label"].index(key)
            found.append(Example(f"{split}/{place}", (question,), label, choices=tuple(options["text"])))
        return found


plugin = CommonsenseQa()
