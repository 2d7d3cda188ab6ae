"""Who trains, who selects, who is looked at once (docs/fairness.md, rule 1).

Every choice of rows is by a hash of seed and row id, not by a random generator: it is the same on every machine and
for every version of every library, and the first hundred rows of a choice are among its first thousand.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from adaptlab.config import CountOrAll, Prompt, TaskConfig
from adaptlab.errors import ConfigError, DataError
from adaptlab.tasks._base import Example, Kind, TaskData
from adaptlab.tasks._prompts import choose_prompt, fit_prompt

#: Train + test: this share of the training rows selects, but never more than this many rows.
SELECT_SHARE, SELECT_MOST = 0.1, 2000
#: One file: this share selects, and as much again is reported.
HELD_OUT_SHARE = 0.1
#: Fewer rows than this cannot be divided by the shares above.
FEWEST_ROWS = 10


@dataclass(frozen=True, slots=True)
class Published:
    """A task's labelled rows in the splits they come in.

    Attributes:
        validation: empty where there is none; halved where there is no ``test``.
        test: empty where there is none, or where its labels are not for use (all of GLUE).
        report_name: how the report set is called in records.
        more: evaluation sets that are reported besides, by name.
        unlabelled: rows without answers, beside those that are in none of the training rows asked for.
    """

    train: Sequence[Example]
    validation: Sequence[Example] = ()
    test: Sequence[Example] = ()
    report_name: str = "test"
    more: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    unlabelled: Sequence[Example] = ()


@dataclass(frozen=True, slots=True)
class Divided:
    """Rows by use. ``report``'s first set is the primary one."""

    train: list[Example]
    select: list[Example]
    report: dict[str, list[Example]]
    warnings: list[str]


def assemble(
    published: Published,
    *,
    kind: Kind,
    labels: tuple[str, ...],
    metrics: tuple[str, ...],
    config: TaskConfig,
    source: str,
    columns: tuple[str, ...],
    prompts: tuple[Prompt, ...] = (),
    revision: str | None = None,
    warnings: Sequence[str] = (),
) -> TaskData:
    """Divide, check, take the subsets that ``config`` asks for, and hash.

    Args:
        prompts: the task's own; the user's, in ``config``, come before them.

    Raises:
        DataError: too few rows to divide, one class only, or a label that training never shows.
        ConfigError: a prompt does not fit, or there is none of the name asked for.
    """
    prompts = _prompts(config, prompts, kind, columns, labels)
    divided = divide(published, kind, labels, source)
    if prompts:
        divided, labels, prompts = _without_unasked(divided, kind, labels, prompts)
    check_labels(divided, kind, labels, source)
    train, few = _subset(
        divided.train,
        config.train_examples,
        f"train {config.data_seed}",
        "training",
        balanced=config.balanced and kind == "classification",
    )
    select, few_select = _subset(divided.select, config.select_examples, f"select {config.data_seed}", "selection")
    report, few_report = {}, []
    for name, rows in divided.report.items():
        report[name], few_one = report_subset(rows, config, name)
        few_report += few_one
    unlabelled, few_unlabelled = _unlabelled(divided.train, train, published.unlabelled, config)
    said = [*warnings, *divided.warnings, *few, *few_unlabelled, *few_select, *few_report]
    if kind == "classification":
        said += _missing_classes(train, labels)
    said += _overlaps(train, select, report)
    return TaskData(
        kind=kind,
        labels=labels,
        train=train,
        select=select,
        report=report,
        source=source,
        revision=revision,
        fingerprint=fingerprint(
            kind,
            labels,
            {"train": train, **({"unlabelled": unlabelled} if unlabelled else {}), "select": select, **report},
        ),
        warnings=tuple(said),
        metrics=metrics,
        columns=columns,
        prompts=prompts,
        unlabelled=unlabelled,
    )


