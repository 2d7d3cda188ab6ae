"""What a launcher is: it starts `adaptlab run-one FOLDER` somewhere and knows when that has ended.

A launcher plugin is one file in this folder with ``plugin = <Launcher>()``; importing it must not import torch, ray or
submitit. A shared file system is all that passes between a study and its workers: the launcher hands over a folder, and
what became of the run stands in its record.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict

from adaptlab.config import ExecutionConfig
from adaptlab.runs.files import scrub
from adaptlab.signals import StopRequest
from adaptlab.study.schedule import Pool


class LaunchOptions(BaseModel):
    """Base of a launcher's own options: frozen, unknown keys refused, values converted from text."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Launcher(ABC):
    """Base of every launcher.

    Attributes:
        name: what ``--launcher`` takes.
        Config: the pydantic model of its options (``--launch OPTION=V``, or ``launch:`` in YAML).
    """

    name: str
    summary: str
    Config: type[LaunchOptions] = LaunchOptions

    @abstractmethod
    def open(self, study: Path, execution: ExecutionConfig, options: Any, stop: StopRequest) -> Pool:
        """Make ready to take runs of the study in folder ``study``.

        Args:
            options: an instance of ``Config``.
            stop: asked while waiting; once true, the pool's ``wait`` raises InterruptedRunError.

        Raises:
            ConfigError: what it needs is not installed or cannot be reached; says what to do.
        """

    def device(self, execution: ExecutionConfig, options: Any) -> str | None:
        """``cpu`` or ``cuda``: what the workers compute on, where that need not be what this machine has."""
        return None


def command(folders: Sequence[str]) -> list[str]:
    """The command that does these runs, with this interpreter."""
    return [sys.executable, "-m", "adaptlab", "run-one", "--quiet", *folders]


def answers(lines: Iterable[bytes]) -> Iterator[dict[str, str]]:
    """What the command told of its runs on stdout, among whatever else was printed there."""
    for line in lines:
        with contextlib.suppress(ValueError):
            told = json.loads(line)
            if isinstance(told, dict) and {"run", "status"} <= told.keys():
                yield {"run": str(told["run"]), "status": str(told["status"]), "error": str(told.get("error", ""))}


def keep_log(said: IO[bytes], log: IO[bytes]) -> threading.Thread:
    """Copy what a process says into its log, line by line and without secrets, in a thread that ends when it does."""

    def copy() -> None:
        with said:
            for line in said:
                log.write(scrub(line.decode(errors="replace"), working_folder=False).encode())
                log.flush()

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread
