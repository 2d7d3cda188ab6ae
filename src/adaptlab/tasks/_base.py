"""What a task is: rows with texts and an answer, split three ways, and how answers are scored.

A task plugin is one file in this folder with ``plugin = <Task>``; importing it must not import torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from adaptlab.config import TaskConfig

Kind = Literal["classification", "regression", "multiple-choice", "generation"]


@dataclass(frozen=True, slots=True)
class Example:
    """One row. ``label`` is the index of a class, a number (regression) or a string (generation).

    ``texts`` has one or two strings for classification and regression.
    """

    id: str
    texts: tuple[str, ...]
    label: int | float | str


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task's rows, ready to use: who trains, who selects, who is looked at once.

    Attributes:
        labels: the names of the classes, in the order of their indices; empty for regression and generation.
        report: evaluation sets by name; the first is the primary one.
        source: hub id, or the file's name (never a path of the machine).
        fingerprint: ``"sha256:..."`` over every row of every split *after* subsetting.
        warnings: sentences for the record, e.g. a class that a few-shot subset lacks.
        metrics: names of the metrics to compute; the first is the primary one. The task's own, except for the user's
            files, where only the rows tell.
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


@dataclass(frozen=True, slots=True)
class DataAccess:
    """How rows may be reached: ``data_root`` is a folder laid out like the hub (see docs/adding-a-task.md)."""

    data_root: str | None = None
    offline: bool = False
    cache: Mapping[str, str] = field(default_factory=dict)


class Task(ABC):
    """Base of every task. Attributes are class-level facts; ``load`` does the work.

    Attributes:
        name: what ``--task`` takes.
        version: raised when rows, splits or rendering change, so that old runs are not mistaken for new ones.
        metrics: names of metrics to compute; the first is the primary one.
    """

    name: str
    summary: str
    version: int
    kind: Kind
    metrics: tuple[str, ...]
    hub_id: str | None = None

    @abstractmethod
    def load(self, config: TaskConfig, access: DataAccess) -> TaskData:
        """Read, check, split and subset the rows.

        Raises:
            DataError: a file, column, label or split is not usable; the message says which and what to do.
            HubError: the rows are on a hub that cannot be reached.
        """
