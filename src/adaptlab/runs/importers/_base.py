"""A run of another tool, in the words of a record; whatever the tool did not write is ``None``."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptlab.runs.record import Cost, CurvePoint, Environment, ErrorPart, Parameters, Primary, Status

ReadJson = Callable[[Path], object]


@dataclass(frozen=True)
class ForeignRun:
    """One run; fields as in record.json, ``curve`` as in curve.jsonl.

    Attributes:
        config: what is known of the configuration, nested as ``config.given``.
        tool: the tool's name, as a sentence says it.
    """

    name: str
    id: str
    tool: str
    task: str
    model: str
    method: str
    method_name: str
    seed: int
    status: Status = "finished"
    primary: Primary | None = None
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    parameters: Parameters | None = None
    cost: Cost = field(default_factory=Cost)
    config: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    environment: Environment = field(default_factory=Environment)
    curve: tuple[CurvePoint, ...] = ()
    warnings: tuple[str, ...] = ()
    error: ErrorPart | None = None
    started: str | None = None


@dataclass(frozen=True, slots=True)
class ForeignProblem:
    """A file that looks like a result and cannot be used, by its path below the folder that was given."""

    file: str
    reason: str


@dataclass
class Foreign:
    """What a folder holds of other tools.

    Attributes:
        waiting: folders of runs that have not left results.
        notes: sentences on what the tools' figures mean, each once.
    """

    runs: list[ForeignRun] = field(default_factory=list)
    problems: list[ForeignProblem] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a sentence that is not there yet."""
        if text not in self.notes:
            self.notes.append(text)


def content_id(*parts: object) -> str:
    """64 hex digits over the content of a result."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def number(value: object) -> float | None:
    """``value`` if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def whole(value: object) -> int | None:
    """``value`` if it is a whole number."""
    found = number(value)
    return int(found) if found is not None and found == int(found) else None


def mapping(value: object) -> Mapping[str, Any]:
    """``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: object) -> str | None:
    """``value`` if it is a text that says something."""
    return value if isinstance(value, str) and value else None