def divide(published: Published, kind: Kind, labels: tuple[str, ...], source: str) -> Divided:
    """Make three uses of the splits there are: as they are, validation halved, or rows held out of training.

    Raises:
        DataError: too few rows.
    """
    train, validation, test = list(published.train), list(published.validation), list(published.test)
    stratify = kind == "classification"
    warnings: list[str] = []
    if validation and test:
        select, report = validation, test
    elif validation:
        _need(len(validation), 2, f"{source} has {_counted(validation, 'validation row')} and no test rows")
        select, report = take(validation, len(validation) // 2, salt="halve validation", stratify=stratify)
    else:
        _need(len(train), FEWEST_ROWS, f"{source} has {_counted(train, 'training row')} and no validation rows")
        lone, usable = _lone_classes(train) if stratify else ([], train)
        warnings += [
            f"Class '{_name(row.label, labels)}' has one row, which stays in training: no score is about it."
            for row in lone
        ]
        if test:
            count = min(SELECT_MOST, round(SELECT_SHARE * len(train)))
            select, kept = take(usable, count, salt="hold out", stratify=stratify)
            report = test
        else:
            count = max(1, round(HELD_OUT_SHARE * len(train)))
            held, kept = take(usable, 2 * count, salt="hold out", stratify=stratify)
            select, report = take(held, len(held) // 2, salt="halve held out", stratify=stratify)
        out = {row.id for row in train} - {row.id for row in kept} - {row.id for row in lone}
        train = [row for row in train if row.id not in out]
    for use, rows in (("training", train), ("selection", select), ("report", report)):
        if not rows:
            raise DataError(f"{source} has too few different rows to split: none is left for {use}; give more rows.")
    return Divided(train, select, {published.report_name: report, **_lists(published.more)}, warnings)


def take(rows: Sequence[Example], count: int, *, salt: str, stratify: bool) -> tuple[list[Example], list[Example]]:
    """About ``count`` of ``rows`` and the rest, both in the order given. Rows with the same text go together.

    With ``stratify`` every class gives its share to within one row.
    """
    groups: dict[str, list[Example]] = {}
    for row in rows:
        groups.setdefault(normalised(row), []).append(row)
    ordered = sorted(groups.values(), key=lambda group: _place(salt, group[0]))
    if stratify:
        ordered.sort(key=lambda group: str(group[0].label))
    # Walk through the classes and take a group whenever the share taken falls half a group behind: integers only.
    taken: set[str] = set()
    seen = 0
    for group in ordered:
        seen += len(group)
        if 2 * (seen * count - len(taken) * len(rows)) >= len(group) * len(rows):
            taken.update(row.id for row in group)
    return [row for row in rows if row.id in taken], [row for row in rows if row.id not in taken]


def check_labels(divided: Divided, kind: Kind, labels: tuple[str, ...], source: str) -> None:
    """Training must show more than one answer, and every class that is asked for.

    Raises:
        DataError: it does not.
    """
    if kind not in ("classification", "regression"):
        return
    trained = {row.label for row in divided.train}
    if len(trained) < 2:
        only = _name(next(iter(trained)), labels)
        raise DataError(
            f"{source}: all {len(divided.train)} training rows have the label '{only}': a task needs at least two."
        )
    if kind == "regression":
        return
    for use, rows in {"selection": divided.select, **divided.report}.items():
        for row in rows:
            if row.label not in trained:
                raise DataError(
                    f"{source}: the label '{_name(row.label, labels)}' of row {row.id} ({use}) never occurs in "
                    f"training, which has {_listed(sorted(_name(label, labels) for label in trained))}: "
                    "correct the label or add training rows that have it."
                )


def normalised(row: Example) -> str:
    """A row's texts without case and spacing: two rows with equal ones count as the same text."""
    return "\x1f".join(" ".join(text.lower().split()) for text in row.texts)


def fingerprint(kind: Kind, labels: Sequence[str], splits: Mapping[str, Sequence[Example]]) -> str:
    """``"sha256:..."`` over every row, in order, of every split."""
    digest = hashlib.sha256(json.dumps([kind, list(labels)]).encode())
    encode = json.JSONEncoder(separators=(",", ":")).encode
    for name, rows in splits.items():
        lines = [encode([name, len(rows)]), *(encode(_content(row)) for row in rows)]
        digest.update("\n".join(lines).encode())
    return f"sha256:{digest.hexdigest()}"


def _content(row: Example) -> list[object]:
    """What a row says; what most rows do not have is left out, so that theirs is as it always was."""
    more = {
        "choices": row.choices,
        "references": row.references,
        "groups": row.groups,
        "explanation": row.explanation,
    }
    said = {key: value for key, value in more.items() if value}
    return [row.id, row.texts, row.label, *([said] if said else [])]


def _prompts(
    config: TaskConfig, own: Sequence[Prompt], kind: Kind, columns: Sequence[str], labels: Sequence[str]
) -> tuple[Prompt, ...]:
    """All prompts of a task, complete; where one was asked for, that one alone."""
    known = (*config.prompts, *own)
    names = [prompt.name for prompt in known]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"Two prompts of '{config.name}' are called '{name}': give yours another name." for name in twice
        )
    if config.prompt is not None:
        known = (choose_prompt(known, config.prompt, config.name),)
    return tuple(fit_prompt(prompt, kind, columns, labels) for prompt in known)


def _without_unasked(
    divided: Divided, kind: Kind, labels: tuple[str, ...], prompts: tuple[Prompt, ...]
) -> tuple[Divided, tuple[str, ...], tuple[Prompt, ...]]:
    """Without the classes for which the prompt in use has no word: their rows train nothing and are not asked."""
    words = prompts[0].answers
    if kind != "classification" or not isinstance(words, tuple) or None not in words:
        return divided, labels, prompts
    kept = [index for index, word in enumerate(words) if word is not None]
    places = {index: place for place, index in enumerate(kept)}

    def left(rows: Sequence[Example]) -> list[Example]:
        return [replace(row, label=places[int(row.label)]) for row in rows if row.label in places]

    report = {name: left(rows) for name, rows in divided.report.items()}
    gone = [label for index, label in enumerate(labels) if index not in places]
    warning = f"The prompt '{prompts[0].name}' asks for no {_listed(gone)}: rows of that class are left out."
    fewer = Divided(left(divided.train), left(divided.select), report, [*divided.warnings, warning])
    why = prompts[0].explanation
    why = tuple(why[index] for index in kept) if isinstance(why, tuple) else why
    in_use = prompts[0].model_copy(update={"answers": tuple(words[index] for index in kept), "explanation": why})
    return fewer, tuple(labels[index] for index in kept), (in_use,)


def report_subset(rows: list[Example], config: TaskConfig, name: str) -> tuple[list[Example], list[str]]:
    """The rows of a report set that ``config`` asks for, the same for every data seed, and what is to be said."""
    return _subset(rows, config.eval_examples, f"report {name}", name)


def _place(salt: str, row: Example) -> bytes:
    return hashlib.blake2b(f"{salt}\0{row.id}".encode(), digest_size=8).digest()


def _subset(
    rows: list[Example], count: CountOrAll, salt: str, use: str, *, balanced: bool = False
) -> tuple[list[Example], list[str]]:
    """``count`` of the rows, in their order: a larger count's rows have a smaller one's among them.

    ``balanced`` takes the classes in turn, so that two classes never differ by more than a row while both have any.
    """
    if count == "all" or count == len(rows):
        return rows, []
    if count > len(rows):
        return rows, [f"{count} {use} examples were asked for and there are {len(rows)}: all are used."]
    drawn = sorted(rows, key=lambda row: _place(salt, row))
    if balanced:
        turn: Counter[object] = Counter()
        turns = []
        for row in drawn:
            turns.append(turn[row.label])
            turn[row.label] += 1
        drawn = [row for _, row in sorted(zip(turns, drawn, strict=True), key=lambda pair: pair[0])]
    chosen = {row.id for row in drawn[:count]}
    return [row for row in rows if row.id in chosen], []


def _unlabelled(
    labelled: list[Example], train: list[Example], more: Sequence[Example], config: TaskConfig
) -> tuple[list[Example], list[str]]:
    """The rows without answers that ``config`` asks for: training rows that are not among ``train``, then ``more``.

    Raises:
        DataError: there are none.
    """
    if config.unlabelled_examples == 0:
        return [], []
    used = {row.id for row in train}
    left = [replace(row, label=0, explanation="") for row in labelled if row.id not in used] + list(more)
    if not left:
        raise DataError(
            f"{config.unlabelled_examples} unlabelled examples were asked for, and every row of '{config.name}' that "
            "could be one is a training row: give --train-examples, or a file 'unlabelled' beside the training file."
        )
    return _subset(left, config.unlabelled_examples, f"unlabelled {config.data_seed}", "unlabelled")


def _missing_classes(train: Sequence[Example], labels: tuple[str, ...]) -> list[str]:
    present = {row.label for row in train}
    missing = [label for index, label in enumerate(labels) if index not in present]
    if not missing:
        return []
    return [
        f"Training on {_counted(train, 'example')} without {_listed(missing)}: no run can learn what it is not shown."
    ]


def _overlaps(
    train: Sequence[Example], select: Sequence[Example], report: Mapping[str, Sequence[Example]]
) -> list[str]:
    """Published splits stay as they are, so that scores compare with published ones; overlap is counted and said."""
    trained, selected = ({normalised(row) for row in rows} for rows in (train, select))
    warnings = []
    for name, rows, others, other in (
        ("selection", select, trained, "training"),
        *((name, rows, trained, "training") for name, rows in report.items()),
        *((name, rows, selected, "selection") for name, rows in report.items()),
    ):
        count = sum(normalised(row) in others for row in rows)
        if count:
            warnings.append(f"{count} of {len(rows)} rows of {name} have the same text as a {other} row.")
    return warnings


def _lone_classes(rows: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    counts = Counter(row.label for row in rows)
    return [row for row in rows if counts[row.label] == 1], [row for row in rows if counts[row.label] > 1]


def _name(label: int | float | str, labels: tuple[str, ...]) -> str:
    return labels[label] if labels and isinstance(label, int) else str(label)


def _counted(rows: Sequence[Example], what: str) -> str:
    return f"{len(rows)} {what}{'' if len(rows) == 1 else 's'}"


def _listed(names: Sequence[str], most: int = 10) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _need(rows: int, least: int, has: str) -> None:
    if rows < least:
        raise DataError(f"{has}: too few rows to split, give at least {least}.")


def _lists(sets: Mapping[str, Sequence[Example]]) -> dict[str, list[Example]]:
    return {name: list(rows) for name, rows in sets.items()}
