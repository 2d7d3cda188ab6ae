"""job.json: all that a worker is told of the run whose folder it is given; it stays until the run is settled."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from adaptlab.config import ExecutionConfig, Frozen, RunConfig
from adaptlab.errors import RecordError
from adaptlab.runs.files import write_atomically

FILE = "job.json"


class Job(Frozen):
    """A run to be done.

    Attributes:
        id: what it resolved to when it was handed out; a worker that finds another one stops.
        run: with nothing left to decide, so that a worker on another kind of machine decides nothing else.
        given: as the user wrote it, for the record.
    """

    id: str
    run: RunConfig
    given: RunConfig
    execution: ExecutionConfig


def write_job(folder: Path, job: Job) -> None:
    """Put ``job`` into a run's folder. The file names paths of the machine as they are: it is its owner's alone.

    It does not wait for the disk, which took five milliseconds a run and more: a job that a power cut takes is written
    anew by the study's next call.
    """
    write_atomically(folder / FILE, job.model_dump_json(indent=1).encode() + b"\n", private=True, synced=False)


def read_job(folder: Path) -> Job:
    """The job of a run's folder.

    Raises:
        RecordError: there is none, or it is damaged.
    """
    path = folder / FILE
    try:
        return Job.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise RecordError(
            f"{folder} has no {FILE}: give the folder of a run that a launcher has handed out."
        ) from error
    except (OSError, ValidationError) as error:
        raise RecordError(f"{path} is damaged: give the study's command again, which writes it anew.") from error


def remove_job(folder: Path) -> None:
    """Take the job away: its run is settled."""
    (folder / FILE).unlink(missing_ok=True)
