"""Prompts: a row as the text that a language model reads, and its answers as the text that follows.

Where question and answer meet is what lm-evaluation-harness does: the question carries no trailing white space, each
answer begins with it (one space, unless the template ends with something else).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from string import ascii_uppercase

from adaptlab.config import Prompt, Words
from adaptlab.errors import ConfigError, near_matches
from adaptlab.tasks._base import Example, Kind

__all__ = [
    "Prompt",
    "Rendered",
    "choose_prompt",
    "demonstrate",
    "fit_prompt",
    "plain_prompts",
    "prompt_digest",
    "render",
]

#: What answers' templates may name besides columns, by kind.
_ANSWER_FIELDS: Mapping[str, tuple[str, ...]] = {"multiple-choice": ("key", "text"), "generation": ("label",)}
_PIECE = re.compile(r"(\{\{|\}\})|\{([^{}]+)\}|([{}])")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row for a language model.

    Attributes:
        query: the text up to where the answer begins, without trailing white space.
        answers: what may follow, with the white space it begins with: one for each class or option; empty for
            generation and regression.
        target: what should follow. Meaningless where a row has no label.
    """

    query: str
    answers: tuple[str, ...]
    target: str


def render(prompt: Prompt, columns: Sequence[str], example: Example) -> Rendered:
    """``example`` as ``prompt`` puts it.

    Args:
        prompt: one of ``TaskData.prompts``, or what :func:`fit_prompt` gives.
        columns: names of ``example.texts``.

    Raises:
        ConfigError: the prompt names something that the row does not have.
    """
    values = dict(zip(columns, example.texts, strict=True))
    options = [
        {"key": ascii_uppercase[place], "text": text}
        for place, text in enumerate(example.choices[: len(ascii_uppercase)])
    ]
    shown = values
    if options:
        lines = [_filled(prompt, prompt.choice, {**values, **option}) for option in options]
        shown = {**values, "choices": "\n".join(lines)}
    query = _filled(prompt, prompt.template, shown).rstrip()
    gap = prompt.template[len(prompt.template.rstrip()) :] or " "
    answers: tuple[str, ...] = ()
    if options:
        line = prompt.answers if isinstance(prompt.answers, str) else "{text}"
        answers = tuple(gap + _filled(prompt, line, {**values, **option}) for option in options)
    elif isinstance(prompt.answers, tuple):
        answers = tuple(gap + (word or "") for word in prompt.answers)
    if answers:
        target = answers[int(example.label)]
    else:
        text = example.label if isinstance(example.label, str) else f"{float(example.label):.1f}"
        line = prompt.answers if isinstance(prompt.answers, str) else "{label}"
        target = gap + _filled(prompt, line, {**values, "label": text})
    return Rendered(query, answers, target)


def demonstrate(prompt: Prompt, columns: Sequence[str], example: Example) -> str:
    """``example`` with its answer and, where it has one, why it is right.

    Raises:
        ConfigError: as :func:`render`.
    """
    shown = render(prompt, columns, example)
    line = prompt.explanation
    if isinstance(line, tuple):
        line = line[int(example.label)]
    if line is None:
        line = "\nExplanation: {explanation}" if example.explanation else ""
    assert isinstance(line, str)
    values = dict(zip(columns, example.texts, strict=True)) | {"label": shown.target.strip()}
    if "explanation" in _fields(line) and not example.explanation:
        line = ""
    return shown.query + shown.target + _filled(prompt, line, {**values, "explanation": example.explanation})


def fit_prompt(prompt: Prompt, kind: Kind, columns: Sequence[str], labels: Sequence[str]) -> Prompt:
    """``prompt`` with complete answers for a task: a word for each of ``labels``, or a template.

    Raises:
        ConfigError: it names a column that there is not, lacks a class, or has an empty or repeated word; every
            problem, a sentence each.
    """
    choices = ("choices",) if kind == "multiple-choice" else ()
    problems = [*_wrong_fields(prompt, "template", prompt.template, (*columns, *choices))]
    if choices:
        problems += _wrong_fields(prompt, "choice", prompt.choice, (*columns, "key", "text"))
    answers: tuple[str | None, ...] | str | None = None
    if kind == "classification":
        words, wrong = _words(prompt, labels)
        problems += wrong
        answers = words
    elif isinstance(prompt.answers, str):
        problems += _wrong_fields(prompt, "answers", prompt.answers, (*columns, *_ANSWER_FIELDS.get(kind, ("label",))))
        answers = prompt.answers
    elif prompt.answers is not None:
        problems.append(f"The prompt '{prompt.name}' lists answers, and a {kind} task has no classes: give a template.")
    explanation, wrong = _explanations(prompt, labels if kind == "classification" else ())
    problems += wrong
    for line in explanation if isinstance(explanation, tuple) else (explanation,):
        problems += _wrong_fields(prompt, "explanation", str(line or ""), (*columns, "label", "explanation"))
    if problems:
        raise ConfigError(problems)
    return prompt.model_copy(update={"answers": answers, "explanation": explanation})


def choose_prompt(prompts: Sequence[Prompt], name: str, task: str) -> Prompt:
    """The prompt called ``name``.

    Raises:
        ConfigError: ``task`` has none of this name; the message has those it has.
    """
    for prompt in prompts:
        if prompt.name == name:
            return prompt
    names = [prompt.name for prompt in prompts]
    close = near_matches(name, names, most=1)
    hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(names) or 'none'}."
    raise ConfigError(f"The task '{task}' has no prompt '{name}': {hint}")


