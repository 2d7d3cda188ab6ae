"""What a label column of the user's rows means: classes, numbers or free text, and which."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adaptlab.errors import DataError
from adaptlab.tasks._base import Kind

#: Whole numbers are classes while there are at most this many different ones, each on two rows or more on average.
MOST_WHOLE_NUMBER_CLASSES = 100

_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Meaning:
    """``values`` has class indices, floats or texts by split; ``names`` the classes in order, empty for the others."""

    kind: Kind
    names: tuple[str, ...]
    values: Mapping[str, list[Any]]


def interpret(answers: Mapping[str, list[Any]], names: tuple[str, ...] | None, files: Mapping[str, str]) -> Meaning:
    """Classes, numbers or (where nearly every row has a text of its own) free text, from all splits' labels together.

    Args:
        answers: non-null labels by split: text, numbers or truth values.
        names: the classes, where the file itself says them; the labels are then indices or names.
        files: each split's file name, for messages.

    Raises:
        DataError: a number is not finite, or an index has no name.
    """
    every = [value for values in answers.values() for value in values]
    if names is not None:
        index: dict[Any, int] = {name: i for i, name in enumerate(names)} | {i: i for i in range(len(names))}
        return Meaning("classification", names, _indexed(answers, index, names, files))
    numbers = _numbers(every)
    if numbers is None:
        called = sorted({_text(value) for value in every})
        texts = {split: [_text(value) for value in values] for split, values in answers.items()}
        if len(called) > max(2, len(every) // 2):
            return Meaning("generation", (), texts)
        return Meaning("classification", tuple(called), _indexed(texts, _places(called), called, files))
    different = sorted(set(numbers))
    whole = all(isinstance(number, int) for number in numbers)
    if whole and len(different) <= min(MOST_WHOLE_NUMBER_CLASSES, max(2, len(numbers) // 2)):
        parsed = {split: _numbers(values) or [] for split, values in answers.items()}
        called = [str(number) for number in different]
        return Meaning("classification", tuple(called), _indexed(parsed, _places(different), called, files))
    values = {split: [float(value) for value in found] for split, found in answers.items()}
    for split, found in values.items():
        bad = next((i for i, value in enumerate(found) if not math.isfinite(value)), None)
        if bad is not None:
            raise DataError(f"{files[split]}, row {bad + 1}: the label {found[bad]} is not a finite number.")
    return Meaning("regression", (), values)


def unlabelled(answers: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether every label is -1, as published test sets without labels have it, and no other row has that label."""
    return {str(value) for value in answers} == {"-1"} and "-1" not in {str(value) for value in others}


def _numbers(values: Sequence[Any]) -> list[int | float] | None:
    """The labels as numbers, or ``None`` if one of them is none."""
    if all(isinstance(value, str) for value in values):
        if all(_WHOLE.fullmatch(value) for value in values):
            return [int(value) for value in values]
        if all(_NUMBER.fullmatch(value) for value in values):
            return [float(value) for value in values]
        return None
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return list(values)
    return None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _places(values: Sequence[Any]) -> dict[Any, int]:
    return {value: place for place, value in enumerate(values)}


def _indexed(
    answers: Mapping[str, list[Any]], index: Mapping[Any, int], names: Sequence[str], files: Mapping[str, str]
) -> dict[str, list[int]]:
    for split, values in answers.items():
        bad = next((i for i, value in enumerate(values) if value not in index), None)
        if bad is not None:
            raise DataError(
                f"{files[split]}, row {bad + 1}: the label {values[bad]!r:.60} is none of {', '.join(names)}."
            )
    return {split: [index[value] for value in values] for split, values in answers.items()}
