"""Small data sets as the hub stores them, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

ENTAILMENT = ("entailment", "not_entailment")


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any]], classes: Mapping[str, Sequence[str]] = {}) -> Path:
    """A parquet file whose metadata has the class names of the columns in ``classes``, as ``datasets`` writes it."""
    features = {
        name: {"names": list(classes[name]), "_type": "ClassLabel"}
        if name in classes
        else {"dtype": "string", "_type": "Value"}
        for name in columns
    }
    table = pyarrow.table({name: list(values) for name, values in columns.items()})
    described = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(described, path)
    return path


def pairs(rows: int, name: str, classes: int = 2) -> dict[str, list[Any]]:
    """``rows`` different sentence pairs with labels that take turns."""
    return {
        "sentence1": [f"{name} premise number {row}" for row in range(rows)],
        "sentence2": [f"{name} hypothesis number {row}" for row in range(rows)],
        "label": [row % classes for row in range(rows)],
        "idx": list(range(rows)),
    }


def write_rte(folder: Path, train: int = 40, validation: int = 20) -> Path:
    """GLUE's rte in small, under ``folder`` as the hub lays it out."""
    for split, rows in (("train", train), ("validation", validation)):
        write_parquet(
            folder / "nyu-mll" / "glue" / "rte" / f"{split}.parquet", pairs(rows, split), {"label": ENTAILMENT}
        )
    return folder
