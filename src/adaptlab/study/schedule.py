"""Runs what a study still lacks: skips what is settled, leaves to others what they run, keeps what was asked."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from adaptlab.config import KeepWeights, RunConfig
from adaptlab.runs.files import BusyError
from adaptlab.runs.record import SETTLED, Record
from adaptlab.runs.store import RunFolder, StudyFolder
from adaptlab.study.events import Listener, RunEnded, StudyEnded, StudyStarted

_POLL_SECONDS = 1.0


class Runnable(Protocol):
    """What the schedule needs to know of a run."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...


R = TypeVar("R", bound=Runnable)
Execute = Callable[[R, RunFolder], Record]


@dataclass
class Outcome:
    """What a study's schedule came to. ``records`` has every run of it, in order."""

    records: list[Record] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def run_study(
    study: StudyFolder, runs: Sequence[R], execute: Execute[R], *, keep_weights: KeepWeights, listener: Listener
) -> Outcome:
    """Execute every run of ``runs`` that has no settled record, one after the other.

    A run that another process holds is looked at again at the end, until it is settled or free.
    """
    outcome = Outcome()
    records: dict[str, Record] = {}
    waiting = list(runs)
    folders = {run.id: study.run(run.name) for run in runs}
    for run in runs:
        _relabel(study, folders[run.id], run.label)
        record = study.record(folders[run.id])  # without the lock, so nothing is set aside yet
        if record is not None and record.status in SETTLED:
            records[run.id] = record
            outcome.skipped.append(folders[run.id].name)
    waiting = [run for run in runs if run.id not in records]
    names = tuple(folders[run.id].name for run in waiting)
    listener(StudyStarted(str(study.path), names, tuple(outcome.skipped)))
    while waiting:
        busy = []
        for run in waiting:
            folder = folders[run.id]
            try:
                with folder.lock():
                    record = _settled(study, folder) or execute(run, folder)
            except BusyError:
                busy.append(run)
                continue
            records[run.id] = record
            _drop_weights(study, record, keep_weights)
            listener(RunEnded(folder.name, record))
        if len(busy) == len(waiting):
            time.sleep(_POLL_SECONDS)
        waiting = busy
    outcome.records = [records[run.id] for run in runs]
    outcome.failed = [record.name for record in outcome.records if record.status != "finished"]
    finished = sum(record.status == "finished" for record in outcome.records)
    listener(StudyEnded(str(study.path), finished, tuple(outcome.failed)))
    return outcome


def _settled(study: StudyFolder, folder: RunFolder) -> Record | None:
    record = study.settled_record(folder)
    return record if record is not None and record.status in SETTLED else None


def _relabel(study: StudyFolder, folder: RunFolder, label: str) -> None:
    """Give a settled run the label it has in the present study: a grid that has grown tells its variants apart anew."""
    record = study.record(folder)
    if record is None or record.status not in SETTLED or record.config.resolved.method.label == label:
        return
    with contextlib.suppress(BusyError), folder.lock():
        for config in ("given", "resolved"):
            run: RunConfig = getattr(record.config, config)
            method = run.method.model_copy(update={"label": label})
            setattr(record.config, config, run.model_copy(update={"method": method}))
        folder.write_record(record)


def _drop_weights(study: StudyFolder, record: Record, keep: KeepWeights) -> None:
    """Delete adapted weights that were not to be kept: all of them, or all but each method's best on selection."""
    if keep == "all":
        return
    rivals = [record] if keep == "none" else [other for other in study.records() if _variant(other) == _variant(record)]
    best = max(rivals, key=_selection_score) if keep == "best" else None
    for rival in rivals:
        if best is None or rival.name != best.name:
            shutil.rmtree(study.run(rival.name).adapter, ignore_errors=True)


def _variant(record: Record) -> tuple[str, ...]:
    config = record.config.resolved.model_dump(mode="json", exclude={"seed"})
    return (record.config.identity.weights, record.config.identity.data, str(config))


def _selection_score(record: Record) -> float:
    score = record.training.get("select_score")
    if record.status != "finished" or score is None:
        return float("-inf")
    higher = record.primary is None or record.primary.higher_is_better
    return float(score) if higher else -float(score)