def plain_prompts(columns: Sequence[str], asked: str = "label", *, written: Sequence[str] = ()) -> tuple[Prompt, ...]:
    """For rows about which nothing is known: the texts, a line each after its column's name, then what is asked for.

    None for columns with braces in their names, which no template can name.

    Args:
        written: answers as they are to be written; what ends one is a line break, or an empty line where some have
            several lines, or nothing where some have empty lines.
    """
    if any(brace in column for column in (*columns, asked) for brace in "{}"):
        return ()
    lines = [f"{column}: {{{column}}}" for column in columns]
    stop = next(([end] for end in ("\n", "\n\n") if not any(end in text for text in written)), [])
    return (Prompt(name="plain", template="\n".join([*lines, f"{asked}:"]), stop=tuple(stop)),)


def prompt_digest(prompt: Prompt) -> str:
    """``"sha256:..."`` over everything that ``prompt`` says, and not over its name."""
    unsaid = {"explanation"} if prompt.explanation is None else set()  # prompts from before there were any
    document = prompt.model_dump(mode="json", exclude={"name", *unsaid})
    return f"sha256:{hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()}"


def _words(prompt: Prompt, labels: Sequence[str]) -> tuple[tuple[str | None, ...], list[str]]:
    """The word of each label and what is wrong with them."""
    given = prompt.answers
    if given is None:
        return tuple(labels), []
    if isinstance(given, str):
        return (), [f"The prompt '{prompt.name}' has one text for answers: give a word for each of {_listed(labels)}."]
    given, wrong = _by_class(prompt, given, labels, "answer")
    if wrong:
        return (), wrong
    used = [word.strip() for word in given if word is not None]
    problems = [
        f"The prompt '{prompt.name}' has an empty answer for '{label}': give a word, or null to leave the class out."
        for label, word in zip(labels, given, strict=True)
        if word is not None and not word.strip()
    ]
    problems += [
        f"The prompt '{prompt.name}' has the answer '{word}' for more than one class: give each its own."
        for word in sorted({word for word in used if word and used.count(word) > 1})
    ]
    if len(used) < 2:
        problems.append(f"The prompt '{prompt.name}' leaves {len(used)} of {len(labels)} classes: keep at least two.")
    return tuple(given), problems


def _explanations(prompt: Prompt, labels: Sequence[str]) -> tuple[Words, list[str]]:
    """A template for every class, one for each, or ``None``; and what is wrong with them."""
    given = prompt.explanation
    if given is None or isinstance(given, str):
        return given, []
    if not labels:
        return None, [
            f"The prompt '{prompt.name}' has explanations by class, and the task has none: give one template."
        ]
    return _by_class(prompt, given, labels, "explanation")


def _by_class(
    prompt: Prompt, given: tuple[str | None, ...] | Mapping[str, str | None], labels: Sequence[str], what: str
) -> tuple[tuple[str | None, ...], list[str]]:
    """What is given for each of ``labels``, in their order, and what is wrong with it."""
    if isinstance(given, Mapping):
        strangers = [f"'{label}'" for label in given if label not in labels]
        missing = [f"'{label}'" for label in labels if label not in given]
        if strangers or missing:
            said = [f"has {what}s for {', '.join(strangers)}"] if strangers else []
            said += [f"has no {what} for {', '.join(missing)}"] if missing else []
            return (), [f"The prompt '{prompt.name}' {' and '.join(said)}: the classes are {_listed(labels)}."]
        given = tuple(given[label] for label in labels)
    if len(given) != len(labels):
        return (), [
            f"The prompt '{prompt.name}' has {len(given)} {what}s for the {len(labels)} classes {_listed(labels)}: "
            "give one for each, in this order."
        ]
    return given, []


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels)


def _wrong_fields(prompt: Prompt, where: str, template: str, allowed: Sequence[str]) -> Iterator[str]:
    for _, field in _pieces(template):
        if field in ("{", "}"):
            yield f"The prompt '{prompt.name}' has a single '{field}' in its {where}: write {field * 2} for a brace."
        elif field is not None and field not in allowed:
            yield (
                f"The prompt '{prompt.name}' names the column '{field}' in its {where}: there are {_listed(allowed)}."
            )


def _fields(template: str) -> set[str | None]:
    return {field for _, field in _pieces(template)}


def _filled(prompt: Prompt, template: str, values: Mapping[str, str]) -> str:
    try:
        return "".join(text if field is None else values[field] for text, field in _pieces(template))
    except KeyError as error:
        raise ConfigError(
            f"The prompt '{prompt.name}' names the column '{error.args[0]}': there are {_listed(list(values))}."
        ) from None


@cache
def _pieces(template: str) -> tuple[tuple[str, str | None], ...]:
    """``(text, None)`` or ``("", field)``, in order; a single brace is a field, which no row has."""
    pieces: list[tuple[str, str | None]] = []
    end = 0
    for match in _PIECE.finditer(template):
        if match.start() > end:
            pieces.append((template[end : match.start()], None))
        doubled, field, single = match.groups()
        pieces.append((doubled[0], None) if doubled else ("", field or single))
        end = match.end()
    pieces.append((template[end:], None))
    return tuple(pieces)
