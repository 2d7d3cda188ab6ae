"""Does the runs that a launcher hands out: `adaptlab run-one FOLDER ...`, the same under every launcher.

A worker does with the runs of a job what the inline launcher does with those of a study, and keeps data and base in
memory from job to job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from adaptlab.config import ExecutionConfig
from adaptlab.errors import AdaptlabError, InterruptedRunError, RecordError
from adaptlab.launchers.inline import InlinePool, Jobs
from adaptlab.runs.job import Job, read_job
from adaptlab.runs.record import SETTLED
from adaptlab.runs.store import RunFolder, StudyFolder
from adaptlab.study.schedule import Runnable

if TYPE_CHECKING:
    from adaptlab.resolve import ResolvedRun


class Executor(Protocol):
    """What does runs; made once for each way of executing that jobs ask for."""

    def resolve(self, job: Job, folder: RunFolder) -> Runnable:
        """The run that the job asks for; raises AdaptlabError if there is none such here."""

    def pack(self, runs: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Runs sorted into groups that train together."""

    def execute(self, jobs: Jobs, study: StudyFolder) -> object:
        """Train a group and leave its records."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a run: its record's status, ``busy`` (another process holds it), or ``failed`` with an error."""

    run: str
    status: str
    error: str = ""


class Worker:
    """Jobs of one process, one after the other.

    Args:
        executor: makes what does runs, from the execution that a job asks for.
    """

    def __init__(self, executor: Callable[[ExecutionConfig], Executor]) -> None:
        self._make = executor
        self._execution: ExecutionConfig | None = None

    def run(self, folders: Sequence[Path]) -> Iterator[Answer]:
        """Do the runs whose jobs lie in ``folders`` of one study, but for those that are settled or in other hands.

        Raises:
            InterruptedRunError: it was asked to stop; the checkpoints are written.
        """
        pool: InlinePool | None = None
        study = StudyFolder(folders[0].absolute().parent.parent)
        left: dict[str, RunFolder] = {}
        for folder in map(RunFolder, folders):
            record = study.record(folder)
            if record is not None and record.status in SETTLED:
                yield Answer(folder.name, record.status)
                continue
            try:
                job = read_job(folder.path)
                executor = self._executor(job.execution)
                run = executor.resolve(job, folder)
            except AdaptlabError as error:
                yield Answer(folder.name, "failed", str(error))
                continue
            if pool is None:
                pool = InlinePool(study, partial(executor.execute, study=study), executor.pack)
            pool.submit([(run, folder)])
            left[folder.name] = folder
        while left and pool is not None:
            try:
                for ended in pool.wait():
                    yield _answer(study, left.pop(ended.name), busy=ended.busy)
            except InterruptedRunError:
                yield from (Answer(name, "interrupted") for name in left)
                raise

    def _executor(self, execution: ExecutionConfig) -> Executor:
        if execution != self._execution:
            self._execution, self._made = execution, self._make(execution)
        return self._made


def _answer(study: StudyFolder, folder: RunFolder, *, busy: bool) -> Answer:
    if busy:
        return Answer(folder.name, "busy", f"Another process is running {folder.name}.")
    record = study.record(folder)
    return Answer(folder.name, "failed" if record is None else record.status)


class Experiments:
    """Trains runs on this machine; as :class:`Executor`.

    Args:
        stop: asked between steps; once it is true, runs write their checkpoints and end.
    """

    def __init__(self, execution: ExecutionConfig, stop: Callable[[], bool]) -> None:
        from adaptlab.resolve import Resolver
        from adaptlab.workshop import Workshop

        self._resolver = Resolver(execution)
        self._workshop = Workshop(execution, lambda event: None, stop)

    def resolve(self, job: Job, folder: RunFolder) -> ResolvedRun:
        """The run, with its data.

        Raises:
            RecordError: its data or weights have changed since it was handed out.
        """
        resolved = self._resolver.resolve(job.run)
        if resolved.id != job.id:
            raise RecordError(
                f"The data, weights or code of {folder.name} are not those it was handed out with: give the study's "
                "command again."
            )
        return replace(resolved, given=job.given)

    def pack(self, runs: Sequence[ResolvedRun]) -> Sequence[Sequence[ResolvedRun]]:
        """Groups for the engine that was asked for, on the device that this machine has."""
        from adaptlab.group import groups_of

        return groups_of(runs, self._workshop)

    def execute(self, jobs: Jobs, study: StudyFolder) -> object:
        """Train a group, or go on with it."""
        from adaptlab.experiment import execute_group

        return execute_group(jobs, study, self._workshop)
