"""The answer in sentences: what scored best, and what comes close for less. Said from means, without a test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adaptlab.report.charts._base import cell_label, groups, label_of
from adaptlab.report.select import RunRow, Selection
from adaptlab.report.statistics import Cell, across_tasks, cells
from adaptlab.report.tables import number_text, score_text, status_counts


@dataclass(frozen=True, slots=True)
class Answer:
    """``lead`` is the first thing to read; ``details`` one sentence per task; ``doubts`` what limits it."""

    lead: str
    details: tuple[str, ...]
    doubts: tuple[str, ...]


def answer(selection: Selection) -> Answer:
    """What the records say about the question which method to take."""
    rows = selection.rows
    sentences = [sentence for group in groups(rows).values() if (sentence := _about(group))]
    doubts = _doubts(selection)
    if not rows:
        return Answer("No run of this study has left a record yet.", (), doubts)
    if not sentences:
        return Answer("No run has finished with a score yet.", (), doubts)
    if len(sentences) == 1:
        return Answer(sentences[0], (), doubts)
    return Answer(_over_all(rows) or "Each task has its own answer.", tuple(sentences), doubts)


def _over_all(rows: Sequence[RunRow]) -> str | None:
    tasks = {row.task for row in rows}
    best = across_tasks(rows)[0]
    if len(tasks) < 2 or best.mean is None or not math.isfinite(best.mean.mean):
        return None
    name = label_of(best.method, best.setting)
    if len({row.model for row in rows}) > 1:
        name += f" on {best.model}"
    return f"Over {len(tasks)} tasks, {name} has the best mean score: {score_text(best.mean)}."


def _about(rows: Sequence[RunRow]) -> str | None:
    """The sentence about one task and model."""
    scored = [cell for cell in cells(rows) if cell.score is not None and math.isfinite(cell.score.mean)]
    if not scored:
        return None
    scored.sort(key=_score, reverse=scored[0].higher_is_better)
    best = scored[0]
    where = f"On {best.task}" + (f" with {best.model}" if "/" in best.model or best.model else "")
    assert best.score is not None  # chosen above
    seeds = f" over {best.score.n} seeds" if best.score.n > 1 else ""
    sentence = f"{where}, {cell_label(best)} scores best: {best.metric} {score_text(best.score)}{seeds}."
    second = _close_for_less(best, scored[1:])
    return f"{sentence} {_beside(best, second)}" if second is not None else sentence


def _score(cell: Cell) -> float:
    return cell.score.mean if cell.score is not None else math.nan


def _gap(best: Cell, cell: Cell) -> float:
    return abs(_score(best) - _score(cell))


def _spread(best: Cell, cell: Cell) -> float | None:
    """The larger of the two standard deviations; ``None`` where either is unknown."""
    if best.score is None or cell.score is None or best.score.std is None or cell.score.std is None:
        return None
    return max(best.score.std, cell.score.std)


def _close_for_less(best: Cell, others: Sequence[Cell]) -> Cell | None:
    """The fewest trained numbers within one standard deviation of the best; else whoever comes second."""
    if not others:
        return None
    near = [
        cell
        for cell in others
        if cell.trainable is not None
        and best.trainable is not None
        and cell.trainable < best.trainable
        and (spread := _spread(best, cell)) is not None
        and _gap(best, cell) <= spread
    ]
    return min(near, key=lambda cell: cell.trainable or 0) if near else others[0]


def _beside(best: Cell, cell: Cell) -> str:
    spread = _spread(best, cell)
    within = f", within one standard deviation over seeds ({number_text(spread)})" if spread and _gap(best, cell) <= spread else ""
    behind = f"{cell_label(cell)} is {number_text(_gap(best, cell))} behind{within}"
    costs = " and ".join(cost for cost in (_parameters_beside(best, cell), _time_beside(best, cell)) if cost)
    return f"{behind}, with {costs}." if costs else f"{behind}."


def _parameters_beside(best: Cell, cell: Cell) -> str:
    if not best.trainable or cell.trainable is None:
        return ""
    return f"{_percent(cell.trainable / best.trainable)} of its trained parameters"


def _time_beside(best: Cell, cell: Cell) -> str:
    """Only where both were run on the same machine, and on one."""
    machines = {run.environment.fingerprint for run in best.finished + cell.finished}
    own, other = best.over(lambda run: run.cost.train_seconds), cell.over(lambda run: run.cost.train_seconds)
    if len(machines) != 1 or own is None or other is None or own.mean <= 0:
        return ""
    return f"{_percent(other.mean / own.mean)} of its training time"


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"


def _doubts(selection: Selection) -> tuple[str, ...]:
    rows, doubts = selection.rows, []
    finished = [row for row in rows if row.status == "finished"]
    if finished and all(len(cell.finished) < 2 for cell in cells(rows)):
        doubts.append("Every method was run with one seed, so the spread is unknown and small differences may be chance.")
    elif finished:
        doubts.append("Whether a difference is more than chance is not tested on this page.")
    broken = [row for row in rows if row.status not in ("finished", "running")]
    if broken:
        doubts.append(f"{len(broken)} of {len(rows)} runs did not finish ({status_counts(broken)}); they are listed below.")
    running = sum(row.status == "running" for row in rows)
    if running:
        doubts.append(f"{running} of {len(rows)} runs had not ended when this page was made.")
    if selection.problems:
        count = len(selection.problems)
        doubts.append(f"{count} file{'s' if count > 1 else ''} could not be read and {'are' if count > 1 else 'is'} left out.")
    return tuple(doubts)
