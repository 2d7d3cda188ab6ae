"""The answer in sentences: what scored best, and what comes close for less. Said from means, without a test."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from adaptlab.report.charts._base import groups
from adaptlab.report.select import RunRow, Selection
from adaptlab.report.statistics import Cell, Summary, across_tasks, cells, label_of
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
    doubts = _doubts(selection)
    if not rows:
        return Answer("No run of this study has left a record yet.", (), doubts)
    several_models = len({row.model for row in rows}) > 1
    sentences = [sentence for group in groups(rows).values() if (sentence := _about(group, several_models))]
    if not sentences:
        return Answer("No run has finished with a score yet.", (), doubts)
    if len(sentences) == 1:
        return Answer(sentences[0], (), doubts)
    return Answer(_over_all(rows, several_models) or "Each task has its own answer:", tuple(sentences), doubts)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A method on one task, or over all of them, as the sentences compare it."""

    name: str
    score: Summary
    trainable: float | None
    seconds: float | None
    machines: frozenset[str]


def _candidate(name: str, score: Summary | None, by_task: Sequence[Cell]) -> _Candidate | None:
    if score is None or not math.isfinite(score.mean):
        return None
    counts = [cell.trainable for cell in by_task]
    clocks = [cell.over(lambda run: run.cost.train_seconds) for cell in by_task]
    return _Candidate(
        name,
        score,
        statistics.fmean(count for count in counts if count is not None) if None not in counts else None,
        math.fsum(clock.mean for clock in clocks if clock is not None) if None not in clocks else None,
        frozenset(run.environment.fingerprint for cell in by_task for run in cell.finished),
    )


def _about(rows: Sequence[RunRow], name_model: bool) -> str | None:
    """The sentences about one task and model; ``None`` where nothing has a score."""
    found = cells(rows)
    candidates = [_candidate(label_of(cell.method, cell.setting), cell.score, [cell]) for cell in found]
    where = f"On {found[0].task} with {found[0].model}" if name_model else f"On {found[0].task}"
    metric = next((cell.metric for cell in found if cell.metric), "score")
    return _sentences(where, metric, candidates, found[0].higher_is_better)


def _over_all(rows: Sequence[RunRow], name_model: bool) -> str | None:
    """The sentences about the mean of all tasks; ``None`` for one task, or where no mean can be formed."""
    tasks = {row.task for row in rows}
    if len(tasks) < 2:
        return None
    candidates = []
    for variant in across_tasks(rows):
        name = label_of(variant.method, variant.setting) + (f" on {variant.model}" if name_model else "")
        candidates.append(_candidate(name, variant.mean, list(variant.cells.values())))
    higher = all(row.primary.higher_is_better for row in rows if row.primary is not None)
    metrics = sorted({row.primary.name for row in rows if row.primary is not None})
    return _sentences(f"Over {len(tasks)} tasks", f"mean {' and '.join(metrics)}", candidates, higher)


def _sentences(where: str, metric: str, candidates: Sequence[_Candidate | None], higher: bool) -> str | None:
    scored = [candidate for candidate in candidates if candidate is not None]
    if not scored:
        return None
    scored.sort(key=lambda candidate: candidate.score.mean, reverse=higher)
    best, others = scored[0], scored[1:]
    seeds = f" over {best.score.n} seeds" if best.score.n > 1 else ""
    lead = f"{where}, {best.name} scores best: {metric} {score_text(best.score)}{seeds}."
    return f"{lead} {_beside(best, _close_for_less(best, others))}" if others else lead


def _close_for_less(best: _Candidate, others: Sequence[_Candidate]) -> _Candidate:
    """The fewest trained numbers within one standard deviation of the best; else whoever comes second."""
    near = [
        other
        for other in others
        if best.trainable is not None
        and other.trainable is not None
        and other.trainable < best.trainable
        and _is_near(best, other)
    ]
    return min(near, key=lambda other: other.trainable or 0) if near else others[0]


def _gap(best: _Candidate, other: _Candidate) -> float:
    return abs(best.score.mean - other.score.mean)


def _is_near(best: _Candidate, other: _Candidate) -> bool:
    """No further apart than the larger standard deviation of the two, where both are known."""
    if best.score.std is None or other.score.std is None:
        return False
    return _gap(best, other) <= max(best.score.std, other.score.std)


def _beside(best: _Candidate, other: _Candidate) -> str:
    within = ", within one standard deviation over seeds" if _is_near(best, other) else ""
    costs = []
    if other.trainable == 0 and best.trainable:
        costs.append("nothing but the head trained")
    elif best.trainable and other.trainable is not None:
        costs.append(f"{_percent(other.trainable / best.trainable)} of its trained parameters")
    if best.seconds and other.seconds is not None and len(best.machines | other.machines) == 1:
        costs.append(f"{_percent(other.seconds / best.seconds)} of its training time")
    with_costs = f", with {' and '.join(costs)}" if costs else ""
    gap = _gap(best, other)
    behind = number_text(gap) if gap >= 0.0005 else "less than 0.001"
    return f"{other.name} is {behind} behind{within}{with_costs}."


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"


def _doubts(selection: Selection) -> tuple[str, ...]:
    rows, doubts = selection.rows, []
    finished = [row for row in rows if row.status == "finished"]
    if finished and all(len(cell.finished) < 2 for cell in cells(rows)):
        doubts.append("Every method was run with one seed: the spread is unknown, and small differences may be chance.")
    elif finished:
        doubts.append("Whether a difference is more than chance is not tested on this page.")
    broken = [row for row in rows if row.status not in ("finished", "running")]
    if broken:
        counts = status_counts(broken)
        doubts.append(f"{len(broken)} of {len(rows)} runs did not finish ({counts}); they are listed below.")
    running = sum(row.status == "running" for row in rows)
    if running:
        doubts.append(f"{running} of {len(rows)} runs had not ended when this page was made.")
    if selection.waiting:
        doubts.append(f"Runs that have not started: {len(selection.waiting)}.")
    count = len(selection.problems)
    if count:
        doubts.append(f"{count} file{'s' if count > 1 else ''} could not be read and stay{'s' * (count == 1)} out.")
    return tuple(doubts)
