"""A row as a language model reads it: where question and answer meet, and what a prompt may not say."""

from __future__ import annotations

import re
from typing import Any

import pytest

from adaptlab.config import Prompt, RunConfig, RunIdentity, run_id
from adaptlab.errors import ConfigError
from adaptlab.tasks import Example, Kind
from adaptlab.tasks._prompts import choose_prompt, fit_prompt, prompt_digest, render

PAIR = ("q1", "q2")
LABELS = ("no", "yes")


def prompt(template: str = "{q1} {q2}", **more: Any) -> Prompt:
    return Prompt(name="mine", template=template, **more)


def row(*texts: str, label: int | float | str = 1, **more: Any) -> Example:
    return Example("0", texts, label, **more)


@pytest.mark.parametrize(
    ("template", "query", "answer"),
    [
        ("{q1} and {q2}?\nAnswer:", "a and b?\nAnswer:", " Yes"),
        ("{q1} and {q2}? Answer: ", "a and b? Answer:", " Yes"),
        ("{q1}\n{q2}\n\n", "a\nb", "\n\nYes"),
        ("{{{q1}}} {{}} {q2}", "{a} {} b", " Yes"),
    ],
)
def test_the_answer_begins_with_the_white_space_that_the_question_ends_with(
    template: str, query: str, answer: str
) -> None:
    found = render(prompt(template, answers=("No", "Yes")), PAIR, row("a", "b"))
    assert (found.query, found.answers[1], found.target) == (query, answer, answer)


def test_white_space_at_the_end_of_a_text_is_not_the_template_s() -> None:
    found = render(prompt("{text}", answers=("No", "Yes")), ("text",), row("a line \n\n"))
    assert (found.query, found.target) == ("a line", " Yes")


def test_braces_in_a_text_stay() -> None:
    assert render(prompt("{q1}{q2}", answers=("a", "b")), PAIR, row("{q2}", "}{")).query == "{q2}}{"


def test_options_are_listed_and_each_is_an_answer() -> None:
    asked = prompt("{q}\n{choices}\nAnswer:", choice="{key}) {text}", answers="{key} - {text}")
    found = render(asked, ("q",), row("Where?", label=1, choices=("here", "there")))
    assert found.query == "Where?\nA) here\nB) there\nAnswer:"
    assert found.answers == (" A - here", " B - there")
    assert found.target == " B - there"


def test_without_answers_an_option_s_text_is_the_answer() -> None:
    assert render(prompt("{q}"), ("q",), row("?", label=0, choices=("x", "y"))).answers == (" x", " y")


def test_generation_is_answered_with_the_label_or_a_template_around_it() -> None:
    assert render(prompt("{q}\n"), ("q",), row("?", label="so")).target == "\nso"
    found = render(prompt("{q}", answers="It is {label}, says {q}."), ("q",), row("she", label="so"))
    assert (found.answers, found.target) == ((), " It is so, says she.")


def test_a_number_is_answered_with_one_decimal() -> None:
    assert render(prompt("{q}"), ("q",), row("?", label=3.75)).target == " 3.8"


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("classification", {"template": "{q3}"}, "names the column 'q3' in its template: there are q1, q2."),
        ("multiple-choice", {"template": "{q3}"}, "names the column 'q3' in its template: there are q1, q2, choices."),
        ("multiple-choice", {"choice": "{letter}"}, "names the column 'letter' in its choice: there are q1, q2, key"),
        ("generation", {"answers": "{gold}"}, "names the column 'gold' in its answers: there are q1, q2, label."),
        ("generation", {"answers": ["a", "b"]}, "lists answers, and a generation task has no classes"),
        ("classification", {"template": "{q1} }"}, "has a single '}' in its template: write }} for a brace."),
        ("classification", {"answers": ["No", " "]}, "has an empty answer for 'yes': give a word, or null"),
        ("classification", {"answers": {"no": "", "yes": "Y"}}, "has an empty answer for 'no'"),
        ("classification", {"answers": ["No"]}, "has 1 answers for the 2 classes no, yes"),
        ("classification", {"answers": ["Y", "Y"]}, "has the answer 'Y' for more than one class"),
        ("classification", {"answers": "{label}"}, "has one text for answers: give a word for each of no, yes."),
        ("classification", {"answers": {"yes": "Y"}}, "has no answer for 'no': the classes are no, yes."),
        ("classification", {"answers": {"no": "N", "yes": "Y", "si": "S"}}, "has answers for 'si': the classes are no"),
        ("classification", {"answers": ["No", None]}, "leaves 1 of 2 classes: keep at least two."),
    ],
)
def test_what_does_not_fit_is_said(kind: Kind, given: dict[str, Any], message: str) -> None:
    labels = LABELS if kind == "classification" else ()
    with pytest.raises(ConfigError, match=f"The prompt 'mine' .*{re.escape(message)}"):
        fit_prompt(prompt(**given), kind, PAIR, labels)


def test_answers_by_class_name_stand_in_the_order_of_the_classes() -> None:
    assert fit_prompt(prompt(answers={"yes": "Y", "no": "N"}), "classification", PAIR, LABELS).answers == ("N", "Y")
    assert fit_prompt(prompt(), "classification", PAIR, LABELS).answers == LABELS


def test_numbers_as_classes_and_words_are_words() -> None:
    assert prompt(answers={0: 1, 1: 2}).answers == {"0": "1", "1": "2"}


def test_a_name_that_there_is_not_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match=r"The task 't' has no prompt 'mien': did you mean 'mine'"):
        choose_prompt([prompt()], "mien", "t")
    with pytest.raises(ConfigError, match=r"The task 't' has no prompt 'x': it has none."):
        choose_prompt([], "x", "t")


def test_what_a_prompt_says_makes_another_run_and_its_name_does_not() -> None:
    def id_of(written: Prompt | None) -> str:
        task = {"name": "t", **({} if written is None else {"prompt": written.name, "prompts": [written]})}
        run = RunConfig.model_validate({"model": {"id": "m"}, "task": task, "method": {"name": "none"}})
        digest = None if written is None else prompt_digest(written)
        return run_id(run, RunIdentity(weights="w", data="d", task="t", task_version=1, prompt=digest))

    named = prompt().model_copy(update={"name": "other"})
    assert id_of(prompt()) == id_of(named)
    assert len({id_of(None), id_of(prompt()), id_of(prompt("{q2} {q1}")), id_of(prompt(stop=()))}) == 4


def test_a_head_s_id_is_the_one_it_always_was() -> None:
    """Runs of before prompts were there are found again."""
    run = RunConfig.model_validate({"model": {"id": "m"}, "task": {"name": "t"}, "method": {"name": "head"}})
    identity = RunIdentity(weights="sha256:1", data="sha256:2", task="t", task_version=1)
    assert run_id(run, identity) == "ebd64064423f6fe9f0488818422259e24bb2fb1dfa01abd8be072f38c3e93a88"
