"""From a model, a task and a budget to the best adapted model: the limits, the race, the export."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from adaptlab.config import RunConfig, StudyConfig
from adaptlab.errors import ConfigError
from adaptlab.exporting import export
from adaptlab.planning import plan
from adaptlab.report import write_report
from adaptlab.runs.files import write_atomically
from adaptlab.runs.record import Record
from adaptlab.runs.store import StudyFolder
from adaptlab.study.expand import expand
from adaptlab.study.racing import FILE, Choice, Race, entrants
from adaptlab.study.tuning import Do, selection_score

MODEL = "model"
#: Kept for the export and its check in a fresh process: seconds, but no more than this share of the budget.
_EXPORT_SECONDS, _EXPORT_SHARE = 30.0, 0.2


@dataclass(frozen=True)
class Chosen:
    """What :func:`adaptlab.choose` leaves behind; ``choice.json`` in the study's folder has the same.

    Attributes:
        method, learning_rate: of the winner.
        score, stderr, rows: of its best seed's model, on the report rows, which nothing looked at before; ``stderr`` is
            over the rows.
        seed_scores: of each seed, on the same rows.
        model: the exported model's folder.
        tied: methods whose last trial came within a standard error of the winner's.
        left_out: methods that were not tried, and why.
        tried: every trial: method, rate, steps, selection score, seconds.
        page: the report.
    """

    folder: Path
    method: str
    learning_rate: float
    metric: str
    score: float
    stderr: float | None
    rows: int
    seed_scores: list[float]
    model: Path
    page: Path
    seconds: float
    budget_seconds: float
    tied: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    tried: list[dict[str, Any]] = field(default_factory=list)


def choose(
    study: StudyConfig,
    opened: Callable[[], AbstractContextManager[tuple[StudyFolder, Do]]],
    *,
    budget_seconds: float,
    max_parameters: float | None,
    max_memory_bytes: float | None,
    clock: Callable[[], float] = time.monotonic,
) -> Chosen:
    """See :func:`adaptlab.choose`; ``opened`` gives the study's folder, and what has runs done in it."""
    for name in ("model", "task", "train_examples", "data_seed", "max_length", "batch_size"):
        if len(getattr(study, name)) > 1:
            raise ConfigError(f"choose finds the best method for one {name.replace('_', '-')}: give a single one.")
    runs = {run.method.label: run for run in expand(study) if run.seed == study.seeds[0]}
    outside = _outside(study, max_parameters, max_memory_bytes)
    inside = [run for label, run in runs.items() if label not in outside]
    if not inside:
        raise ConfigError(f"No method keeps to the limits: {'; '.join(f'{k} {v}' for k, v in outside.items())}.")
    with opened() as (folder, do):
        former = _former(folder.path)
        if former is not None and former.budget_seconds >= budget_seconds:
            return former
        race = Race(
            entrants(inside),
            do,
            partial(_whole, inside[0]),
            study.seeds,
            budget_seconds=budget_seconds,
            reserve_seconds=min(_EXPORT_SECONDS, _EXPORT_SHARE * budget_seconds),
            folder=folder.path,
            left_out=outside,
            clock=clock,
        )
        return _handed_over(folder, race.run(), race)


def _whole(run: RunConfig, record: Record) -> int:
    """Steps of a whole run over as many rows as ``record`` has trained on."""
    assert record.data is not None
    per_epoch = math.ceil(record.data.sizes["train"] / run.training.batch_size)
    return run.training.steps or math.ceil((run.training.epochs or 1.0) * per_epoch)


def _outside(study: StudyConfig, max_parameters: float | None, max_memory_bytes: float | None) -> dict[str, str]:
    """The methods that do not keep to the limits, by label, and why."""
    if max_parameters is None and max_memory_bytes is None:
        return {}
    found = {}
    for planned in plan(study.model_copy(update={"seeds": study.seeds[:1]}), costs=max_memory_bytes is not None):
        trained = planned.trainable + planned.head
        base = planned.total - (planned.trainable if planned.total > planned.trainable else 0)
        most = math.inf if max_parameters is None else max_parameters * (base if max_parameters < 1 else 1)
        if trained > most:
            found[planned.method] = f"trains {trained:,} numbers, and {most:,.0f} are allowed"
        elif max_memory_bytes is not None and planned.forecast and planned.forecast.memory_bytes > max_memory_bytes:
            needed, allowed = planned.forecast.memory_bytes / 1e9, max_memory_bytes / 1e9
            found[planned.method] = f"would take {needed:.2f} GB, and {allowed:.2f} GB are allowed"
    return found


def _former(folder: Path) -> Chosen | None:
    """What a former call came to, if it came to an end."""
    try:
        document = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return None
    names = set(Chosen.__dataclass_fields__) - {"folder", "model", "page"}
    if not names <= set(document):
        return None
    written = {name: document[name] for name in names}
    return Chosen(folder=folder, model=folder / MODEL, page=folder / "report" / "index.html", **written)


def _handed_over(folder: StudyFolder, choice: Choice, race: Race) -> Chosen:
    """Export the winner's best seed (by its selection score), draw the report, and write it all down."""
    best = max(choice.records, key=_selection)
    if best.primary is None:
        raise ConfigError(f"The winner's final run {best.name} is {best.status}: see its record.")
    to = folder.path / MODEL
    run = folder.run(best.name)
    if not to.exists():
        export((run, best), to)
    written = write_report([folder.path])
    choice.seconds = race.seconds
    chosen = Chosen(
        folder=folder.path,
        method=choice.method,
        learning_rate=choice.learning_rate,
        metric=best.primary.name,
        score=best.primary.value,
        stderr=best.primary.stderr,
        rows=best.primary.n or 0,
        seed_scores=[record.primary.value for record in choice.records if record.primary is not None],
        model=to,
        page=written.page,
        seconds=choice.seconds,
        budget_seconds=choice.budget_seconds,
        tied=choice.tied,
        left_out=choice.left_out,
        tried=[asdict(tried) for tried in choice.tried],
    )
    _write(chosen)
    return chosen


def _write(chosen: Chosen) -> None:
    document = {name: value for name, value in asdict(chosen).items() if name not in ("folder", "model", "page")}
    write_atomically(chosen.folder / FILE, json.dumps(document, indent=1).encode() + b"\n")


def _selection(record: Record) -> float:
    score = selection_score(record)
    return -math.inf if score is None else score
