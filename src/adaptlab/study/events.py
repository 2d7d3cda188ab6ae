"""What happens while a study runs, as values that a listener (a progress bar, a log) receives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from adaptlab.runs.record import Record


@dataclass(frozen=True, slots=True)
class StudyStarted:
    """``names`` are the runs to do, in order; ``skipped`` those that a former call has settled."""

    folder: str
    names: tuple[str, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunsPacked:
    """Runs were sorted into groups. ``groups`` are names of runs that train together; ``alone`` has, by name, why a
    run does not."""

    groups: tuple[tuple[str, ...], ...]
    alone: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """``from_step`` is above 0 when the run goes on from a checkpoint."""

    name: str
    total_steps: int
    from_step: int = 0


@dataclass(frozen=True, slots=True)
class StepDone:
    """``step`` optimiser steps are done; ``loss`` is the last step's, or None where reading it would cost a sync."""

    name: str
    step: int
    total_steps: int
    loss: float | None = None


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run's record is written, whatever its status."""

    name: str
    record: Record


@dataclass(frozen=True, slots=True)
class StudyEnded:
    """``failed`` names the runs that did not finish (failed, diverged, out of memory)."""

    folder: str
    finished: int
    failed: tuple[str, ...]


Event = StudyStarted | RunsPacked | RunStarted | StepDone | RunEnded | StudyEnded
Listener = Callable[[Event], None]
