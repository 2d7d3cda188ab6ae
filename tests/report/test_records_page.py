"""docs/records.md names every field that is written, and none that is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from adaptlab.config import RunConfig
from adaptlab.runs.record import SCHEMA, CurvePoint, Record
from adaptlab.runs.store import Predictions, RunFolder
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "records.md").read_text()


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of a model's fields; below ``config.given`` and ``config.resolved`` they are RunConfig's own."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = _model_in(field.annotation)
        if inner is not RunConfig and inner is not None:
            yield from fields(inner, f"{path}.")
        if inner is None or prefix == "" or inner is RunConfig or get_origin(field.annotation) is tuple:
            yield path


def _model_in(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *get_args(annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def documented(heading: str) -> set[str]:
    """The names in the first column of the tables below ``heading``, up to the next heading as high."""
    level = heading.split(" ")[0]
    body = PAGE.partition(f"\n{heading}")[2]
    body = re.split(rf"\n#{{2,{len(level)}}} ", body)[0]
    return set(re.findall(r"^\| `([^`]+)` \|", body, re.MULTILINE))


def test_every_field_of_a_record_is_explained_and_no_other() -> None:
    configuration = {name for name in fields(RunConfig) if name not in ("model", "task", "method", "training")}
    expected = set(fields(Record)) | configuration | {"config.identity"}
    assert documented("## record.json") == expected


def test_every_field_of_the_curve_is_explained() -> None:
    assert documented("## curve.jsonl") == set(CurvePoint.model_fields)


def test_every_column_of_the_predictions_is_explained(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_predictions([Predictions("validation", ["0"], [1], [1], [[0.2, 0.8]])])
    assert documented("## predictions.parquet") == set(pq.read_table(run.predictions_path).column_names)


def test_the_schema_and_every_status_are_named() -> None:
    assert f"has `schema` {SCHEMA}." in PAGE
    for status in get_args(Record.model_fields["status"].annotation):
        assert f"`{status}`" in PAGE


def test_the_example_runs(study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(study.parent)
    exec(compile(code, "docs/records.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 30
    assert any(line.startswith("lora 0 finished 0.8") and line.endswith(" 7") for line in lines)
