"""Sheets for CSV and data frames: every run with every figure, every method with its standing, every pair."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adaptlab.report.comparison import Claim, Comparison
from adaptlab.report.select import RunRow
from adaptlab.report.summary import ReportSummary


@dataclass(frozen=True, slots=True)
class Sheet:
    """Columns in their order, and lines that may lack some of them."""

    columns: Sequence[str]
    lines: Sequence[Mapping[str, Any]]

    def csv(self) -> str:
        """As CSV; a text that a spreadsheet would run as a formula is preceded by an apostrophe."""
        out = io.StringIO()
        writer = csv.DictWriter(out, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({column: _csv_value(value) for column, value in line.items()} for line in self.lines)
        return out.getvalue()


def runs_sheet(rows: Sequence[RunRow]) -> Sheet:
    """One line per run with every figure; columns are the paths of record.json, joined by dots."""
    lines = [_csv_line(row) for row in rows]
    found = dict.fromkeys(column for line in lines for column in line)
    sections = list(dict.fromkeys(column.partition(".")[0] for column in found))
    columns = sorted(found, key=lambda column: sections.index(column.partition(".")[0]))  # stable inside a section
    return Sheet(columns or ["run"], lines)


_METHOD_COLUMNS = (
    "task", "model", "condition", "method", "metric", "standing", "mean", "std", "n", "seeds_low", "seeds_high", "low",
    "high", "runs", "finished", "trainable", "head", "total", "one_answer", "reason",
)  # fmt: skip


def methods_sheet(found: ReportSummary) -> Sheet:
    """One line per method, task and condition (the task is empty for the mean over tasks), best first.

    ``seeds_low`` to ``seeds_high`` is the 95 % interval of the mean over seeds, ``low`` to ``high`` that over seeds and
    rows, ``one_answer`` the number of runs that gave every row the same answer. Costs are columns of their names; those
    of a machine carry its fingerprint after an ``@``.
    """
    lines = []
    for comparison in found.comparisons:
        for contender in comparison.contenders:
            score = contender.score
            line = _names_of(comparison) | {
                "method": contender.name,
                "standing": contender.standing,
                "reason": contender.reason,
                "runs": contender.runs,
                "finished": contender.finished,
                "trainable": contender.trainable,
                "head": contender.head,
                "total": contender.total,
                "one_answer": None if contender.one_answer is None else sum(contender.one_answer.values()),
            }
            if score is not None:
                line |= {"mean": score.mean, "std": score.std, "n": score.n}
                line |= dict(zip(("seeds_low", "seeds_high"), score.interval or (), strict=False))
            line |= dict(zip(("low", "high"), contender.interval or (), strict=False))
            for cost in contender.costs:
                line[cost.name if cost.machine is None else f"{cost.name}@{cost.machine}"] = cost.mean
            lines.append(line)
    costs = sorted({column for line in lines for column in line} - set(_METHOD_COLUMNS))
    return Sheet([*_METHOD_COLUMNS, *costs], lines)


_CLAIM_COLUMNS = ("difference", "low", "high", "p", "adjusted_p", "differ", "test", "reason")
_POWER_COLUMNS = ("detectable", "seeds_needed", "rows_needed")


def pairs_sheet(found: ReportSummary) -> Sheet:
    """One line per pair of methods: the claim about the methods, that about the trained models, and the power.

    Differences are of the first minus the second.
    """
    columns = ["task", "model", "condition", "metric", "first", "second"]
    columns += [f"methods.{column}" for column in _CLAIM_COLUMNS]
    columns += ["models.first", "models.second", *(f"models.{column}" for column in _CLAIM_COLUMNS), *_POWER_COLUMNS]
    lines = []
    for comparison in found.comparisons:
        for pair in comparison.pairs:
            line = _names_of(comparison) | {"first": pair.first, "second": pair.second}
            line |= _claim("methods", pair.methods) | _claim("models", pair.models)
            line |= dict(zip(("models.first", "models.second"), pair.models.subjects or (), strict=False))
            line |= {name: getattr(pair.power, name) for name in _POWER_COLUMNS} if pair.power else {}
            lines.append(line)
    return Sheet(columns, lines)


def _names_of(comparison: Comparison) -> dict[str, Any]:
    condition = ", ".join(f"{axis}={value}" for axis, value in comparison.condition)
    return {
        "task": comparison.task,
        "model": comparison.model,
        "condition": condition,
        "metric": comparison.metric,
    }


def _claim(kind: str, claim: Claim) -> dict[str, Any]:
    low, high = claim.interval or (None, None)
    values: dict[str, Any] = {
        "difference": claim.difference,
        "low": low,
        "high": high,
        "p": claim.p,
        "adjusted_p": claim.adjusted_p,
    }
    values |= {"differ": claim.differ if claim.p is not None else None, "test": claim.test, "reason": claim.reason}
    return {f"{kind}.{name}": value for name, value in values.items()}


def _csv_line(row: RunRow) -> dict[str, Any]:
    names: dict[str, Any] = {"study": row.study, "name": row.name, "id": row.id, "status": row.status, "task": row.task}
    names |= {"model": row.model, "method": row.method, "seed": row.seed, "data_seed": row.data_seed}
    nested = {
        "primary": row.primary.model_dump() if row.primary else {},
        "metrics": row.metrics,
        "parameters": row.parameters.model_dump() if row.parameters else {},
        "cost": row.cost.model_dump(),
        "config": row.resolved,
        "data": row.data.model_dump() if row.data else {},
        "training": row.training,
        "environment": row.environment.model_dump(),
        "engine": row.engine,
        "started": row.started,
        "ended": row.ended,
        "warnings": list(row.warnings),
        "error": row.error.model_dump(exclude={"traceback"}) if row.error else {},
    }
    return names | dict(_paths(nested))


def _paths(nested: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" != "config.method.options":
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _csv_value(value: Any) -> Any:
    if isinstance(value, (list, tuple, dict)):
        value = json.dumps(value, ensure_ascii=False) if value else ""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
