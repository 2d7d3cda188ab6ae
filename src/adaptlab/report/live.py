"""How a study stands at this moment, from its files alone: who runs it, and where, does not matter."""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from adaptlab.errors import RecordError
from adaptlab.runs.record import CurvePoint, Record
from adaptlab.runs.store import RunFolder, StudyFolder

#: A run that has written nothing for so long may have lost its process.
QUIET_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Running:
    """A run under way. ``quiet_seconds`` is the time since it last wrote anything."""

    name: str
    step: int
    total_steps: int | None
    train_loss: float | None
    quiet_seconds: float

    @property
    def share(self) -> float:
        """Of its steps, as far as its curve tells."""
        return min(self.step / self.total_steps, 1.0) if self.total_steps else 0.0


@dataclass(frozen=True, slots=True)
class Best:
    """The method with the best mean on one task so far; ``n`` runs of it have finished."""

    task: str
    model: str
    method: str
    metric: str
    mean: float
    n: int


@dataclass(frozen=True, slots=True)
class Standing:
    """A study at one moment.

    Attributes:
        total: runs of the study, begun or not.
        lost: runs that ended without finishing, with their status and reason.
        damaged: records that cannot be read.
        seconds_left: from the finished runs' duration and how many run at once; ``None`` while nothing can be said.
    """

    total: int
    finished: int
    running: tuple[Running, ...]
    lost: tuple[tuple[str, str], ...]
    damaged: tuple[str, ...]
    best: tuple[Best, ...]
    seconds_left: float | None

    @property
    def to_come(self) -> int:
        """Runs that have not begun."""
        return max(self.total - self.finished - len(self.running) - len(self.lost) - len(self.damaged), 0)

    @property
    def over(self) -> bool:
        """Nothing runs and nothing is left to begin."""
        return not self.running and not self.to_come


class Watcher:
    """Reads what has changed in a study's folder since it last looked.

    Args:
        planned: number of runs that the study asks for; there may be more folders than that from earlier grids.
        clock: the time in seconds, as files have it.
    """

    def __init__(self, folder: Path, planned: int = 0, clock: Callable[[], float] = time.time) -> None:
        self._study = StudyFolder(folder)
        self._planned = planned
        self._clock = clock
        self._records: dict[str, tuple[tuple[int, int], Record | str]] = {}
        self._last_points: dict[str, tuple[tuple[int, int], CurvePoint | None]] = {}

    def look(self) -> Standing:
        """The study as it stands now."""
        runs = self._study.runs()
        found = {run.name: record for run in runs if (record := self._record(run)) is not None}
        records = [record for record in found.values() if isinstance(record, Record)]
        folders = {run.name: run for run in runs}
        running = tuple(
            self._running(folders[name], record)
            for name, record in found.items()
            if isinstance(record, Record) and record.status == "running"
        )
        finished = [record for record in records if record.status == "finished"]
        lost = tuple(
            (record.name, f"{record.status}: {record.error.message}" if record.error else record.status)
            for record in records
            if record.status not in ("finished", "running")
        )
        total = max(self._planned, len(runs))
        left = total - len(finished) - len(lost) - math.fsum(run.share for run in running)
        return Standing(
            total=total,
            finished=len(finished),
            running=running,
            lost=lost,
            damaged=tuple(record for record in found.values() if isinstance(record, str)),
            best=_best(finished),
            seconds_left=_seconds_left(finished, left, len(running)),
        )

    def _record(self, run: RunFolder) -> Record | str | None:
        """The record, or the sentence on why it cannot be read; read again only when the file has changed."""
        stamp = _stamp(run.record_path)
        if stamp is None:
            return None
        known = self._records.get(run.name)
        if known is None or known[0] != stamp:
            try:
                record: Record | str | None = run.read_record()
            except RecordError as error:
                record = str(error).replace(f"{self._study.path}/", "")
            if record is None:
                return None
            known = (stamp, record)
            self._records[run.name] = known
        return known[1]

    def _running(self, run: RunFolder, record: Record) -> Running:
        stamp = _stamp(run.curve_path)
        known = self._last_points.get(run.name)
        if stamp is not None and (known is None or known[0] != stamp):
            try:
                points = run.read_curve()
            except (RecordError, OSError):
                points = []
            known = (stamp, points[-1] if points else None)
            self._last_points[run.name] = known
        last = known[1] if known is not None else None
        wrote = max((mtime for mtime in (_mtime(path) for path in _written(run)) if mtime is not None), default=None)
        return Running(
            name=run.name,
            step=last.step if last else 0,
            total_steps=record.config.resolved.training.steps,
            train_loss=last.train_loss if last else None,
            quiet_seconds=max(self._clock() - wrote, 0.0) if wrote is not None else 0.0,
        )


def _written(run: RunFolder) -> Sequence[Path]:
    """What changes while a run goes on; the folder itself when checkpoints come and go."""
    return (run.record_path, run.curve_path, run.checkpoint, run.path)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size)


def _mtime(path: Path) -> float | None:
    stamp = _stamp(path)
    return None if stamp is None else stamp[0] / 1e9


def _best(finished: Sequence[Record]) -> tuple[Best, ...]:
    """For each task and model; a mean over seeds that are still coming in."""
    scores: dict[tuple[str, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in finished:
        if record.primary is not None and math.isfinite(record.primary.value):
            config = record.config.resolved
            label = config.method.label or config.method.name
            scores[Path(record.config.given.task.name).name, Path(config.model.id).name][label].append(record)
    return tuple(_leading(task, model, by_method) for (task, model), by_method in sorted(scores.items()))


def _leading(task: str, model: str, by_method: Mapping[str, Sequence[Record]]) -> Best:
    primary = next(iter(by_method.values()))[0].primary
    assert primary is not None  # only those were collected
    means = {
        method: statistics.fmean(record.primary.value for record in records if record.primary is not None)
        for method, records in by_method.items()
    }
    method = (max if primary.higher_is_better else min)(means, key=lambda name: means[name])
    return Best(task, model, method, primary.name, means[method], len(by_method[method]))


def _seconds_left(finished: Sequence[Record], left: float, running: int) -> float | None:
    """Mean duration of a finished run, times the runs that are left, over the number that run at once."""
    took = [seconds for record in finished if (seconds := _duration(record)) is not None]
    if left <= 0:
        return 0.0
    return statistics.fmean(took) * left / max(running, 1) if took else None


def _duration(record: Record) -> float | None:
    try:
        began, ended = (datetime.fromisoformat(moment or "") for moment in (record.started, record.ended))
    except ValueError:
        return None
    return max((ended - began).total_seconds(), 0.0)
