"""RACE: reading comprehension from English exams (Lai et al. 2017, https://aclanthology.org/D17-1082).

``race`` chooses among four options; ``race-distractors`` writes the three wrong ones (Gao et al. 2019,
https://arxiv.org/abs/1809.02768).
"""

from __future__ import annotations

from adaptlab.config import Prompt
from adaptlab.errors import DataError
from adaptlab.tasks._base import Example, Kind
from adaptlab.tasks._hub import HubTask
from adaptlab.tasks._table import Table

#: Between the texts of the distractors' input and output.
SEPARATOR = " <sep> "


class Race(HubTask):
    """Scored apart for the exams of middle and of high schools."""

    name = "race"
    summary = "reading comprehension from English exams, four options, multiple choice, 87,866 training rows"
    version = 1
    kind: Kind = "multiple-choice"
    metrics: tuple[str, ...] = ("accuracy",)
    hub_id = "ehovy/race"
    hub_config = "all"
    text_columns: tuple[str, ...] = ("article", "question")
    label_column = "answer"
    test_split = "test"
    prompts: tuple[Prompt, ...] = (
        Prompt(name="letter", template="{article}\n\nQuestion: {question}\n{choices}\nAnswer:", answers="{key}"),
        Prompt(name="text", template="Article: {article}\nQuestion: {question}\nAnswer:"),
    )

    def examples(self, split: str, table: Table) -> list[Example]:
        """The options are a list, the answer a letter."""
        columns = [self._column(split, table, name) for name in ("article", "question", "options", "answer")]
        schools = [str(name).rstrip("0123456789.tx") for name in self._column(split, table, "example_id")]
        found = []
        for place, (article, question, options, key) in enumerate(zip(*columns, strict=True)):
            label = "ABCDEFGH".find(key) if key else -1
            if not 0 <= label < len(options):
                raise DataError(f"{self.name}: row {place + 1} of {split} has the answer {key!r}, which is no option.")
            found.append(self.example(f"{split}/{place}", article, question, tuple(options), label, (schools[place],)))
        return found

    def example(
        self, id: str, article: str, question: str, options: tuple[str, ...], label: int, groups: tuple[str, ...]
    ) -> Example:
        """One question about an article."""
        return Example(id, (article, question), label, choices=options, groups=groups)


class RaceDistractors(Race):
    """The wrong options, written from answer, question and article."""

    name = "race-distractors"
    summary = "write three wrong options for an exam question, generation, 87,866 training rows"
    kind = "generation"
    metrics = ("bleu", "rouge_l", "distractors_distinct", "distractors_equal_answer", "distractors_complete")
    text_columns = ("answer", "question", "article")
    prompts = (Prompt(name="sep", template=SEPARATOR.join(["{answer}", "{question}", "{article}"])),)

    def example(
        self, id: str, article: str, question: str, options: tuple[str, ...], label: int, groups: tuple[str, ...]
    ) -> Example:
        """The right option is read, the others are written in their order."""
        wrong = SEPARATOR.join(option for place, option in enumerate(options) if place != label)
        return Example(id, (options[label], question, article), wrong, groups=groups)


plugins = (Race(), RaceDistractors())
