"""In this process, one group of runs after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from adaptlab.runs.files import BusyError
from adaptlab.runs.lease import LostLeaseError
from adaptlab.runs.record import SETTLED
from adaptlab.runs.store import RunFolder, StudyFolder
from adaptlab.study.schedule import Ended

Jobs = Sequence[tuple[Any, RunFolder]]


class InlinePool:
    """Executes runs when they are waited for, under their locks.

    Args:
        execute: does runs that train together.
        pack: sorts runs into groups that do.
    """

    capacity: int | None = None
    remote: bool = False
    runs_per_job: int | None = 1  # groups are formed of all that it was given

    def __init__(
        self,
        study: StudyFolder,
        execute: Callable[[Jobs], object],
        pack: Callable[[Sequence[Any]], Sequence[Sequence[Any]]],
    ) -> None:
        self._study = study
        self._execute = execute
        self._pack = pack
        self._submitted: dict[str, tuple[Any, RunFolder]] = {}  # by the run's id
        self._groups: deque[Sequence[Any]] = deque()

    def submit(self, job: Jobs) -> None:
        """Take runs."""
        self._submitted.update((run.id, (run, folder)) for run, folder in job)

    def wait(self) -> Sequence[Ended]:
        """Execute the next group, but for runs that another process holds or has settled meanwhile."""
        if not self._groups:
            self._groups.extend(self._pack([run for run, _ in self._submitted.values()]))
        jobs = [self._submitted.pop(run.id) for run in self._groups.popleft()]
        ended: list[Ended] = []
        with ExitStack() as locks:
            free = []
            for run, folder in jobs:
                try:
                    locks.enter_context(folder.lock())
                except BusyError:
                    ended.append(Ended(folder.name, busy=True))
                    continue
                ended.append(Ended(folder.name))
                record = self._study.settled_record(folder)
                if record is None or record.status not in SETTLED:
                    free.append((run, folder))
            if free:
                try:
                    self._execute(free)
                except LostLeaseError:  # this process hung for too long, and others have taken over
                    lost = {folder.name for _, folder in free}
                    ended = [replace(each, busy=True) if each.name in lost else each for each in ended]
        return ended

    def give_up(self, name: str) -> None:
        """Never asked: a run of this process gets on, or nobody is there to ask."""

    def close(self) -> None:
        """Nothing is left behind."""
