"""Runs what a study still lacks: skips what is settled, leaves to others what they run, keeps what was asked.

Where a run executes is a pool's business (adaptlab.launchers): it is given a run's folder and says when its job has
ended. How the run ended is read from its record, and only from there.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

from adaptlab.config import ExecutionConfig, RunConfig, RunIdentity
from adaptlab.errors import StorageError
from adaptlab.runs.files import BusyError, scrub
from adaptlab.runs.job import Job, remove_job, write_job
from adaptlab.runs.record import SETTLED, ConfigPart, ErrorPart, Record
from adaptlab.runs.store import RunFolder, StudyFolder
from adaptlab.study.events import Listener, RunEnded, StudyEnded, StudyStarted
from adaptlab.study.follow import Follower
from adaptlab.study.weights import Weights

_POLL_SECONDS = 1.0
#: Between two looks for signs of life of runs in other processes.
_HUNG_SECONDS = 5.0
#: How often a run is handed out again whose worker died: what kills three workers is the run itself, most likely.
ATTEMPTS = 3


class Runnable(Protocol):
    """What the schedule needs to know of a run."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def given(self) -> RunConfig: ...
    @property
    def resolved(self) -> RunConfig: ...
    @property
    def identity(self) -> RunIdentity: ...


R = TypeVar("R", bound=Runnable)
_Job = list[tuple[R, RunFolder]]


@dataclass(frozen=True, slots=True)
class Ended:
    """A job is over, whatever became of its run.

    Attributes:
        name: the run folder's.
        busy: another process holds the run; it is asked for again.
        reason: what the launcher knows of a job that left no settled record, e.g. "killed by signal 9".
    """

    name: str
    busy: bool = False
    reason: str = ""


class Pool(Protocol):
    """Where runs execute, ready to take them."""

    @property
    def capacity(self) -> int | None:
        """How many jobs it wants at once; ``None``: all there are."""

    @property
    def remote(self) -> bool:
        """Whether jobs are other processes, which find theirs in ``job.json``."""

    @property
    def runs_per_job(self) -> int | None:
        """How many runs may share a job; ``None``: as many as train together."""

    def submit(self, job: Sequence[tuple[Any, RunFolder]]) -> None:
        """Take runs that share a job; their folders are there."""

    def wait(self) -> Sequence[Ended]:
        """Jobs that have ended since the last call, after about a second if there are none.

        Raises:
            InterruptedRunError: this process was asked to stop.
        """

    def give_up(self, name: str) -> None:
        """End the job of the run whose folder is called ``name``: it hangs. Only asked of a remote pool."""

    def close(self) -> None:
        """Let go of everything: nothing more comes, or this process was asked to stop. The caller's to call."""


@dataclass
class Outcome:
    """What a study's schedule came to. ``records`` has every run of it, in order."""

    records: list[Record] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def run_study(
    study: StudyFolder,
    runs: Sequence[R],
    pool: Pool,
    *,
    execution: ExecutionConfig,
    listener: Listener,
    groups: Callable[[Sequence[R]], list[list[R]]] | None = None,
) -> Outcome:
    """Have every run of ``runs`` done that has no settled record.

    A run that another process holds is looked at again at the end, until it is settled or free.

    Args:
        groups: sorts runs into those that train together, and so share a job; ``None`` if none do.

    Raises:
        InterruptedRunError: as the pool's ``wait``; the same call goes on from there.
    """
    schedule = _Schedule[R](study, pool, execution, listener, groups)
    records: dict[str, Record] = {}
    waiting: list[tuple[R, RunFolder]] = []
    names, skipped = [], []
    for run, folder in zip(runs, study.folders([run.name for run in runs]), strict=True):
        names.append(folder.name)
        record = _relabelled(study, folder, run.label)
        if record is None:
            waiting.append((run, folder))
        else:
            records[folder.name] = record
            skipped.append(folder.name)
    listener(StudyStarted(str(study.path), tuple(folder.name for _, folder in waiting), tuple(skipped)))
    records |= schedule.do(waiting)
    outcome = Outcome([records[name] for name in names], skipped)
    outcome.failed = [record.name for record in outcome.records if record.status != "finished"]
    finished = len(outcome.records) - len(outcome.failed)
    listener(StudyEnded(str(study.path), finished, tuple(outcome.failed)))
    return outcome


