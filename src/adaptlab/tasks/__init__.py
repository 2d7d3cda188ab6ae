"""Tasks: data sets, how a row becomes text, and how answers are scored. One file adds one (docs/adding-a-task.md)."""

from __future__ import annotations

import os
from pathlib import Path

from adaptlab.errors import DataError
from adaptlab.registry import Registry
from adaptlab.tasks._base import DataAccess, Example, Kind, Task, TaskData
from adaptlab.tasks._files import FileTask
from adaptlab.tasks._table import format_of

__all__ = ["DataAccess", "Example", "FileTask", "Kind", "Task", "TaskData", "find_task", "registry"]

registry: Registry[Task] = Registry("task", "adaptlab.tasks")


def find_task(name: str) -> Task:
    """The task called ``name``; else the user's own data, if ``name`` is a path to a file or a folder.

    Raises:
        UnknownNameError: neither; the message has the near matches.
        DataError: ``name`` looks like a path and nothing is there.
    """
    if name in registry:
        return registry.get(name)
    path = Path(os.path.expanduser(name))
    if name and os.path.exists(path):  # unlike Path.exists, it is false for names that no file can have
        return FileTask(path)
    if "/" in name or os.sep in name or format_of(path) is not None:
        raise DataError(
            f"There is no file or folder {name}: give a path to your rows, or a name from `adaptlab list tasks`."
        )
    return registry.get(name)
