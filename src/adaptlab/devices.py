"""One run on several devices of a machine: a process for each, watched over by the one that was given the run.

Whoever executes a run (``adaptlab compare`` itself, or a launcher's worker) holds its lock, starts ``python -m
adaptlab.rank`` once for every device, and waits. All of them do the same run (:mod:`adaptlab.rank`); the
first writes the run's folder, what the others would write goes to a folder that is thrown away. If one ends before
its time, the others are ended too, and the record says which it was and why; the last checkpoint stays.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

from adaptlab.config import ExecutionConfig
from adaptlab.errors import InterruptedRunError
from adaptlab.resolve import ResolvedRun
from adaptlab.runs.files import scrub
from adaptlab.runs.job import Job
from adaptlab.runs.record import ConfigPart, ErrorPart, Record
from adaptlab.runs.store import RunFolder
from adaptlab.study.events import Listener
from adaptlab.study.follow import Follower

_LOOK_SECONDS = 0.2
#: Processes whose neighbour has gone notice it and end; on a GPU they may wait for it, and are ended.
_END_SECONDS = 5.0


def execute_on_devices(
    run: ResolvedRun, folder: RunFolder, execution: ExecutionConfig, stop: Callable[[], bool], listener: Listener
) -> Record:
    """Do ``run`` on the devices that ``execution`` asks for and give its record; the caller holds the folder's lock.

    Raises:
        InterruptedRunError: ``stop`` said so; the checkpoint is written.
    """
    processes = _start(run, folder, execution)
    try:
        culprit = _watch(processes, folder, stop, listener)
        record = folder.read_record()
        if culprit is not None and stop():
            raise InterruptedRunError("Stopped as asked; run the same command again to go on from here.")
        if culprit is not None and (record is None or record.status in ("running", "interrupted")):
            record = _failed(run, folder, record, f"{culprit.index + 1} of {len(processes)} ended ({culprit.reason})")
    finally:
        for each in processes:
            each.end(0.0)
    assert record is not None  # the first process writes it before it ends well, and what went wrong is in it else
    if record.status == "interrupted":
        raise InterruptedRunError("Stopped as asked; run the same command again to go on from here.")
    return record


def _failed(run: ResolvedRun, folder: RunFolder, record: Record | None, why: str) -> Record:
    """The record of a run one of whose processes ended before its time."""
    config = ConfigPart(given=run.given, resolved=run.resolved, identity=run.identity)
    found = record or Record(id=run.id, name=folder.name, status="failed", config=config)
    message = f"Of the run's processes {why}; the same command goes on from the last checkpoint."
    error = ErrorPart(type="LostProcess", message=scrub(message))
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    found = found.model_copy(update={"status": "failed", "error": error, "ended": ended})
    folder.write_record(found)
    return found


@dataclass
class _Process:
    """One of a run's processes, and the file that it says its last word to."""

    index: int
    process: subprocess.Popen[bytes]
    said: IO[bytes]

    @property
    def answer(self) -> dict[str, Any]:
        """What went wrong, if it came to say so."""
        self.said.seek(0)
        lines = self.said.read().splitlines()
        with contextlib.suppress(ValueError, IndexError):
            found = json.loads(lines[-1])
            return found if isinstance(found, dict) else {}
        return {}

    @property
    def reason(self) -> str:
        """Why it ended."""
        code = self.process.returncode
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return str(self.answer.get("error") or how).rstrip(".")

    def end(self, seconds: float) -> None:
        """See to it that it has gone after so many seconds."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _start(run: ResolvedRun, folder: RunFolder, execution: ExecutionConfig) -> list[_Process]:
    count = execution.devices_per_run
    threads = execution.threads or max(1, len(os.sched_getaffinity(0)) // count)
    job = Job(id=run.id, run=run.resolved, given=run.given, execution=execution).model_dump_json().encode()
    shared = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": str(threads),
    }
    found = []
    for index in range(count):
        said = tempfile.TemporaryFile()  # noqa: SIM115  # it is read once the process has ended
        process = subprocess.Popen(
            [sys.executable, "-m", "adaptlab.rank", str(folder.path.absolute())],
            stdin=subprocess.PIPE,
            stdout=said,
            env={**os.environ, **shared, "RANK": str(index), "LOCAL_RANK": str(index)},
            start_new_session=True,  # Ctrl-C is ours to pass on
            preexec_fn=_end_with_parent,
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(job)
            process.stdin.close()
        found.append(_Process(index, process, said))
    return found


def _watch(
    processes: Sequence[_Process], folder: RunFolder, stop: Callable[[], bool], listener: Listener
) -> _Process | None:
    """Wait for all of them; the one that ended before its time, if one did."""
    follower, asked = Follower(listener), False
    while True:
        codes = [each.process.poll() for each in processes]
        if all(code == 0 for code in codes):
            return None
        if any(codes):  # neither at work nor ended well
            for each in processes:
                each.end(_END_SECONDS)
            ended = [each for each in processes if each.process.returncode]
            # Those whose neighbour has gone say so before they go: the cause is the one that does not.
            return next((each for each in ended if not each.answer.get("neighbour")), ended[0])
        if stop() and not asked:
            asked = True
            for each in processes:
                each.process.terminate()
        follower.look([folder])
        time.sleep(_LOOK_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: the lock went with whoever held it
