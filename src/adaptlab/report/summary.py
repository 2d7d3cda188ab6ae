"""What a selection of runs comes to, as one typed value: the answer, tables, page and notebook are drawn from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from adaptlab.report.comparison import Comparison, Contender
from adaptlab.report.select import Problem, Selection
from adaptlab.report.standings import compare
from adaptlab.report.statistics import Setting


@dataclass(frozen=True)
class ReportSummary:
    """Comparisons by task, model and condition, and over tasks. They are made when first asked for.

    Attributes:
        selection: the runs.
    """

    selection: Selection

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """One for each task, model and condition, then the means over several tasks (``task`` is ``None``)."""
        return tuple(compare(self.selection.rows))

    @property
    def of_tasks(self) -> tuple[Comparison, ...]:
        """Those of single tasks."""
        return tuple(found for found in self.comparisons if found.task is not None)

    @property
    def over_tasks(self) -> tuple[Comparison, ...]:
        """Those of the mean over several tasks."""
        return tuple(found for found in self.comparisons if found.task is None)

    @cached_property
    def _contenders(self) -> Mapping[tuple[str | None, str, str, Setting], Contender]:
        return {
            (comparison.task, comparison.model, contender.method, contender.setting): contender
            for comparison in self.comparisons
            for contender in comparison.contenders
        }

    def contender(self, task: str | None, model: str, method: str, setting: Setting) -> Contender | None:
        """The line of a table; ``task`` is ``None`` for the mean over tasks."""
        return self._contenders.get((task, model, method, setting))


@lru_cache(maxsize=1)
def summary(selection: Selection) -> ReportSummary:
    """The summary of ``selection``; the last one is kept, as the answer, the tables and the page all ask for it."""
    return ReportSummary(selection)


def as_json(found: ReportSummary) -> dict[str, Any]:
    """The summary as plain values: dicts, lists, texts, numbers; a number that is not finite is ``None``."""
    selection = found.selection
    document = {
        "studies": selection.studies,
        "runs": len(selection.rows),
        "waiting": selection.waiting,
        "problems": [_plain(problem) for problem in selection.problems],
        "comparisons": [_comparison(comparison) for comparison in found.comparisons],
    }
    plain: dict[str, Any] = _plain(document)
    return plain


def _comparison(comparison: Comparison) -> dict[str, Any]:
    document: dict[str, Any] = dataclasses.asdict(comparison)
    document["condition"] = dict(comparison.condition)
    for contender, written in zip(comparison.contenders, document["contenders"], strict=True):
        written["setting"] = dict(contender.setting)
    for pair, written in zip(comparison.pairs, document["pairs"], strict=True):
        written["methods"]["differ"], written["models"]["differ"] = pair.methods.differ, pair.models.differ
    return document


def _plain(value: Any) -> Any:
    if isinstance(value, Problem):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
