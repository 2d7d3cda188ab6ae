"""Results of other tools as runs: found by what lies in a folder, read without a word of theirs being run.

An importer is a module of this folder: what it recognises and how it reads it. What a tool did not write stays unknown;
nothing is guessed but names, which are read from the folders' names by rules that docs/reports.md states.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from adaptlab.runs.importers import peft_comparison, transformers_examples
from adaptlab.runs.importers._base import Foreign, ForeignProblem, ForeignRun

__all__ = ["Foreign", "ForeignProblem", "ForeignRun", "read_foreign"]

#: Larger JSON files are no results.
_LARGEST_BYTES = 50_000_000


def read_foreign(path: Path) -> Foreign | None:
    """Every result of another tool in the tree below ``path`` (or in that file); ``None`` if it holds none.

    A file that looks like a result and cannot be read is a problem of what is returned, never an error.
    """
    root = path if path.is_dir() else path.parent
    found = Foreign()
    for file in _json_files(path):
        peft_comparison.read(file, root, _document, found)
    for folder in _folders(path):
        transformers_examples.read(folder, root, _document, found)
    return found if found.runs or found.problems or found.waiting else None


def _json_files(path: Path) -> Iterator[Path]:
    if path.is_file():
        if path.suffix == ".json":
            yield path
        return
    for folder in _folders(path):
        yield from sorted(folder.glob("*.json"))


def _folders(path: Path) -> Iterator[Path]:
    """The tree's folders, in order; checkpoints and hidden folders hold no results of their own."""
    if not path.is_dir():
        return
    for name, folders, _ in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "checkpoint-")))
        yield Path(name)


def _document(file: Path) -> object:
    """The JSON document in ``file``.

    Raises:
        ValueError: it is too large, cannot be read or is no JSON.
    """
    try:
        if file.stat().st_size > _LARGEST_BYTES:
            raise ValueError("too large")
        return json.loads(file.read_bytes())
    except (OSError, RecursionError) as error:
        raise ValueError(str(error)) from error
