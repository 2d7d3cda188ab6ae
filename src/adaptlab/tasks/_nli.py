"""Prompts for natural language inference, by the names under which studies can be repeated."""

from __future__ import annotations

from collections.abc import Sequence

from adaptlab.config import Prompt

ENTAILMENT, NEUTRAL, CONTRADICTION = NLI_LABELS = ("entailment", "neutral", "contradiction")


def nli_prompts(premise: str, hypothesis: str, labels: Sequence[str]) -> tuple[Prompt, ...]:
    """For columns ``premise`` and ``hypothesis``; with three classes the two-word prompts leave the neutral rows out.

    ``question-mark``, ``yes-or-no`` and ``true-or-false`` are those of few-shot and in-context studies of inference.
    """
    there = {"premise": f"{{{premise}}}", "hypothesis": f"{{{hypothesis}}}"}

    def two(name: str, template: str, yes: str, no: str) -> Prompt:
        word = {label: yes if label == ENTAILMENT else None if label == NEUTRAL else no for label in labels}
        return Prompt(name=name, template=template.format(**there), answers=word)

    asked = (
        two("true-or-false", "{premise}\nQuestion: {hypothesis} True or False?\nAnswer:", "True", "False"),
        two("yes-or-no", "{premise} question: {hypothesis} Yes or No? answer:", "Yes", "No"),
        two("question-mark", "{premise} {hypothesis}?", "Yes", "No"),
    )
    if NEUTRAL not in labels:
        return asked
    words = {ENTAILMENT: "True", NEUTRAL: "Neither", CONTRADICTION: "False"}
    template = "{premise}\nQuestion: {hypothesis} True, False or neither?\nAnswer:".format(**there)
    return (Prompt(name="true-false-neither", template=template, answers=words), *asked)
