"""Tasks: data sets, how a row becomes text, and how answers are scored. One file adds one (docs/adding-a-task.md)."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

from adaptlab.config import TaskConfig
from adaptlab.errors import DataError
from adaptlab.registry import Registry
from adaptlab.tasks._base import DataAccess, Example, Kind, Task, TaskData
from adaptlab.tasks._elsewhere import add_elsewhere
from adaptlab.tasks._files import FileTask, HubRows, OwnRows
from adaptlab.tasks._table import format_of

__all__ = [
    "DataAccess",
    "Example",
    "FileTask",
    "Kind",
    "OwnRows",
    "Task",
    "TaskData",
    "find_task",
    "load_task",
    "registry",
]

registry: Registry[Task] = Registry("task", "adaptlab.tasks")


def find_task(name: str) -> Task:
    """The task called ``name``; else the user's own data: a path to a file or a folder, or ``hub:org/name``.

    Raises:
        UnknownNameError: neither; the message has the near matches.
        DataError: ``name`` looks like a path and nothing is there.
        ConfigError: ``name`` starts with ``hub:`` and names no data set.
    """
    if name in registry:
        return registry.get(name)
    if name.startswith(HubRows.prefix):
        return HubRows(name)
    path = Path(os.path.expanduser(name))
    if name and os.path.exists(path):  # unlike Path.exists, it is false for names that no file can have
        return FileTask(path)
    if "/" in name or os.sep in name or format_of(path) is not None:
        raise DataError(
            f"There is no file or folder {name}: give a path to your rows, or a name from `adaptlab list tasks`."
        )
    return registry.get(name)


def load_task(config: TaskConfig, access: DataAccess) -> TaskData:
    """The rows of the task that ``config`` names, and of those it is also evaluated on.

    Raises:
        ConfigError, DataError, HubError: as ``Task.load``; or rows from elsewhere that a run cannot answer.
    """
    task = find_task(config.name)
    data = task.load(config, access)
    for name in config.also_evaluate:
        other = find_task(name)
        wanted = TaskConfig(name=name, eval_examples=config.eval_examples)
        if isinstance(task, OwnRows) and isinstance(other, OwnRows):  # what was said of one's columns is said of both
            said = {key: getattr(config, key) for key in ("text_columns", "label_column", "delimiter")}
            wanted = wanted.model_copy(update=said)
        looked = other.look(wanted, access)
        known = name if name in registry else None
        data = add_elsewhere(data, known or PurePath(name).name, known or looked.source, looked)
    return data
