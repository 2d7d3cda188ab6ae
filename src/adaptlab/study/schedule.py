"""Runs what a study still lacks: skips what is settled, leaves to others what they run, keeps what was asked.

Where a run executes is a pool's business (adaptlab.launchers): it is given a run's folder and says when its job has
ended. How the run ended is read from its record, and only from there.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

from adaptlab.config import ExecutionConfig, RunConfig, RunIdentity
from adaptlab.runs.files import BusyError, scrub
from adaptlab.runs.job import Job, remove_job, write_job
from adaptlab.runs.record import SETTLED, ConfigPart, ErrorPart, Record
from adaptlab.runs.store import RunFolder, StudyFolder
from adaptlab.study.events import Listener, RunEnded, StudyEnded, StudyStarted
from adaptlab.study.follow import Follower
from adaptlab.study.weights import Weights

_POLL_SECONDS = 1.0
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

    def submit(self, run: Any, folder: RunFolder) -> None:
        """Take a run; its folder is there."""

    def wait(self) -> Sequence[Ended]:
        """Jobs that have ended since the last call, after about a second if there are none.

        Raises:
            InterruptedRunError: this process was asked to stop.
        """

    def close(self) -> None:
        """Let go of everything: nothing more comes, or this process was asked to stop. The caller's to call."""


@dataclass
class Outcome:
    """What a study's schedule came to. ``records`` has every run of it, in order."""

    records: list[Record] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def run_study(
    study: StudyFolder, runs: Sequence[R], pool: Pool, *, execution: ExecutionConfig, listener: Listener
) -> Outcome:
    """Have every run of ``runs`` done that has no settled record.

    A run that another process holds is looked at again at the end, until it is settled or free.

    Raises:
        InterruptedRunError: as the pool's ``wait``; the same call goes on from there.
    """
    schedule = _Schedule[R](study, pool, execution, listener)
    records: dict[str, Record] = {}
    waiting: list[tuple[R, RunFolder]] = []
    names, skipped = [], []
    for run in runs:
        folder = study.run(run.name)
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

    def __init__(self, study: StudyFolder, pool: Pool, execution: ExecutionConfig, listener: Listener) -> None:
        self._study = study
        self._pool = pool
        self._execution = execution
        self._listener = listener
        self._follower = Follower(listener) if pool.remote else None
        self._attempts: Counter[str] = Counter()
        self._weights = Weights(study, execution.keep_weights)
        self._records: dict[str, Record] = {}

    def do(self, waiting: Sequence[tuple[R, RunFolder]]) -> dict[str, Record]:
        """The records of these runs, by folder name, once all of them have one."""
        queue, busy = deque(waiting), deque[tuple[R, RunFolder]]()
        out: dict[str, tuple[R, RunFolder]] = {}
        capacity = self._pool.capacity or len(waiting)
        while queue or busy or out:
            if not queue and not out:  # all that is left is in other hands
                time.sleep(_POLL_SECONDS)
                queue, busy = busy, deque()
            while queue and len(out) < capacity:
                run, folder = queue.popleft()
                self._hand_out(run, folder)
                out[folder.name] = run, folder
            for ended in self._pool.wait():
                run, folder = out.pop(ended.name)
                if ended.busy:
                    busy.append((run, folder))
                elif not self._take_in(run, folder, ended.reason):
                    queue.append((run, folder))
            if self._follower is not None:
                self._follower.look(folder for _, folder in out.values())
        return self._records

    def _hand_out(self, run: R, folder: RunFolder) -> None:
        if self._pool.remote:
            write_job(folder.path, Job(id=run.id, run=run.resolved, given=run.given, execution=self._execution))
        self._pool.submit(run, folder)

    def _take_in(self, run: R, folder: RunFolder, reason: str) -> bool:
        """Whether the run is over; if not, it must be handed out again."""
        record = self._study.record(folder)
        if record is None or record.status in ("running", "interrupted"):
            self._attempts[folder.name] += 1
            if self._attempts[folder.name] < ATTEMPTS:
                return False
            record = _lost(run, folder, record, reason)
            with folder.lock():
                folder.write_record(record)
        self._records[folder.name] = record
        remove_job(folder.path)
        self._weights.drop(record)
        self._listener(RunEnded(folder.name, record))
        return True


def _relabelled(study: StudyFolder, folder: RunFolder, label: str) -> Record | None:
    """The settled record of a run, or ``None``; read without the lock, so nothing is set aside yet.

    It gets the label it has in the present study: a grid that has grown tells its variants apart anew.
    """
    record = study.record(folder)
    if record is None or record.status not in SETTLED:
        return None
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
