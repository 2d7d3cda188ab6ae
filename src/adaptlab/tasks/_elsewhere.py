"""Rows from elsewhere: report sets of other tasks, and how a run's classes are read as theirs.

Nothing is mapped silently: what each class counts as is in the run's record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from adaptlab.errors import ConfigError
from adaptlab.tasks._base import Example, OutOfDomain, TaskData
from adaptlab.tasks._splits import fingerprint, normalised

#: Families of label spaces: what each class is called, and which of two classes it is when they have to be made alike.
FAMILIES: tuple[Mapping[str, str], ...] = (
    {
        "entailment": "entailment",
        "neutral": "not_entailment",
        "contradiction": "not_entailment",
        "not_entailment": "not_entailment",
        "non-entailment": "not_entailment",
    },
    {"not_duplicate": "different", "duplicate": "same", "not_equivalent": "different", "equivalent": "same"},
    {"negative": "negative", "neg": "negative", "positive": "positive", "pos": "positive"},
)


@dataclass(frozen=True, slots=True)
class Mapped:
    """Two label spaces made one.

    Attributes:
        labels: the classes that are scored.
        of_answer: for each class of the run, the place in ``labels`` that it counts as.
        of_gold: the same for each class of the rows.
    """

    labels: tuple[str, ...]
    of_answer: tuple[int, ...]
    of_gold: tuple[int, ...]

    def in_words(self, answered: Sequence[str], asked: Sequence[str]) -> dict[str, str]:
        """Class of the run or of the rows -> class that is scored; empty where each of the run's counts as itself."""
        if self.labels == tuple(answered):
            return {}
        pairs = [*zip(answered, self.of_answer, strict=True), *zip(asked, self.of_gold, strict=True)]
        return {label: self.labels[place] for label, place in pairs}


def map_labels(answered: Sequence[str], asked: Sequence[str]) -> Mapped | None:
    """How classes ``answered`` by a run are scored on rows with classes ``asked``; ``None`` where they cannot be.

    Rows whose classes the run knows by name are scored as they are. Else both are read as two classes, if one of
    ``FAMILIES`` has them all; those two are called as the rows call them where the rows have two.
    """
    if bool(answered) != bool(asked):  # a number is asked for on one side
        return None
    if set(asked) <= set(answered):
        places = {label: place for place, label in enumerate(answered)}
        return Mapped(tuple(answered), tuple(range(len(answered))), tuple(places[label] for label in asked))
    family = next((family for family in FAMILIES if {*answered, *asked} <= set(family)), None)
    if family is None:
        return None
    coarse = tuple(dict.fromkeys(family[label] for label in asked))
    if not {family[label] for label in answered} <= set(coarse):
        coarse = tuple(dict.fromkeys(family.values()))
    of_answer = tuple(coarse.index(family[label]) for label in answered)
    of_gold = tuple(coarse.index(family[label]) for label in asked)
    own_names = len(asked) == len(coarse) and of_gold == tuple(range(len(asked)))
    return Mapped(tuple(asked) if own_names else coarse, of_answer, of_gold)


def add_elsewhere(data: TaskData, name: str, task: str, looked: TaskData) -> TaskData:
    """``data`` with the rows of ``looked`` as the report set ``name``.

    Raises:
        ConfigError: its rows cannot be answered by a run on ``data``; says what differs.
    """
    (rows,) = looked.report.values()
    if name in ("train", "select", *data.report):
        raise ConfigError(f"--also-evaluate {task}: there is already a set called '{name}'; give each another name.")
    if looked.kind != data.kind:
        raise ConfigError(f"--also-evaluate {task}: it is {looked.kind}, and the task is {data.kind}.")
    if len(looked.columns) != len(data.columns):
        raise ConfigError(
            f"--also-evaluate {task}: its rows have {len(looked.columns)} texts ({', '.join(looked.columns)}), those "
            f"of the task {len(data.columns)} ({', '.join(data.columns)})."
        )
    mapped = map_labels(data.labels, looked.labels)
    if mapped is None:
        raise ConfigError(
            f"--also-evaluate {task}: its classes {', '.join(looked.labels)} are none of the task's "
            f"({', '.join(data.labels)}), and nothing is known that makes them alike."
        )
    examples = [replace(row, label=mapped.of_gold[int(row.label)]) for row in rows] if looked.labels else list(rows)
    out = OutOfDomain(
        task=task,
        source=looked.source,
        revision=looked.revision,
        labels=mapped.labels,
        of_answer=None if mapped.labels == data.labels else mapped.of_answer,
        metrics=tuple(dict.fromkeys((*looked.metrics, *data.metrics))),
        mapping=mapped.in_words(data.labels, looked.labels),
    )
    marks = [data.fingerprint, [*mapped.labels], [*mapped.of_answer]]
    return replace(
        data,
        report={**data.report, name: examples},
        out_of_domain={**data.out_of_domain, name: out},
        fingerprint=fingerprint(data.kind, [str(mark) for mark in marks], {name: examples}),
        warnings=(*data.warnings, *_overlap(name, examples, data.train)),
    )


def _overlap(name: str, rows: Sequence[Example], train: Sequence[Example]) -> list[str]:
    trained = {normalised(row) for row in train}
    count = sum(normalised(row) in trained for row in rows)
    return [f"{count} of {len(rows)} rows of {name} have the same text as a training row."] if count else []
