"""Run folders into plain rows: the only place where the report touches files.

A record that cannot be read is a :class:`Problem` with its file's name and the reason; it never stops a report.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from adaptlab.errors import RecordError, StudyError
from adaptlab.runs.importers import ForeignRun, read_foreign
from adaptlab.runs.record import (
    Cost,
    CurvePoint,
    DataPart,
    Environment,
    ErrorPart,
    Parameters,
    Primary,
    Record,
    Status,
    TuningPart,
)
from adaptlab.runs.store import RunFolder, StudyFolder


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that could not be used, by its path inside the study, and why."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A run's evaluations during training, in the order of their steps; ``problem`` when the file is damaged."""

    points: tuple[CurvePoint, ...] = ()
    problem: Problem | None = None


@dataclass(frozen=True)
class RunRow:
    """One run as tables and charts need it.

    Attributes:
        method: the label of the method's variant, as tables call it; ``method_name`` is the plugin's.
        warnings: the run's own and those about its data.
        setting: values of whatever else varies inside the selection, e.g. ``{"train_examples": "100"}``.
        given, resolved: the configuration, nested as in record.json.
        idle: paths in ``given`` of values that the run does not look at.
        folder: where the run's files are; ``None`` for a run without any (another tool's result), whose learning
            curve is ``points``.
    """

    study: str
    name: str
    id: str
    task: str
    model: str
    method: str
    method_name: str
    seed: int
    status: Status
    data_seed: int = 0
    setting: Mapping[str, str] = field(default_factory=dict)
    primary: Primary | None = None
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    parameters: Parameters | None = None
    cost: Cost = field(default_factory=Cost)
    data: DataPart | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    idle: frozenset[str] = frozenset()
    resolved: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    tuning: TuningPart | None = None
    environment: Environment = field(default_factory=Environment)
    engine: str = "solo"
    warnings: tuple[str, ...] = ()
    error: ErrorPart | None = None
    started: str | None = None
    ended: str | None = None
    folder: Path | None = None
    points: tuple[CurvePoint, ...] = ()

    @property
    def score(self) -> float | None:
        """The primary metric of a finished run; a run of any other status has none."""
        return self.primary.value if self.primary is not None and self.status == "finished" else None

    @property
    def replicate(self) -> tuple[int, int]:
        """What is repeated to see the spread: the seed and the data seed."""
        return (self.seed, self.data_seed)

    @cached_property
    def curve(self) -> Curve:
        """The learning curve, read when first asked for."""
        return Curve(self.points) if self.folder is None else _read_curve(self.folder, self.study)


@dataclass(frozen=True, eq=False)
class Selection:
    """The rows of one or several studies, in the order of their names. Equal only to itself.

    Attributes:
        problems: files that could not be used.
        waiting: names of the runs that have a folder but no record yet.
        notes: sentences on what the figures of another tool mean.
        where: the conditions that chose the rows, as ``--where`` takes them; ``left_aside`` rows did not meet them.
    """

    studies: tuple[str, ...]
    rows: tuple[RunRow, ...]
    problems: tuple[Problem, ...] = ()
    waiting: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    where: str = ""
    left_aside: int = 0


def read_studies(folders: Sequence[Path]) -> Selection:
    """The runs of ``folders``: studies, or results of other tools (:mod:`adaptlab.runs.importers`).

    A run (by its id) that several folders hold is counted once.

    Raises:
        StudyError: a folder is not there, or holds neither.
    """
    found: dict[str, RunRow] = {}
    problems: list[Problem] = []
    waiting: list[str] = []
    notes: dict[str, None] = {}
    for folder in folders:
        read = _Reading(_study_name(folder), problems, waiting)
        rows = read.study(folder) if _is_study(folder) else read.foreign(folder, notes)
        for row in rows:
            if row.resolved.get("report") is False:
                continue  # a trial of a search: what it cost stands with the runs that it led to
            if row.id not in found or (found[row.id].status != "finished" and row.status == "finished"):
                found[row.id] = row
    named = _with_settings(_with_short_names(list(found.values())))
    studies = tuple(_study_name(folder) for folder in folders)
    return Selection(studies, tuple(named), tuple(problems), tuple(waiting), tuple(notes))


