"""In this process, one run after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from adaptlab.runs.files import BusyError
from adaptlab.runs.record import SETTLED, Record
from adaptlab.runs.store import RunFolder, StudyFolder
from adaptlab.study.schedule import Ended


class InlinePool:
    """Executes a run when it is waited for, under the run's lock."""

    capacity: int | None = None
    remote: bool = False

    def __init__(self, study: StudyFolder, execute: Callable[[Any, RunFolder], Record]) -> None:
        self._study = study
        self._execute = execute
        self._queue: deque[tuple[Any, RunFolder]] = deque()

    def submit(self, run: Any, folder: RunFolder) -> None:
        """Take a run."""
        self._queue.append((run, folder))

    def wait(self) -> Sequence[Ended]:
        """Execute the next run, unless another process has settled it meanwhile."""
        run, folder = self._queue.popleft()
        try:
            with folder.lock():
                record = self._study.settled_record(folder)
                if record is None or record.status not in SETTLED:
                    self._execute(run, folder)
        except BusyError:
            return [Ended(folder.name, busy=True)]
        return [Ended(folder.name)]

    def close(self) -> None:
        """Nothing is left behind."""
