"""The user's own rows: a file, a folder with train, validation and test files, or any data set of the hub."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptlab.config import Prompt, TaskConfig
from adaptlab.errors import ConfigError, DataError
from adaptlab.tasks._base import DataAccess, Example, Kind, Task, TaskData
from adaptlab.tasks._labels import Meaning, interpret, unlabelled
from adaptlab.tasks._prompts import plain_prompts
from adaptlab.tasks._sources import Address, find_rows
from adaptlab.tasks._splits import Published, assemble, fingerprint, report_subset
from adaptlab.tasks._table import FORMATS, Table, format_of, read_table

#: Usual names of a pair's columns, then of a single text, then of the label; the first that is there counts.
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("query", "document"),
    ("query", "passage"),
)
TEXTS = (
    "text",
    "sentence",
    "content",
    "review",
    "comment",
    "document",
    "body",
    "message",
    "tweet",
    "utterance",
    "question",
    "input",
    "prompt",
    "article",
)
LABELS = (
    "label",
    "labels",
    "target",
    "class",
    "category",
    "gold_label",
    "sentiment",
    "intent",
    "score",
    "rating",
    "stars",
    "answer",
    "output",
    "response",
    "completion",
    "summary",
)

_METRICS: dict[Kind, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1"),
    "regression": ("pearson", "spearman"),
    "generation": ("rouge_l", "exact_match"),
}

#: File names of the splits in a folder.
SPLITS = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
    "unlabelled": ("unlabelled", "unlabeled"),
}


@dataclass(frozen=True, slots=True)
class _Columns:
    texts: tuple[str, ...]
    label: str
    explanation: str | None


@dataclass(frozen=True, slots=True)
class _Source:
    """Tables by split, and what they are called in messages. ``source`` is for the record."""

    tables: dict[str, Table]
    names: dict[str, str]
    source: str
    revision: str | None
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class _Rows:
    by_split: dict[str, list[Example]]
    meaning: Meaning
    columns: _Columns
    source: _Source
    unlabelled: list[Example]

    @property
    def metrics(self) -> tuple[str, ...]:
        return _METRICS[self.meaning.kind]

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        texts = self.columns.texts
        if self.meaning.kind != "generation":
            return plain_prompts(texts)
        return plain_prompts(texts, self.columns.label, written=[str(text) for text in self.meaning.values["train"]])


class OwnRows(Task):
    """Rows about which the user says where text and label stand, or their columns' names do.

    Kind, labels and metrics are in the ``TaskData`` that ``load`` gives: only the rows tell. ``name`` is the same for
    all of them, because a run is known by what the rows say and not by where they lie.
    """

    name = "files"
    version = 1
    kind = "classification"
    metrics = ()

    @abstractmethod
    def read(self, config: TaskConfig, access: DataAccess) -> _Source:
        """The tables, train among them."""

    def load(self, config: TaskConfig, access: DataAccess) -> TaskData:
        """Read the rows and find out what they ask. See ``Task.load``."""
        rows = self._rows(config, access)
        splits = rows.by_split
        return assemble(
            Published(
                train=splits["train"],
                validation=splits.get("validation", ()),
                test=splits.get("test", ()),
                unlabelled=rows.unlabelled,
                report_name="validation" if "validation" in splits and "test" not in splits else "test",
            ),
            kind=rows.meaning.kind,
            labels=rows.meaning.names,
            metrics=rows.metrics,
            config=config,
            columns=rows.columns.texts,
            prompts=rows.prompts,
            source=rows.source.source,
            revision=rows.source.revision,
            warnings=rows.source.warnings,
        )

    def look(self, config: TaskConfig, access: DataAccess) -> TaskData:
        """The test rows, else the validation rows, else all there are."""
        rows = self._rows(config, access)
        split = next(split for split in ("test", "validation", "train") if split in rows.by_split)
        report, warnings = report_subset(rows.by_split[split], config, split)
        return TaskData(
            kind=rows.meaning.kind,
            labels=rows.meaning.names,
            train=(),
            select=(),
            report={split: report},
            source=rows.source.source,
            revision=rows.source.revision,
            fingerprint=fingerprint(rows.meaning.kind, rows.meaning.names, {split: report}),
            warnings=(*rows.source.warnings, *warnings),
            metrics=rows.metrics,
            columns=rows.columns.texts,
        )

    def _rows(self, config: TaskConfig, access: DataAccess) -> _Rows:
        source = self.read(config, access)
        tables, names = source.tables, source.names
        columns = _find_columns(tables["train"], names["train"], config)
        bare = tables.pop("unlabelled", None)
        questions = [] if bare is None else _texts(bare, columns, names["unlabelled"])
        if bare is not None and config.unlabelled_examples == 0:
            source.warnings.append(
                f"{names['unlabelled']} is not used: --unlabelled-examples says how many rows of it."
            )
        if "test" in tables and columns.label not in tables["test"].columns:
            del tables["test"]
            source.warnings.append(f"{names['test']} has no column '{columns.label}': it is not used.")
        answers = {split: _answers(table, columns, names[split]) for split, table in tables.items()}
        if "test" in answers and unlabelled(answers["test"], answers["train"]):
            del tables["test"], answers["test"]
            source.warnings.append(f"{names['test']} has the label -1 on every row, which means none: it is not used.")
        meaning = interpret(answers, tables["train"].class_names.get(columns.label), names)
        by_split = {
            split: [
                Example(f"{split}/{place}", text, label, explanation=why)
                for place, (text, label, why) in enumerate(
                    zip(
                        _texts(table, columns, names[split]),
                        meaning.values[split],
                        _explanations(table, columns),
                        strict=True,
                    )
                )
            ]
            for split, table in tables.items()
        }
        without = [Example(f"unlabelled/{place}", text, 0) for place, text in enumerate(questions)]
        return _Rows(by_split, meaning, columns, source, without)


class FileTask(OwnRows):
    """A file (csv, tsv, jsonl, parquet; gzipped or not), or a folder with one such file a split."""

    summary = "your own rows: a csv, tsv, jsonl or parquet file, or a folder with train, validation and test files"

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, config: TaskConfig, access: DataAccess) -> _Source:
        files, warnings = _split_files(self.path)
        tables = {split: read_table(file, config.delimiter) for split, file in files.items()}
        return _Source(tables, {split: file.name for split, file in files.items()}, self.path.name, None, warnings)


class HubRows(OwnRows):
    """Any data set on the hub, or in a data root: ``hub:org/name``, ``hub:org/name/config``, ``hub:org/name@revision``.

    Its columns are given, or found, as those of a file.
    """

    summary = "any data set of the hub by its id, as hub:org/name or hub:org/name/config"
    prefix = "hub:"

    def __init__(self, name: str) -> None:
        written, _, revision = name.removeprefix(self.prefix).partition("@")
        parts = written.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise ConfigError(f"'{name}' names no data set: give hub:org/name, or hub:org/name/config.")
        self.address = Address("/".join(parts[:2]), parts[2] if len(parts) == 3 else None, revision or None)
        self.hub_id = self.address.hub_id

    def read(self, config: TaskConfig, access: DataAccess) -> _Source:
        if config.delimiter is not None:
            raise ConfigError(f"--delimiter was given for {self.address}, which is no text file: leave it out.")
        found = find_rows(self.address, ["train"], ["validation", "test"], access)
        names = {split: f"{self.address}/{split}" for split in found.tables}
        return _Source(dict(found.tables), names, str(self.address), found.revision, [])


def _split_files(path: Path) -> tuple[dict[str, Path], list[str]]:
    """The file of each split, and a warning for every file that is none's."""
    if not path.is_dir():
        return {"train": path}, []
    there = sorted(file for file in path.iterdir() if file.is_file() and format_of(file) is not None)
    found: dict[str, Path] = {}
    warnings = []
    for file in there:
        stem = file.name.lower().split(".")[0]
        split = next((split for split, stems in SPLITS.items() if stem in stems), None)
        if split is None:
            warnings.append(f"{file.name} is called neither train, validation nor test: it is not used.")
        elif split in found:
            raise DataError(f"{path.name} has two {split} files, {found[split].name} and {file.name}: keep one.")
        else:
            found[split] = file
    if "train" not in found:
        names = ", ".join(file.name for file in there) or "no data file"
        wanted = ", ".join(f"train.{format}" for format in FORMATS)
        raise DataError(f"The folder {path.name} has none of {wanted}: it has {names}.")
    return found, warnings


