"""``adaptlab run-one``: the one command by which every launcher starts a run."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptlab.cli.output import Json, LogLevel, Output, Quiet

if TYPE_CHECKING:
    from adaptlab.signals import StopRequest
    from adaptlab.worker import Worker

Folders = Annotated[
    list[str],
    typer.Argument(metavar="FOLDER ...", help="Run folders, STUDY/runs/<name>; - reads them from stdin, a line a job."),
]


def run_one(folders: Folders, json: Json = False, quiet: Quiet = False, log_level: LogLevel = "warning") -> None:
    """Do the runs of these folders: what launchers call, on whatever machine.

    They train together where their engine is fused, else one after the other. Prints a line of JSON for each run as it
    ends.
    """
    output = Output.start(json, quiet, log_level)
    from adaptlab.signals import stop_on_signals
    from adaptlab.worker import Experiments, Worker

    with stop_on_signals(signal.SIGUSR2) as stop:  # USR2: Slurm's warning, as submitit asks for it
        worker = Worker(lambda execution: Experiments(execution, stop))
        if not serve(worker, folders, stop, output.note):
            raise typer.Exit(1)


def serve(worker: Worker, folders: Sequence[str], stop: StopRequest, note: Callable[[str], object]) -> bool:
    """Have the runs of ``folders`` done and tell, on stdout, how each ended; False if one did not finish.

    Raises:
        InterruptedRunError: it was asked to stop.
    """
    from adaptlab.errors import InterruptedRunError

    finished = True
    for job in _jobs(folders):
        for answer in worker.run(job):
            print(dumps({"run": answer.run, "status": answer.status, "error": answer.error}), flush=True)
            finished &= answer.status in ("finished", "busy")
            if answer.status == "failed" and answer.error:
                note(f"Error: {answer.error}")
        if stop():
            raise InterruptedRunError("Stopped between two runs, as asked.")
    return finished


def _jobs(folders: Sequence[str]) -> Iterator[list[Path]]:
    """Folders of runs that share a job: those that were given, or a line of stdin."""
    if list(folders) != ["-"]:
        yield [Path(folder) for folder in folders]
        return
    for line in map(str.strip, iter(sys.stdin.readline, "")):
        if line:
            yield [Path(folder) for folder in (loads(line) if line.startswith("[") else [line])]
