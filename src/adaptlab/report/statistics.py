"""Means, spreads and intervals over seeds, and the grouping of runs into the cells of a table."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from adaptlab.report.select import CONDITIONS, RunRow

Setting = tuple[tuple[str, str], ...]
#: What is the same across tasks and seeds: model, method and setting.
Variant = tuple[str, str, Setting]


def label_of(method: str, setting: Iterable[tuple[str, str]]) -> str:
    """How tables and charts call a cell: ``lora``, or ``lora, train examples 100``."""
    return ", ".join([method, *(f"{axis.replace('_', ' ')} {value}" for axis, value in setting)])


@dataclass(frozen=True, slots=True)
class Summary:
    """A sample's mean, its sample standard deviation (divisor n - 1) and the 95 % interval of the mean.

    ``std`` and ``interval`` are ``None`` for one value: one value has no spread that could be known.
    """

    n: int
    mean: float
    std: float | None
    interval: tuple[float, float] | None


def summarise(values: Sequence[float]) -> Summary | None:
    """Summary of ``values``; ``None`` when there is none. A value that is not finite makes the mean ``nan``.

    The interval is Student's t: mean +- t(0.975, n - 1) * std / sqrt(n).
    """
    if not values:
        return None
    n = len(values)
    if not all(math.isfinite(value) for value in values):
        return Summary(n, math.nan, None, None)
    mean = statistics.fmean(values)
    if n == 1:
        return Summary(1, mean, None, None)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = _t_quantile(n - 1) * std / math.sqrt(n)
    return Summary(n, mean, std, (mean - half, mean + half))


@cache
def _t_quantile(degrees_of_freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, 0.975))


@dataclass(frozen=True)
class Cell:
    """The runs of one (task, model, method, setting): they differ in their seeds only."""

    task: str
    model: str
    method: str
    setting: Setting
    runs: tuple[RunRow, ...]

    @property
    def variant(self) -> Variant:
        """What is the same across tasks: model, method and setting."""
        return (self.model, self.method, self.setting)

    @property
    def condition(self) -> Setting:
        """The part of the setting that the methods of one comparison share."""
        return tuple((axis, value) for axis, value in self.setting if axis in CONDITIONS)

    @property
    def name(self) -> str:
        """What tells the cell from others under the same condition: ``lora`` or ``lora, learning rate 0.001``."""
        return label_of(self.method, ((axis, value) for axis, value in self.setting if axis not in CONDITIONS))

    @property
    def finished(self) -> list[RunRow]:
        return [run for run in self.runs if run.status == "finished"]

    @cached_property
    def score(self) -> Summary | None:
        """Over the finished runs; ``None`` when none has a score."""
        return self.over(lambda run: run.score)

    @property
    def higher_is_better(self) -> bool:
        return next((run.primary.higher_is_better for run in self.runs if run.primary is not None), True)

    @property
    def metric(self) -> str | None:
        """Name of the primary metric, where any run has one."""
        return next((run.primary.name for run in self.runs if run.primary is not None), None)

    def over(self, value: Callable[[RunRow], float | None]) -> Summary | None:
        """Summary of ``value`` over the finished runs that have it."""
        found = (value(run) for run in self.finished)
        return summarise([number for number in found if number is not None])

    @property
    def trainable(self) -> int | None:
        """Trained numbers without the head (the mean, should the runs differ)."""
        return _mean_count(run.parameters.trainable for run in self.runs if run.parameters is not None)

    @property
    def head(self) -> int | None:
        """Trained numbers of the head."""
        return _mean_count(run.parameters.head for run in self.runs if run.parameters is not None)

    @property
    def total(self) -> int | None:
        """All numbers of the model, what the method added included."""
        return _mean_count(run.parameters.total for run in self.runs if run.parameters is not None)


def _mean_count(counts: Iterable[int]) -> int | None:
    found = list(counts)
    return round(statistics.fmean(found)) if found else None


def cells(rows: Iterable[RunRow]) -> list[Cell]:
    """``rows`` grouped by task, model, method and setting, in that order."""
    groups: dict[tuple[str, str, str, Setting], list[RunRow]] = defaultdict(list)
    for row in rows:
        groups[row.task, row.model, row.method, tuple(sorted(row.setting.items()))].append(row)
    return [Cell(*key, tuple(groups[key])) for key in sorted(groups)]


@dataclass(frozen=True)
class AcrossTasks:
    """One variant (model, method, setting) over all tasks.

    Attributes:
        cells: by task; a task this variant was never run on is not there.
        mean: over tasks within each replicate (seed), then over replicates; ``None`` if no replicate has every task.
        missing: (task, replicate) pairs without a score: their replicates are not in ``mean``.
    """

    model: str
    method: str
    setting: Setting
    cells: dict[str, Cell]
    mean: Summary | None
    missing: tuple[tuple[str, tuple[int, int]], ...]

    @property
    def runs(self) -> list[RunRow]:
        return [run for cell in self.cells.values() for run in cell.runs]


def across_tasks(rows: Sequence[RunRow]) -> list[AcrossTasks]:
    """Every variant in ``rows`` with its cells, best first; variants without a score come last.

    The mean over tasks is formed per replicate, so its spread is that of whole experiments. It is taken over every
    task in ``rows`` or not at all: a replicate (among those the variant was run with) that lacks one is left out and
    named in ``missing``. Where metrics point in different directions (an accuracy and a loss) no mean is formed.
    """
    tasks = sorted({row.task for row in rows})
    variants: dict[Variant, dict[str, Cell]] = defaultdict(dict)
    for cell in cells(rows):
        variants[cell.variant][cell.task] = cell
    directions = {row.primary.higher_is_better for row in rows if row.primary is not None}
    found = []
    for (model, method, setting), by_task in variants.items():
        means, missing = _means_over_tasks(by_task, tasks)
        mean = summarise(means) if len(directions) == 1 else None
        found.append(AcrossTasks(model, method, setting, by_task, mean, tuple(missing)))
    sign = -1 if directions != {False} else 1
    return sorted(found, key=lambda row: _rank(row, tasks, sign))


def _means_over_tasks(
    by_task: dict[str, Cell], tasks: list[str]
) -> tuple[list[float], list[tuple[str, tuple[int, int]]]]:
    runs = [(task, run) for task, cell in by_task.items() for run in cell.runs]
    scores = {(task, run.replicate): run.score for task, run in runs if run.score is not None}
    means, missing = [], []
    for replicate in sorted({run.replicate for _, run in runs}):
        lacking = [(task, replicate) for task in tasks if (task, replicate) not in scores]
        missing += lacking
        if not lacking:
            means.append(statistics.fmean(scores[task, replicate] for task in tasks))
    return means, missing


def _rank(row: AcrossTasks, tasks: list[str], sign: int) -> tuple[int, float, str, str]:
    """Variants with a mean first, then those with any score, then the rest; ties by name."""
    if row.mean is not None and math.isfinite(row.mean.mean):
        return (0, sign * row.mean.mean, row.method, row.model)
    for task in tasks:
        cell = row.cells.get(task)
        if cell is not None and cell.score is not None and math.isfinite(cell.score.mean):
            return (1, (-1 if cell.higher_is_better else 1) * cell.score.mean, row.method, row.model)
    return (2, 0.0, row.method, row.model)