class _Schedule(Generic[R]):
    """Hands runs to a pool, and hands out again what came back unsettled."""

    def __init__(
        self,
        study: StudyFolder,
        pool: Pool,
        execution: ExecutionConfig,
        listener: Listener,
        groups: Callable[[Sequence[R]], list[list[R]]] | None,
    ) -> None:
        self._study = study
        self._pool = pool
        self._execution = execution
        self._listener = listener
        self._groups = groups
        self._follower = Follower(listener) if pool.remote else None
        self._attempts: Counter[str] = Counter()
        self._looked = time.monotonic()
        self._weights = Weights(study, execution.keep_weights)
        self._records: dict[str, Record] = {}

    def do(self, waiting: Sequence[tuple[R, RunFolder]]) -> dict[str, Record]:
        """The records of these runs, by folder name, once all of them have one."""
        queue, busy = deque(self._jobs(waiting)), deque[_Job[R]]()
        out: dict[str, tuple[R, RunFolder]] = {}
        at_work: dict[str, int] = {}  # the number of a run's job
        numbers = itertools.count()
        capacity = self._pool.capacity or max(1, len(waiting))
        while queue or busy or out:
            if not queue and not out:  # all that is left is in other hands
                time.sleep(_POLL_SECONDS)
                for _, folder in itertools.chain.from_iterable(busy):
                    folder.free_if_hung()
                queue, busy = busy, deque()
            while queue and len(set(at_work.values())) < capacity:
                job, number = queue.popleft(), next(numbers)
                self._hand_out(job)
                out |= {folder.name: (run, folder) for run, folder in job}
                at_work |= {folder.name: number for _, folder in job}
            for ended in self._pool.wait():
                run, folder = out.pop(ended.name)
                del at_work[ended.name]
                try:
                    over = not ended.busy and self._take_in(run, folder, ended.reason)
                except BusyError:
                    ended = Ended(ended.name, busy=True)
                if ended.busy:
                    busy.append([(run, folder)])
                elif not over:
                    queue.append([(run, folder)])
            if self._follower is not None:
                self._follower.look(folder for _, folder in out.values())
                self._end_hung(folder for _, folder in out.values())
        return self._records

    def _end_hung(self, folders: Iterable[RunFolder]) -> None:
        """Have jobs end whose runs show no sign of life; they come back as any job that died."""
        if time.monotonic() - self._looked >= _HUNG_SECONDS:
            self._looked = time.monotonic()
            for folder in folders:
                if folder.hung():
                    self._pool.give_up(folder.name)

    def _jobs(self, waiting: Sequence[tuple[R, RunFolder]]) -> Iterator[_Job[R]]:
        """Runs sorted into jobs; those that train together are spread evenly over the pool's capacity."""
        if self._groups is None:
            yield from _slices(waiting, self._pool.runs_per_job or 1)
            return
        folders = {run.id: folder for run, folder in waiting}
        for group in self._groups([run for run, _ in waiting]):
            even = math.ceil(len(group) / (self._pool.capacity or 1))
            together = [(run, folders[run.id]) for run in group]
            yield from _slices(together, min(even, self._pool.runs_per_job or even))

    def _hand_out(self, job: _Job[R]) -> None:
        if self._pool.remote:
            for run, folder in job:
                write_job(folder.path, Job(id=run.id, run=run.resolved, given=run.given, execution=self._execution))
        self._pool.submit(job)

    def _take_in(self, run: R, folder: RunFolder, reason: str) -> bool:
        """Whether the run is over; if not, it must be handed out again."""
        record = self._study.record(folder)
        if record is None or record.status in ("running", "interrupted"):
            if record is not None and record.error is not None and record.error.type == StorageError.__name__:
                raise StorageError(record.error.message)
            self._attempts[folder.name] += 1
            if self._attempts[folder.name] < ATTEMPTS:
                return False
            with folder.lock():
                record = self._study.record(folder)  # a network file system may show it late
                if record is None or record.status not in SETTLED:
                    record = _lost(run, folder, record, reason)
                    folder.write_record(record)
        self._records[folder.name] = record
        remove_job(folder.path)
        self._weights.drop(record)
        self._listener(RunEnded(folder.name, record))
        return True


def _slices(runs: Sequence[tuple[R, RunFolder]], most: int) -> Iterator[_Job[R]]:
    return (list(runs[i : i + most]) for i in range(0, len(runs), most))


def _relabelled(study: StudyFolder, folder: RunFolder, label: str) -> Record | None:
    """The settled record of a run, or ``None``; read without the lock, so nothing is set aside yet.

    It gets the label it has in the present study: a grid that has grown tells its variants apart anew.
    """
    record = study.record(folder)
    if record is None or record.status not in SETTLED:
        return None
    if not folder.is_tidy():  # whoever settled it was killed before it could
        with contextlib.suppress(BusyError), folder.lock():
            folder.tidy()
    if record.config.resolved.method.label != label:
        with contextlib.suppress(BusyError), folder.lock():
            for config in ("given", "resolved"):
                run: RunConfig = getattr(record.config, config)
                method = run.method.model_copy(update={"label": label})
                setattr(record.config, config, run.model_copy(update={"method": method}))
            folder.write_record(record)
    return record


def _lost(run: Runnable, folder: RunFolder, record: Record | None, reason: str) -> Record:
    """The record of a run whose workers all died: what there was of it, and how it ended."""
    if record is None:
        config = ConfigPart(given=run.given, resolved=run.resolved, identity=run.identity)
        record = Record(id=run.id, name=folder.name, status="failed", config=config)
    message = f"Its worker ended {ATTEMPTS} times without a result ({scrub(reason) or 'nobody said why'})."
    error = ErrorPart(type="WorkerDied", message=message)
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    return record.model_copy(update={"status": "failed", "error": error, "ended": ended})