def _is_study(folder: Path) -> bool:
    """Whether adaptlab wrote it.

    Raises:
        StudyError: it is not there.
    """
    if not folder.exists():
        raise StudyError(f"There is no folder {folder}: give the folder that `adaptlab compare --out` wrote.")
    if (folder / "record.json").is_file():
        raise StudyError(f"{folder} is a run's folder: give its study's, {folder.absolute().parent.parent}.")
    return (folder / "runs").is_dir() or StudyFolder(folder).study_path.is_file()


@dataclass(frozen=True)
class _Reading:
    """The runs of one folder; what is not a run goes to ``problems`` and ``waiting``."""

    name: str
    problems: list[Problem]
    waiting: list[str]

    def study(self, folder: Path) -> Iterator[RunRow]:
        for run in StudyFolder(folder).runs():
            row = _read_run(run, self.name)
            if row is None:
                self.waiting.append(run.name)
            elif isinstance(row, Problem):
                self.problems.append(row)
            else:
                yield row

    def foreign(self, folder: Path, notes: dict[str, None]) -> Iterator[RunRow]:
        found = read_foreign(folder)
        if found is None:
            raise StudyError(
                f"{folder} is not a study (it has neither study.yaml nor a folder runs) and holds no results of other "
                "tools (eval_results.json, all_results.json, peft's method_comparison): give a folder that `adaptlab "
                "compare --out` wrote, or one with such results."
            )
        self.problems.extend(Problem(problem.file, problem.reason) for problem in found.problems)
        self.waiting.extend(found.waiting)
        notes |= dict.fromkeys(found.notes)
        for run in found.runs:
            yield _foreign_row(run, self.name)


def _foreign_row(run: ForeignRun, study: str) -> RunRow:
    return RunRow(
        study=study,
        name=run.name,
        id=run.id,
        task=run.task,
        model=run.model,
        method=run.method,
        method_name=run.method_name,
        seed=run.seed,
        status=run.status,
        primary=run.primary,
        metrics=run.metrics,
        parameters=run.parameters,
        cost=run.cost,
        given=run.config,
        resolved=run.config,
        training=run.training,
        environment=run.environment,
        engine=run.tool,
        warnings=run.warnings,
        error=run.error,
        started=run.started,
        points=run.curve,
    )


def curve_problems(rows: Iterable[RunRow]) -> list[Problem]:
    """What is wrong with the curves of ``rows``; reads them all."""
    return [row.curve.problem for row in rows if row.curve.problem is not None]


def _study_name(folder: Path) -> str:
    return folder.resolve().name


def _read_run(run: RunFolder, study: str) -> RunRow | Problem | None:
    try:
        record = run.read_record()
    except RecordError as error:
        return _problem(run.record_path, study, error)
    return None if record is None else _row(record, run.path, study)


def _place(file: Path, study: str) -> str:
    return f"{study}/runs/{file.parent.name}/{file.name}"


def _problem(file: Path, study: str, error: RecordError) -> Problem:
    """The store's sentence, with a path that means the same on every machine."""
    return Problem(_place(file, study), str(error).replace(str(file), "it", 1).rstrip("."))


