"""The folders of a study and of its runs: atomic, locked, resumable. Layout in docs/records.md.

No torch here; pyarrow and ruamel.yaml are imported by the functions that need them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from adaptlab.config import StudyConfig
from adaptlab.errors import RecordError, StudyError
from adaptlab.runs import studyfile
from adaptlab.runs.files import (
    BusyError,
    append_line,
    cannot_write,
    locked,
    remove_leftovers,
    scrub_document,
    without_secrets,
    write_atomically,
)
from adaptlab.runs.job import FILE as JOB
from adaptlab.runs.job import remove_job
from adaptlab.runs.lease import Lease, Watch, held, is_held
from adaptlab.runs.record import SCHEMA, CurvePoint, Record

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]*-[0-9a-f]{8}")


_CHECKPOINTS = ("checkpoint", "checkpoint.new", "checkpoint.old")


class Item(Protocol):
    """What :meth:`StudyFolder.write_items` needs of an example."""

    @property
    def id(self) -> str: ...
    @property
    def texts(self) -> tuple[str, ...]: ...
    @property
    def label(self) -> int | float | str: ...


@dataclass(frozen=True, slots=True)
class Predictions:
    """A model's answers to one evaluation set.

    Attributes:
        gold, predicted: class indices, numbers or strings, one per id. ``-1`` is an unusable class answer.
        scores: one row per id (class probabilities), or ``None`` where there are none.
    """

    evaluation_set: str
    ids: Sequence[str]
    gold: Sequence[Any]
    predicted: Sequence[Any]
    scores: Sequence[Sequence[float]] | None = None


class RunFolder:
    """What one run leaves behind. Reading never writes; whoever writes holds :meth:`lock`."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._watch = Watch()
        self._lease: Lease | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def record_path(self) -> Path:
        return self.path / "record.json"

    @property
    def curve_path(self) -> Path:
        return self.path / "curve.jsonl"

    @property
    def predictions_path(self) -> Path:
        return self.path / "predictions.parquet"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run: nobody else runs it meanwhile. Creates the folder and removes leftovers of a killed holder.

        A holder that was seen to hang (by this object, over some time) is replaced.

        Raises:
            BusyError: another process (or thread) is running it.
        """
        _make_folder(self.path)
        with held(self.path / ".lock", self._watch, busy=f"Another process is running {self.name}.") as lease:
            self._lease = lease
            try:
                remove_leftovers(self.path)
                yield
            finally:
                self._lease = None

    def hung(self) -> bool:
        """Whether the process that runs it has shown no sign of life since this was first asked, for too long."""
        path = self.path / ".lock"
        return self._watch.hung(path) and is_held(path)

    def free_if_hung(self) -> None:
        """Take the lock away from a process that hangs, for others to have."""
        if self.hung():
            with contextlib.suppress(BusyError), self.lock():
                pass

    def check_mine(self) -> None:
        """Called before something takes its place in the folder.

        Raises:
            LostLeaseError: this process held the run and hung, and another has taken over.
        """
        if self._lease is not None:
            self._lease.check()

    def tidy(self) -> None:
        """Remove what is of no use once the run is settled, if a killed process has left it; the caller holds it."""
        for name in _CHECKPOINTS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        remove_job(self.path)

    def is_tidy(self) -> bool:
        """Whether :meth:`tidy` would find nothing."""
        with os.scandir(self.path) as entries:
            return not any(e.name in (*_CHECKPOINTS, JOB) or e.name.endswith(".tmp") for e in entries)

    def read_record(self) -> Record | None:
        """The record, or ``None`` if there is none yet.

        Raises:
            RecordError: record.json is damaged or of another schema; :meth:`set_aside_record` makes way for a rerun.
        """
        try:
            content = self.record_path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RecordError(f"Cannot read {self.record_path} ({error.strerror}).") from error
        return _parse_record(self.record_path, content)

    def write_record(self, record: Record) -> None:
        """Replace the record atomically, without the home folder and secrets in any of its texts.

        Raises:
            StudyError: it cannot be written; the old record is still there.
        """
        document = scrub_document(json.loads(record.model_dump_json(by_alias=True)))
        content = json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
        write_atomically(self.record_path, content, may_replace=self.check_mine)

    def set_aside_record(self) -> Path:
        """Rename a damaged record to ``record.json.damaged-<n>``; returns the new path."""
        taken = {path.name for path in self.path.glob("record.json.damaged-*")}
        number = next(n for n in range(1, len(taken) + 2) if f"record.json.damaged-{n}" not in taken)
        return self.record_path.rename(self.path / f"record.json.damaged-{number}")

    def append_curve(self, point: CurvePoint) -> None:
        """Add a line to curve.jsonl."""
        append_line(self.curve_path, point.model_dump_json().encode(), may_add=self.check_mine)

    def read_curve(self) -> list[CurvePoint]:
        """Every point; a torn last line (the process was killed while writing it) is left out.

        Raises:
            RecordError: another line is damaged.
        """
        try:
            lines = self.curve_path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        points = []
        for number, line in enumerate(lines, start=1):
            try:
                points.append(CurvePoint.model_validate_json(line))
            except ValidationError as error:
                raise RecordError(
                    f"{self.curve_path}:{number} is damaged: delete the run's folder, and it runs again."
                ) from error
        return points

    def truncate_curve(self, step: int) -> None:
        """Drop the points after ``step``: a run that goes on from a checkpoint writes them again."""
        if not self.curve_path.exists():
            return
        kept = [point for point in self.read_curve() if point.step <= step]
        # Always a new file: a process that hung while it added to the old one adds to nothing when it wakes up.
        content = b"".join(point.model_dump_json().encode() + b"\n" for point in kept)
        write_atomically(self.curve_path, content, may_replace=self.check_mine)

    def write_predictions(self, predictions: Sequence[Predictions]) -> None:
        """Write predictions.parquet: every evaluation set, in columns evaluation_set, id, gold, prediction, scores."""
        import pyarrow as pa

        column: dict[str, list[Any]] = {"evaluation_set": [], "id": [], "gold": [], "prediction": [], "scores": []}
        for part in predictions:
            column["evaluation_set"].extend([part.evaluation_set] * len(part.ids))
            column["id"].extend(part.ids)
            column["gold"].extend(part.gold)
            column["prediction"].extend(part.predicted)
            column["scores"].extend([None] * len(part.ids) if part.scores is None else part.scores)
        answers = _answer_type(column["gold"])
        schema = pa.schema(
            [
                ("evaluation_set", pa.string()),
                ("id", pa.string()),
                ("gold", answers),
                ("prediction", answers),
                ("scores", pa.list_(pa.float32())),
            ]
        )
        _write_parquet(self.predictions_path, pa.table(column, schema=schema), may_replace=self.check_mine)

    def read_predictions(self) -> dict[str, Predictions]:
        """What :meth:`write_predictions` wrote, by evaluation set; empty if there is nothing.

        Raises:
            RecordError: the file is damaged.
        """
        if not self.predictions_path.exists():
            return {}
        table = _read_parquet(self.predictions_path)
        found: dict[str, list[dict[str, Any]]] = {}
        for row in table.to_pylist():
            found.setdefault(row["evaluation_set"], []).append(row)
        return {
            name: Predictions(
                evaluation_set=name,
                ids=[row["id"] for row in rows],
                gold=[row["gold"] for row in rows],
                predicted=[row["prediction"] for row in rows],
                scores=None if rows[0]["scores"] is None else [row["scores"] for row in rows],
            )
            for name, rows in found.items()
        }


class StudyFolder:
    """A study's folder. ``damaged`` collects a sentence for each record that could not be read."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.damaged: list[str] = []

    @property
    def study_path(self) -> Path:
        return self.path / "study.yaml"

    @classmethod
    def open_or_create(cls, path: Path | str, study: StudyConfig) -> StudyFolder:
        """The folder at ``path``, with ``study`` merged into its study.yaml. Safe among several processes.

        Raises:
            StudyError: ``path`` is no folder of ours, or holds a study with another task or protocol.
        """
        folder = cls(path)
        folder._refuse_foreign()
        _make_folder(folder.path)
        with folder._lock():
            remove_leftovers(folder.path)
            folder._refuse_foreign()
            merged = study
            if folder.study_path.exists():
                merged = studyfile.merge(folder.read_study(), study, str(folder.path))
            text = studyfile.dump(merged)
            if not folder.study_path.exists() or folder.study_path.read_text("utf-8") != text:
                write_atomically(folder.study_path, text.encode())
        return folder

    def read_study(self) -> StudyConfig:
        """The study of study.yaml.

        Raises:
            StudyError: there is none, or it is not one of ours.
        """
        try:
            return studyfile.parse(self.study_path.read_text("utf-8"))
        except FileNotFoundError as error:
            raise StudyError(
                f"{self.path} is not a study's folder (no study.yaml): give what `adaptlab compare --out` wrote."
            ) from error
        except (ValueError, OSError) as error:
            raise StudyError(
                f"{self.study_path} is not a study of adaptlab: give another folder, or move that file away."
            ) from error

    def run(self, name: str) -> RunFolder:
        """The folder of the run called ``name``; as :meth:`folders`."""
        (folder,) = self.folders([name])
        return folder

    def folders(self, names: Sequence[str]) -> list[RunFolder]:
        """The folders of the runs called ``names``, each of which ends in the first 8 digits of its run's id.

        A run that is already there under another label (a later study tells variants apart) keeps its folder. What is
        there is listed once, however many names are asked for.
        """
        for name in names:
            if _RUN_NAME.fullmatch(name) is None:
                raise StudyError(
                    f"'{name}' cannot name a run: it must be one folder name that ends in 8 digits of its id."
                )
        runs = self.path / "runs"
        with self._lock():
            _make_folder(runs)
            with os.scandir(runs) as entries:
                there = sorted((entry.name for entry in entries if _is_run(entry)), reverse=True)
            present = {name[-8:]: name for name in there}  # the first by name counts
            for name in names:
                if name[-8:] not in present:
                    _make_folder(runs / name)
                    present[name[-8:]] = name
        return [RunFolder(runs / present[name[-8:]]) for name in names]

    def runs(self) -> list[RunFolder]:
        """Every run's folder, by name."""
        runs = self.path / "runs"
        if not runs.is_dir():
            return []
        return [RunFolder(path) for path in sorted(runs.iterdir()) if path.is_dir() and not path.name.startswith(".")]

    def records(self) -> list[Record]:
        """Every readable record; the others are named in ``damaged``. Nothing is written."""
        return [record for run in self.runs() if (record := self.record(run)) is not None]

    def record(self, run: RunFolder) -> Record | None:
        """The record of ``run``, or ``None``; a damaged one is named in ``damaged``. Nothing is written."""
        try:
            return run.read_record()
        except RecordError as error:
            if str(error) not in self.damaged:
                self.damaged.append(str(error))
            return None

    def settled_record(self, run: RunFolder) -> Record | None:
        """As :meth:`record`, and a damaged one is set aside so that the run can start again.

        The caller holds the run's lock: without it, a rival's fresh record could be taken for the damaged one.
        """
        record = self.record(run)
        if record is None and run.record_path.exists():
            aside = run.set_aside_record()
            self.damaged.append(f"{run.record_path} was set aside as {aside.name}; the run starts again.")
        return record

    def items_path(self, task_name: str, evaluation_set: str) -> Path:
        """Where the rows of an evaluation set stand."""
        return self.path / "items" / f"{safe_name(task_name)}-{safe_name(evaluation_set)}.parquet"

    def write_items(self, task_name: str, evaluation_set: str, examples: Sequence[Item]) -> None:
        """Keep id, text (a pair is joined by a tab) and gold of a set's rows; those not there yet are added.

        Texts are for people to read: secrets in them are not kept.
        """
        import pyarrow as pa

        path = self.items_path(task_name, evaluation_set)
        with self._lock():
            _make_folder(path.parent)
            remove_leftovers(path.parent)
            rows = {row["id"]: row for row in _read_parquet(path).to_pylist()} if path.exists() else {}
            known = len(rows)
            for example in examples:
                text = without_secrets("\t".join(example.texts))
                row = {"id": example.id, "text": text, "gold": example.label}
                rows.setdefault(example.id, row)
            if len(rows) > known:
                gold = _answer_type([row["gold"] for row in rows.values()])
                schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("gold", gold)])
                _write_parquet(path, pa.Table.from_pylist(list(rows.values()), schema=schema))

    def _lock(self) -> AbstractContextManager[None]:
        return locked(self.path / ".lock", wait=True, busy="")

    def _refuse_foreign(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise StudyError(f"{self.path} is a file: give a folder for --out.")
        if not self.path.is_dir() or self.study_path.exists():
            return
        if any(not entry.name.startswith((".lock", ".study.yaml.")) for entry in self.path.iterdir()):
            raise StudyError(
                f"{self.path} is not empty and has no study.yaml of adaptlab: give a new or empty folder for --out."
            )


def _is_run(entry: os.DirEntry[str]) -> bool:
    return _RUN_NAME.fullmatch(entry.name) is not None and entry.is_dir()


def safe_name(text: str) -> str:
    """``text`` with only characters that every file system takes; never empty, never a path, never with a secret."""
    return re.sub(r"[^A-Za-z0-9._+=]+", "-", without_secrets(text)).strip("-.") or "unnamed"


def _parse_record(path: Path, content: bytes) -> Record:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is damaged (not JSON, or cut off).") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise RecordError(f"{path} has schema {schema!r}, this version of adaptlab reads {SCHEMA}.")
    try:
        return Record.model_validate(document)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise RecordError(f"{path} is damaged ({where}: {error.errors()[0]['msg']}).") from error


def _answer_type(gold: Sequence[Any]) -> Any:
    import pyarrow as pa

    if all(isinstance(value, Integral) for value in gold):
        return pa.int64()
    return pa.string() if all(isinstance(value, str) for value in gold) else pa.float64()


def _write_parquet(path: Path, table: Any, *, may_replace: Callable[[], None] = lambda: None) -> None:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue(), may_replace=may_replace)


def _read_parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(io.BytesIO(path.read_bytes()))
    except (pa.ArrowException, OSError) as error:
        raise RecordError(f"{path} is damaged ({error}).") from error


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
