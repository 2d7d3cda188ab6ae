"""``adaptlab run-one``: the one command by which every launcher starts a run."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from adaptlab.cli.output import Json, LogLevel, Output, Quiet

Folders = Annotated[
    list[str],
    typer.Argument(metavar="FOLDER ...", help="Run folders, STUDY/runs/<name>; - reads them from stdin, one a line."),
]


def run_one(folders: Folders, json: Json = False, quiet: Quiet = False, log_level: LogLevel = "warning") -> None:
    """Do the runs of these folders, one after the other: what launchers call, on whatever machine.

    Prints a line of JSON for each run as it ends.
    """
    output = Output.start(json, quiet, log_level)
    from adaptlab.errors import AdaptlabError, InterruptedRunError
    from adaptlab.runs.files import BusyError
    from adaptlab.signals import stop_on_signals
    from adaptlab.worker import Worker

    failed = False
    with stop_on_signals(signal.SIGUSR2) as stop:  # USR2: Slurm's warning, as submitit asks for it
        worker = Worker(lambda event: None, stop)
        for folder in _each(folders):
            try:
                record = worker.run(folder)
                answer = {"run": folder.name, "status": record.status}
                failed |= record.status != "finished"
            except InterruptedRunError:
                _tell({"run": folder.name, "status": "interrupted"})
                raise
            except BusyError as error:
                answer = {"run": folder.name, "status": "busy", "error": str(error)}
            except AdaptlabError as error:
                answer = {"run": folder.name, "status": "failed", "error": str(error)}
                output.note(f"Error: {error}")
                failed = True
            _tell(answer)
            if stop():
                raise InterruptedRunError("Stopped between two runs, as asked.")
    if failed:
        raise typer.Exit(1)


def _each(folders: Iterable[str]) -> Iterator[Path]:
    for folder in folders:
        if folder == "-":
            yield from (Path(line.strip()) for line in iter(sys.stdin.readline, "") if line.strip())
        else:
            yield Path(folder)


def _tell(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)