def _find_columns(table: Table, file: str, config: TaskConfig) -> _Columns:
    there = ", ".join(table.columns)
    given = [*(config.text_columns or ()), *filter(None, [config.label_column, config.explanation_column])]
    for column in given:
        if column not in table.columns:
            raise DataError(f"{file} has no column '{column}': its columns are {there}.")
    apart = (*(config.text_columns or ()), config.explanation_column or "")
    label = config.label_column or _usual(table, LABELS, excluding=apart)
    if label is None:
        raise DataError(
            f"{file} has no column with a usual name for the label: its columns are {there}; "
            "say which with --label-column."
        )
    texts = config.text_columns or _usual_texts(table, (label, *filter(None, [config.explanation_column])))
    if texts is None:
        raise DataError(
            f"{file} has no column with a usual name for the text: its columns are {there}; "
            "say which (one or two) with --text-columns."
        )
    if len(texts) > 2 or label in texts:
        raise DataError(f"The text columns {', '.join(texts)} do not do: give one or two, and not the label '{label}'.")
    return _Columns(tuple(texts), label, config.explanation_column)


def _usual_texts(table: Table, used: Sequence[str]) -> tuple[str, ...] | None:
    for pair in PAIRS:
        columns = [_usual(table, (name,), excluding=used) for name in pair]
        if None not in columns:
            return tuple(column for column in columns if column is not None)
    single = _usual(table, TEXTS, excluding=used)
    others = [column for column in table.columns if column not in used]
    if single is None and len(others) == 1:
        return (others[0],)
    return None if single is None else (single,)


