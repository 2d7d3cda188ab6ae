"""Does the runs that a launcher hands out: `adaptlab run-one FOLDER`, the same under every launcher.

A worker that is given several folders keeps data and base in memory between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from adaptlab.config import ExecutionConfig
from adaptlab.errors import RecordError
from adaptlab.experiment import execute
from adaptlab.resolve import Resolver
from adaptlab.runs.job import read_job
from adaptlab.runs.record import SETTLED, Record
from adaptlab.runs.store import RunFolder, StudyFolder
from adaptlab.study.events import Listener
from adaptlab.workshop import Workshop


class Worker:
    """Runs of one process, one after the other.

    Args:
        stop: asked between steps; once it is true, the run writes its checkpoint and ends.
    """

    def __init__(self, listener: Listener, stop: Callable[[], bool]) -> None:
        self._listener = listener
        self._stop = stop
        self._execution: ExecutionConfig | None = None

    def run(self, folder: Path) -> Record:
        """Do the run whose job lies in ``folder``, unless it is settled.

        Raises:
            BusyError: another process is running it.
            RecordError: there is no job, or its data or weights have changed since it was handed out.
            InterruptedRunError: it was asked to stop; the checkpoint is written.
        """
        run_folder, study = RunFolder(folder), StudyFolder(folder.absolute().parent.parent)
        with run_folder.lock():
            record = study.settled_record(run_folder)
            if record is not None and record.status in SETTLED:
                return record
            job = read_job(folder)
            resolver, workshop = self._tools(job.execution)
            resolved = resolver.resolve(job.run)
            if resolved.id != job.id:
                raise RecordError(
                    f"The data, weights or code of {folder.name} are not those it was handed out with: give the "
                    f"study's command again."
                )
            return execute(replace(resolved, given=job.given), run_folder, study, workshop)

    def _tools(self, execution: ExecutionConfig) -> tuple[Resolver, Workshop]:
        if execution != self._execution:
            self._execution = execution
            self._resolver = Resolver(execution)
            self._workshop = Workshop(execution, self._listener, self._stop)
        return self._resolver, self._workshop