def _row(record: Record, folder: Path, study: str) -> RunRow:
    given, resolved = record.config.given, record.config.resolved
    return RunRow(
        study=study,
        name=record.name,
        id=record.id,
        folder=folder,
        task=given.task.name,
        model=given.model.id,
        method=resolved.method.label or given.method.label or given.method.name,
        method_name=given.method.name,
        seed=given.seed,
        data_seed=given.task.data_seed,
        status=record.status,
        primary=record.primary,
        metrics=record.metrics,
        parameters=record.parameters,
        cost=record.cost,
        data=record.data,
        given=given.model_dump(mode="json"),
        idle=given.idle(trains=resolved.training.steps != 0),
        resolved=resolved.model_dump(mode="json") | {"identity": record.config.identity.model_dump(mode="json")},
        training=record.training,
        tuning=record.tuning,
        environment=record.environment,
        engine=record.engine,
        warnings=(*record.warnings, *(record.data.warnings if record.data else ())),
        error=record.error,
        started=record.started,
        ended=record.ended,
    )


def _read_curve(folder: Path, study: str) -> Curve:
    run = RunFolder(folder)
    try:
        return Curve(tuple(run.read_curve()))
    except RecordError as error:
        return Curve(problem=_problem(run.curve_path, study, error))
    except OSError as error:
        return Curve(problem=Problem(_place(run.curve_path, study), f"it cannot be read: {error.strerror or error}"))


def _with_short_names(rows: list[RunRow]) -> list[RunRow]:
    """Paths become their shortest endings that tell them apart; equal names of different weights get their hash."""
    models, tasks = _short_names({row.model for row in rows}), _short_names({row.task for row in rows})
    weights: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        weights[row.model] |= {_weights(row)} - {""}
    named = []
    for row in rows:
        model = models[row.model]
        if len(weights[row.model]) > 1 and _weights(row):
            model += f" ({_weights(row).split(':')[-1][:6]})"
        named.append(replace(row, model=model, task=tasks[row.task]))
    return sorted(named, key=lambda row: (row.task, row.model, row.name))


def _weights(row: RunRow) -> str:
    """Digest of the base's weights; empty where another tool did not tell."""
    return str(row.resolved.get("identity", {}).get("weights", ""))


def _short_names(names: set[str]) -> dict[str, str]:
    """Hub ids and plugin names stay; of a path (it starts with ``/``, ``.`` or ``~``) only the end stays."""
    short = {}
    for name in names:
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..", "~")]
        if not name.startswith(("/", ".", "~")) or not parts:
            short[name] = name
            continue
        length = 2 if parts[-1] == "model" else 1  # many a checkpoint lies in a folder of that name
        while length < len(parts) and any(_ends_like(other, parts[-length:]) for other in names - {name}):
            length += 1
        short[name] = "/".join(parts[-length:])
    return short


def _ends_like(path: str, end: list[str]) -> bool:
    return path.split("/")[-len(end) :] == end


#: Settings that are what a comparison is made under, not what is compared: methods meet on equal data.
CONDITIONS = ("train_examples", "select_examples", "eval_examples")


def _with_settings(rows: list[RunRow]) -> list[RunRow]:
    """Fill ``setting``: each option that takes several values within one (task, model, method label) that uses it.

    A condition counts where it takes several values within one (task, model), whatever the methods: a method that saw
    100 rows and another that saw 2,000 were not compared.
    """
    flats = [{key: value for key, value in _flat(row.given).items() if key not in row.idle} for row in rows]
    values: dict[tuple[str, str, str, str], set[str]] = defaultdict(set)
    for row, flat in zip(rows, flats, strict=True):
        for key, value in flat.items():
            method = "" if key.rpartition(".")[2] in CONDITIONS else row.method
            values[row.task, row.model, method, key].add(value)
    axes = sorted({key for (*_, key), seen in values.items() if len(seen) > 1})
    return [
        replace(row, setting={key.rpartition(".")[2]: flat[key] for key in axes if key in flat})
        for row, flat in zip(rows, flats, strict=True)
    ]


#: Not axes: they name the run's place in tables already, or are repeated to see the spread.
_NOT_AXES = {"seed", "task.data_seed", "task.name", "model.id", "method.label"}


def _flat(given: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in given.items():
        path = f"{prefix}{key}"
        if path in _NOT_AXES:
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{path}.")
        else:
            flat[path] = value if isinstance(value, str) else json.dumps(value)
    return flat
