"""Score against each cost: a point for each method, its error bar, and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from adaptlab.report.charts._base import Chart, NothingToDrawError
from adaptlab.report.charts._scatter import CostAxis, Point, scatter, scored
from adaptlab.report.costs import costs_of, depends_on_machine
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell, cells
from adaptlab.report.tables import machine_letters, machine_text, seconds_text

if TYPE_CHECKING:
    import altair as alt

_SPREAD = "Each point is the mean over seeds, its bar one sample standard deviation of the score each way."
_FRONT = "The thin line is the Pareto front: nobody scores higher at that cost or less."


class ScoreByParameters(Chart):
    """Trained parameters have a logarithmic axis on which zero has a place of its own."""

    name = "score_by_parameters"
    title = "Score against trained parameters"
    order = 20
    family = "Score against a cost"
    choice = "trained parameters"

    def drawn(self, rows: Sequence[RunRow], methods: Sequence[str]) -> alt.LayerChart:
        points = []
        for cell in scored(cells(rows), "trained parameters"):
            if cell.trainable is not None:
                text = f"{cell.trainable:,} + {cell.head or 0:,} of the head"
                if cell.total:
                    text += f" ({100 * cell.trainable / cell.total:.3g} % of the model without the head)"
                points.append(Point(cell, cell.trainable, text))
        if not points:
            raise NothingToDrawError("no run's record counts its parameters.")
        return scatter(points, _log_axis([point.cost for point in points]), rows, methods)

    def caption(self, rows: Sequence[RunRow]) -> str:
        return (
            f"{_SPREAD} Counted are the numbers that training changes, without the task's head, which every method "
            f"trains; 0 means that nothing but the head is trained. {_FRONT}"
        )


class ScoreByCost(Chart):
    """Any cost of record.json; what depends on the machine stands apart for each machine, and the chart says so."""

    family = "Score against a cost"

    def __init__(self, cost: str, words: str, unit: tuple[float, str], what: str, order: int) -> None:
        short = {
            "train_seconds": "seconds",
            "train_flops": "flops",
            "peak_memory_bytes": "memory",
            "adapter_bytes": "disk",
        }
        self.name = f"score_by_{short[cost]}"
        self.title, self.choice, self.order = f"Score against {words}", words, order
        self.cost, self.unit, self.what = cost, unit, what

    def drawn(self, rows: Sequence[RunRow], methods: Sequence[str]) -> alt.LayerChart:
        machines = machine_letters(rows) if depends_on_machine(self.cost) else {"": ""}
        points = []
        for cell in scored(cells(rows), self.choice):
            for fingerprint, letter in machines.items():
                point = self._point(cell, fingerprint, f" [{letter}]" if letter else "")
                if point is not None:
                    points.append(point)
        if not points:
            raise NothingToDrawError(f"not measured (no finished run's record has `cost.{self.cost}`).")
        top = max(point.cost for point in points)
        title = f"{self.choice} of one run, {self.unit[1]}"
        axis = CostAxis(title, {"domain": [0, 1.08 * top or 1.0], "nice": False}, {}, lambda cost: cost)
        if len(machines) == 1:
            return scatter(points, axis, rows, methods)
        note = f"Clocks of {len(machines)} machines: compare {self.unit[1]} only within one."
        return scatter(points, axis, rows, methods, title={"text": note, "subtitle": _machine_lines(rows)})

    def _point(self, cell: Cell, fingerprint: str, suffix: str) -> Point | None:
        """The cell's runs on one machine, or all of them where the cost does not depend on it."""
        here = cell
        if fingerprint:
            here = replace(cell, runs=tuple(run for run in cell.runs if run.environment.fingerprint == fingerprint))
        figure = next((figure for figure in costs_of(here.runs) if figure.name == self.cost), None)
        if figure is None or here.score is None:
            return None
        factor, unit = self.unit
        spread = f" ± {seconds_text(figure.std / factor)}" if figure.std is not None else ""
        return Point(here, figure.mean / factor, f"{seconds_text(figure.mean / factor)}{spread} {unit}", suffix)

    def caption(self, rows: Sequence[RunRow]) -> str:
        said = f"{_SPREAD} {self.what} {_FRONT}"
        if not depends_on_machine(self.cost):
            return said
        lines = _machine_lines(rows)
        if len(lines) == 1:
            return f"{said} Measured on {lines[0]}."
        return f"{said} Figures of {len(lines)} machines do not compare with each other: {'; '.join(lines)}."


def _machine_lines(rows: Sequence[RunRow]) -> list[str]:
    first = {row.environment.fingerprint: row for row in reversed(rows)}
    names = {fingerprint: machine_text(row) for fingerprint, row in first.items()}
    return [f"{letter}: {names[key]}" if letter else names[key] for key, letter in machine_letters(rows).items()]


def _log_axis(counts: Sequence[float]) -> CostAxis:
    """Decades from the smallest count to the largest; 0, where it occurs, one decade below."""
    positive = [count for count in counts if count > 0] or [1.0]
    first, last = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    last = max(last, first + 1)
    decades = [10.0**exponent for exponent in range(first, last + 1)]
    has_zero = any(count == 0 for count in counts)
    zero = 10.0 ** (first - 1)
    values = [zero, *decades] if has_zero else decades
    label = "replace(format(datum.value, '~s'), 'G', 'B')"
    return CostAxis(
        title="trained parameters without the head (log scale)",
        scale={"type": "log", "domain": [values[0] / 1.6, values[-1] * 1.6], "nice": False},
        axis={"values": values, "labelExpr": f"datum.value < {zero * 1.5!r} ? '0' : {label}" if has_zero else label},
        place=lambda count: count if count > 0 else zero,
    )


plugins = (
    ScoreByParameters(),
    ScoreByCost(
        "peak_memory_bytes", "memory", (1e6, "MB"), "The most memory in use while training (fairness rule 5).", 21
    ),
    ScoreByCost("train_flops", "training FLOPs", (1e12, "TFLOP"), "Operations of all training steps.", 22),
    ScoreByCost(
        "train_seconds", "training time", (1.0, "seconds"),
        "Wall clock of the training steps of one run, without loading, evaluation and waiting.", 23,
    ),
    ScoreByCost("adapter_bytes", "disk", (1e6, "MB"), "What was trained, as it is saved.", 24),
)  # fmt: skip
