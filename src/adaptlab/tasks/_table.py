"""Rows as they are stored, before anything is known about texts and labels; and how files become such rows."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptlab.errors import DataError

FORMATS = ("csv", "tsv", "jsonl", "parquet")
_DELIMITERS = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a vertical bar"}
_ESCAPED = {"\\t": "\t", "tab": "\t"}


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length. ``class_names`` has the names behind a column of class indices, where they are known."""

    columns: Mapping[str, list[Any]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def format_of(path: Path) -> str | None:
    """One of ``FORMATS`` by the file's suffix, ``.gz`` or not; ``None`` for any other file."""
    name = path.name.lower().removesuffix(".gz")
    return next((format for format in FORMATS if name.endswith(f".{format}")), None)


def read_table(path: Path, delimiter: str | None = None) -> Table:
    """The rows of one csv, tsv, jsonl or parquet file, gzipped or not. Rows are counted from 1, without the header.

    Raises:
        DataError: the file is missing, empty, of another format, damaged, not UTF-8 or ragged.
    """
    format = format_of(path)
    if format is None:
        raise DataError(f"{path.name} is of no known format: give a csv, tsv, jsonl or parquet file, gzipped or not.")
    content = _content(path)
    if format == "parquet":
        return parse_parquet(content, path.name)
    text = _decoded(content, path.name)
    if not text.strip():
        raise DataError(f"{path.name} is empty: it needs rows with a text and a label.")
    if format == "jsonl":
        return _parse_jsonl(text, path.name)
    given = _ESCAPED.get(delimiter, delimiter) if delimiter else ("\t" if format == "tsv" else ",")
    if len(given) != 1:
        raise DataError(f"The delimiter '{given}' has {len(given)} characters: give exactly one, e.g. ',' or 'tab'.")
    return _parse_delimited(text, path.name, given)


def parse_parquet(content: bytes | Path, name: str) -> Table:
    """A parquet file's rows, with the class names that the hub's files carry in their metadata.

    Raises:
        DataError: the file is damaged or holds no row.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content) if isinstance(content, bytes) else content)
        table = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{name} is not a readable parquet file ({error}): write or download it again.") from error
    if table.num_rows == 0:
        raise DataError(f"{name} has no rows.")
    columns = {column: table.column(column).to_pylist() for column in table.column_names}
    return Table(columns, _class_names(table.schema.metadata or {}))


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            column: tuple(str(name) for name in feature["names"])
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, TypeError, ValueError):
        return {}  # A file that the hub's tools did not write: its indices stay numbers.


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".gz" and content:
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise DataError(f"There is no file {path}: check the path.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path.name} is not a whole gzip file ({error}): write or download it again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not content:
        raise DataError(f"{path.name} is empty: it needs rows with a text and a label.")
    return content


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name} is not UTF-8: byte 0x{content[error.start]:02x} on line {line} does not belong there; "
            "save the file as UTF-8."
        ) from None


def _parse_delimited(text: str, name: str, delimiter: str) -> Table:
    # The module's limit of 131,072 characters a field is too short for whole documents.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [line for line in reader if line]
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num}: {error}; a quoted field must be closed.") from None
    header, rows = lines[0], lines[1:]
    _check_header(header, name, delimiter)
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise DataError(
                f"{name}, row {number} has {len(row)} fields where the header has {len(header)}: "
                f'put quotes (") around a field that holds {_DELIMITERS.get(delimiter, repr(delimiter))}.'
            )
    if not rows:
        raise DataError(f"{name} has a header and no rows.")
    return Table({column: [row[i] for row in rows] for i, column in enumerate(header)})


def _check_header(header: list[str], name: str, delimiter: str) -> None:
    better = max(_DELIMITERS, key=header[0].count)
    if len(header) == 1 and better in header[0]:
        used = _DELIMITERS.get(delimiter, repr(delimiter))
        flag = "tab" if better == "\t" else better
        raise DataError(
            f"{name} has only one column when {used} separates columns: its first line has {_DELIMITERS[better]} "
            f"instead, so give --delimiter '{flag}'."
        )
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise DataError(f"{name} has two columns called '{twice[0]}': rename one.")


def _parse_jsonl(text: str, name: str) -> Table:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}, line {number} is not JSON ({error}): each line must be one object.") from None
        if not isinstance(row, dict):
            raise DataError(f'{name}, line {number} is not an object like {{"text": ..., "label": ...}}.')
        rows.append(row)
    columns = dict.fromkeys(column for row in rows for column in row)
    return Table({column: [row.get(column) for row in rows] for column in columns})
