"""``adaptlab predict``: answers of a finished run, as JSON lines."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from adaptlab.cli import flags as f
from adaptlab.cli.evaluate import BaseModel, RunDir
from adaptlab.cli.output import Json, LogLevel, Output, Quiet
from adaptlab.errors import DataError

Text = str | tuple[str, str]
_AT_ONCE = 512
_PAIR_KEYS = (("text", "text_pair"), ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "sentence"))


def predict(
    run: RunDir,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT ...|-", help="Texts to answer; - reads them from stdin.", show_default=False),
    ] = None,
    input: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE", help="A file with a text per line, or JSONL.", show_default=False),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="A split of the run's own task, e.g. test.", show_default=False),
    ] = None,
    data_root: f.DataRoot = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where a benchmark's files go, with --split.", show_default=False),
    ] = None,
    model: BaseModel = None,
    device: f.Device = None,
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
) -> None:
    """Answer texts with a finished run's model: one JSON object a line, with label and scores.

    A pair is two texts with a tab between them. Where the first line is JSON, every line is:
    "text", ["text", "pair"] or {"text": ..., "text_pair": ...}.

    With --split the rows are those of the run's task; of GLUE's test splits the file that its server takes is
    written too, into the run's folder or --out DIR.
    """
    output = Output.start(json, quiet, log_level)
    if split is not None:
        if texts or input is not None:
            raise DataError("--split and texts were both given: give one of them.")
        _answer_split(output, run, split, data_root, out, device, model)
        return
    read = list(_texts(texts or [], input))  # whole, so that a bad line costs no loading
    if not read:
        raise DataError("There is nothing to predict: the input has no lines.")
    from adaptlab import api

    predictor = api.load(run, device=device or "auto", model=model)
    for start in range(0, len(read), _AT_ONCE):
        for prediction in predictor.predict(read[start : start + _AT_ONCE]):
            print(jsonlib.dumps({"label": prediction.label, "scores": prediction.scores}, ensure_ascii=False))
        sys.stdout.flush()


def _answer_split(
    output: Output,
    run: Path,
    split: str,
    data_root: str | None,
    out: Path | None,
    device: str | None,
    model: str | None,
) -> None:
    from adaptlab import api

    found = api.predict_split(run, split, out=out, data_root=data_root, device=device or "auto", model=model)
    for name, answers in found.answers.items():
        for place, answer in enumerate(answers):
            row = {"id": f"{name}/{place}", "label": answer.label, "scores": answer.scores}
            print(jsonlib.dumps(row, ensure_ascii=False))
    for note in found.notes:
        output.note(f"Note: {note}")
    for file in found.files:
        output.note(f"For the benchmark's server: {file}")


def read_input(file: Path) -> list[Text]:
    """The texts and pairs of a file. Errors as for :func:`parse_lines`."""
    return list(parse_lines(_lines_of(file), str(file)))


def _texts(given: list[str], file: Path | None) -> Iterator[Text]:
    if given and file is not None:
        raise DataError("Texts and --input were both given: give one of them.")
    if file is None and not given:
        raise DataError("There is nothing to predict: give texts, --input FILE, or - to read them from stdin.")
    if file is not None:
        return iter(read_input(file))
    if given == ["-"]:
        return parse_lines(_decoded(sys.stdin.buffer, "stdin"), "stdin")
    return (_plain(text, f"text {number}") for number, text in enumerate(given, start=1))


def parse_lines(lines: Iterable[str], source: str) -> Iterator[Text]:
    """The texts and pairs of ``lines``.

    Raises:
        DataError: a line is empty, or not of the input's form; says which one.
    """
    is_json = None
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r\n")
        if is_json is None:
            is_json = _is_json(line)
        where = f"{source}, line {number}"
        yield _from_json(line, where) if is_json else _plain(line, where)


def _is_json(line: str) -> bool:
    try:
        return isinstance(jsonlib.loads(line), (dict, list, str))
    except (ValueError, RecursionError):
        return line.lstrip().startswith("{")


def _plain(line: str, where: str) -> Text:
    parts = line.split("\t")
    if len(parts) > 2:
        raise DataError(f"{where}: {len(parts)} texts between tabs; one text or a pair is allowed.")
    return _checked(parts, where)


def _from_json(line: str, where: str) -> Text:
    try:
        value = jsonlib.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}), though the first line is.") from error
    if isinstance(value, str):
        return _checked([value], where)
    if isinstance(value, list) and len(value) in (1, 2):
        return _checked(value, where)
    if isinstance(value, dict):
        for first, second in _PAIR_KEYS:
            if first in value:
                return _checked([value[first], *([value[second]] if second in value else [])], where)
    raise DataError(f'{where}: give "text", ["text", "pair"] or {{"text": ..., "text_pair": ...}}.')


def _checked(parts: list[Any], where: str) -> Text:
    if not all(isinstance(part, str) for part in parts):
        raise DataError(f"{where}: a text must be a string.")
    if not all(part.strip() for part in parts):
        raise DataError(f"{where}: the text is empty.")
    return (parts[0], parts[1]) if len(parts) == 2 else str(parts[0])


def _lines_of(path: Path) -> Iterator[str]:
    try:
        with open(path, "rb") as file:
            yield from _decoded(file, str(path))
    except OSError as error:
        raise DataError(f"Cannot read {path} ({error.strerror}): give a file with a text per line.") from error


def _decoded(lines: Iterable[bytes], source: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{source}, line {number}: not UTF-8: save the input in UTF-8.") from error