def _usual(table: Table, names: Sequence[str], excluding: Sequence[str]) -> str | None:
    by_lower = {column.strip().lower(): column for column in reversed(list(table.columns)) if column not in excluding}
    return next((by_lower[name] for name in names if name in by_lower), None)


def _texts(table: Table, columns: _Columns, file: str) -> list[tuple[str, ...]]:
    for name in columns.texts:
        if name not in table.columns:
            raise DataError(f"{file} has no column '{name}': its columns are {', '.join(table.columns)}.")
        for number, value in enumerate(table.columns[name], 1):
            if value is None or (isinstance(value, str) and not value.strip()):
                raise DataError(
                    f"{file}, row {number}: the text in column '{name}' is empty: fill it or remove the row."
                )
            if not isinstance(value, str):
                raise DataError(f"{file}, row {number}: column '{name}' has {value!r:.60}, which is not text.")
            if not _encodable(value):
                raise DataError(
                    f"{file}, row {number}: column '{name}' has half a surrogate pair, which is no character."
                )
    return list(zip(*(table.columns[name] for name in columns.texts), strict=True))


def _explanations(table: Table, columns: _Columns) -> list[str]:
    """Why each row's answer is right; empty where a row, or a whole file, does not say."""
    said = table.columns.get(columns.explanation or "", [None] * len(table))
    return ["" if why is None else str(why).strip() for why in said]


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _answers(table: Table, columns: _Columns, file: str) -> list[Any]:
    """The label column's values, none of them null; strings without the spaces around them."""
    if columns.label not in table.columns:
        raise DataError(f"{file} has no column '{columns.label}': its columns are {', '.join(table.columns)}.")
    values = [value.strip() if isinstance(value, str) else value for value in table.columns[columns.label]]
    for number, value in enumerate(values, 1):
        if value is None or value == "":
            raise DataError(
                f"{file}, row {number}: the label in column '{columns.label}' is empty: fill it or remove the row."
            )
        if not isinstance(value, str | int | float):
            raise DataError(f"{file}, row {number}: the label {value!r:.60} is neither text nor a number.")
    return values
