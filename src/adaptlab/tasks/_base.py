"""What a task is: rows with texts and an answer, split three ways, and how answers are scored.

A task plugin is one file in this folder with ``plugin = <Task>``; importing it must not import torch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from adaptlab.config import Prompt, TaskConfig
from adaptlab.errors import ConfigError

Kind = Literal["classification", "regression", "multiple-choice", "generation"]


@dataclass(frozen=True, slots=True)
class Example:
    """One row.

    Attributes:
        texts: the row's text columns; one or two for classification and regression.
        label: the index of a class or of a choice, a number (regression), or a text (generation).
        choices: the row's own options (multiple choice).
        references: every text that is a right answer, ``label`` among them (generation); empty where that is the only.
        groups: parts of the set that the row belongs to and that are scored apart, e.g. ``"lexical_overlap"``.
        explanation: why the answer is right, where the source says so; for demonstrations.
    """

    id: str
    texts: tuple[str, ...]
    label: int | float | str
    choices: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class OutOfDomain:
    """A report set with the rows of another task.

    Attributes:
        task: its name, or the name of the user's file.
        labels: the classes that are scored; the rows' labels are places in it.
        of_answer: for each class of the task that trains, the place in ``labels`` that it counts as; ``None`` where
            ``labels`` are that task's.
        mapping: the same in words, for both tasks' classes; empty where ``of_answer`` is ``None``.
        metrics: names of the metrics to compute on it.
    """

    task: str
    source: str
    revision: str | None
    labels: tuple[str, ...]
    of_answer: tuple[int, ...] | None
    mapping: Mapping[str, str]
    metrics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task's rows, ready to use: who trains, who selects, who is looked at once.

    Attributes:
        labels: the names of the classes, in the order of their indices; empty for regression and generation.
        report: evaluation sets by name; the first is the primary one.
        out_of_domain: of those, the ones that come from other tasks.
        source: hub id, or the file's name (never a path of the machine).
        fingerprint: ``"sha256:..."`` over every row of every split *after* subsetting.
        warnings: sentences for the record, e.g. a class that a few-shot subset lacks.
        metrics: names of the metrics to compute; the first is the primary one. The task's own, except for the user's
            files, where only the rows tell.
        columns: names of ``Example.texts``, in order; what a prompt may name.
        prompts: the one in use first: the one that was asked for, else the user's own or the task's first. Their
            ``answers`` are complete: a word for each of ``labels``, in order, or a template.
        unlabelled: rows to train on whose labels mean nothing; none unless they were asked for.
    """

    kind: Kind
    labels: tuple[str, ...]
    train: Sequence[Example]
    select: Sequence[Example]
    report: Mapping[str, Sequence[Example]]
    source: str
    revision: str | None
    fingerprint: str
    warnings: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    out_of_domain: Mapping[str, OutOfDomain] = field(default_factory=dict)
    unlabelled: Sequence[Example] = ()

    @property
    def trained_on(self) -> Sequence[Example]:
        """What training passes over: the unlabelled rows where there are any, else the training rows."""
        return self.unlabelled or self.train


@dataclass(frozen=True, slots=True)
class DataAccess:
    """How rows may be reached: ``data_root`` is a folder laid out like the hub (see docs/adding-a-task.md)."""

    data_root: str | None = None
    offline: bool = False
    cache: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Submission:
    """A file that a benchmark's server takes, with an answer for each row that has no label.

    Attributes:
        file: its name.
        split: what ``predict --split`` asks for; several files may belong to one.
        rows: the split that has the rows, if it is called otherwise.
        config: the data set's configuration that has them, if it is not the task's own.
        words: whether the server takes the class's name, not its number.
        limits: the least and the most that a number may be.
    """

    file: str
    split: str = "test"
    rows: str = "test"
    config: str | None = None
    words: bool = False
    limits: tuple[float, float] = (-math.inf, math.inf)


class Task(ABC):
    """Base of every task. Attributes are class-level facts; ``load`` does the work.

    Attributes:
        name: what ``--task`` takes.
        version: raised when rows, splits or rendering change, so that old runs are not mistaken for new ones.
        metrics: names of metrics to compute; the first is the primary one.
        prompts: ways of putting a row to a language model; the first is the default.
        trainable: ``False`` for rows that are only for looking at, with ``--also-evaluate``.
    """

    name: str
    summary: str
    version: int
    kind: Kind
    metrics: tuple[str, ...]
    hub_id: str | None = None
    prompts: tuple[Prompt, ...] = ()
    trainable: bool = True
    submissions: tuple[Submission, ...] = ()

    @abstractmethod
    def load(self, config: TaskConfig, access: DataAccess) -> TaskData:
        """Read, check, split and subset the rows.

        Raises:
            DataError: a file, column, label or split is not usable; the message says which and what to do.
            ConfigError: the prompt that ``config`` asks for is unknown or does not fit.
            HubError: the rows are on a hub that cannot be reached.
        """

    def look(self, config: TaskConfig, access: DataAccess) -> TaskData:
        """The rows that ``--also-evaluate`` looks at, as the only report set; nothing trains or selects on them.

        Raises:
            DataError, HubError, ConfigError: as :meth:`load`.
        """
        data = self.load(config, access)
        name = next(iter(data.report))
        return replace(data, train=(), select=(), report={name: data.report[name]})

    def questions(self, split: str, access: DataAccess, hub_config: str | None = None) -> list[Example]:
        """The rows of ``split`` in their order, whatever labels they have; those of the examples mean nothing.

        Args:
            hub_config: the data set's configuration to look in, if it is not the task's own.

        Raises:
            ConfigError: the task is no published data set.
            DataError, HubError: there is no such split, or it cannot be reached.
        """
        raise ConfigError(f"The task '{self.name}' has no split '{split}': give its texts with --input FILE.")

    def labels_in_order(self) -> tuple[str, ...]:
        """The classes, where the task itself says them."""
        return ()
