"""One of the processes that do a run together: ``python -m adaptlab.rank FOLDER``, with the job on stdin.

:mod:`adaptlab.devices` starts it and says by the environment (``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ...) which of
them it is; accelerate finds the device and the way to talk to the others. It ends with exit code 0, whatever became of
the run, unless the others have to be ended because of it; then it says why on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from adaptlab.errors import AdaptlabError, InterruptedRunError
from adaptlab.experiment import execute
from adaptlab.resolve import Resolver, device
from adaptlab.runs.job import Job
from adaptlab.runs.record import SETTLED, Record
from adaptlab.runs.store import RunFolder, StudyFolder
from adaptlab.signals import stop_on_signals
from adaptlab.training.ranks import LostProcessError, Together, among
from adaptlab.workshop import Workshop


class _Aside(RunFolder):
    """Where a process that does not write puts what it would: all but the checkpoint is its own."""

    def __init__(self, path: Path, real: RunFolder) -> None:
        super().__init__(path)
        self._real = real

    @property
    def checkpoint(self) -> Path:
        return self._real.checkpoint


def do_part(path: Path, job: Job) -> Record:
    """This process's part of the job, among those that the environment names (``RANK``, ``WORLD_SIZE``, ...)."""
    from accelerate import PartialState

    resolver = Resolver(job.execution)
    on_cpu = device(job.execution.device) == "cpu"
    state = PartialState(cpu=on_cpu, **({"backend": "gloo"} if on_cpu else {}))
    run = replace(resolver.resolve(job.run), given=job.given)
    ranks, folder, study = Together(state.device), RunFolder(path), StudyFolder(path.parent.parent)
    silent = {"track": (), "profile": False, "keep_weights": "none"}
    execution = job.execution if ranks.first else job.execution.model_copy(update=silent)
    with stop_on_signals(signal.SIGUSR2) as stop, tempfile.TemporaryDirectory() as aside, among(ranks):
        if not ranks.first:
            own = Path(aside) / "runs" / folder.name
            own.mkdir(parents=True)
            folder, study = _Aside(own, folder), StudyFolder(Path(aside))
        record = execute(run, folder, study, Workshop(execution, lambda event: None, stop))
        if record.status in SETTLED:
            with contextlib.suppress(LostProcessError):
                ranks.total([0.0])  # nobody goes while another is still adding up
        return record


def _main() -> None:
    answer: dict[str, Any] = {}
    try:
        record = do_part(Path(sys.argv[1]), Job.model_validate_json(sys.stdin.buffer.read()))
        if record.status not in SETTLED and record.error is not None:
            answer = {"error": f"{record.error.type}: {record.error.message}"}
    except LostProcessError as error:
        answer = {"error": str(error), "neighbour": True}
    except InterruptedRunError:
        pass  # as asked: the record says so
    except AdaptlabError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
    os._exit(1 if answer else 0)  # without waiting for a process group that may have lost a member


if __name__ == "__main__":
    _main()
