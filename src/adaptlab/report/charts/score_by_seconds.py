"""Score against seconds of training. Clocks of different machines stand apart by name, and the chart says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from adaptlab.report.charts._base import Chart, NothingToDrawError
from adaptlab.report.charts._scatter import CostAxis, Point, scatter, scored
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell, cells
from adaptlab.report.tables import machine_letters, machine_text, seconds_text

if TYPE_CHECKING:
    import altair as alt


class ScoreBySeconds(Chart):
    name = "score_by_seconds"
    title = "Score against training time"
    order = 30

    def drawn(self, rows: Sequence[RunRow], methods: Sequence[str]) -> alt.LayerChart:
        machines = machine_letters(rows)
        points = []
        for cell in scored(cells(rows), "training time"):
            for fingerprint, letter in machines.items():
                point = _point(cell, fingerprint, f" [{letter}]" if letter else "")
                if point is not None:
                    points.append(point)
        if not points:
            raise NothingToDrawError("No finished run's record has a training time.")
        top = max(point.cost for point in points)
        axis = CostAxis(
            "training time of one run, seconds", {"domain": [0, 1.08 * top or 1.0], "nice": False}, {}, lambda s: s
        )
        if len(machines) == 1:
            return scatter(points, axis, rows, methods)
        note = f"Clocks of {len(machines)} machines: compare seconds only within one."
        return scatter(points, axis, rows, methods, title={"text": note, "subtitle": _machine_lines(rows)})

    def caption(self, rows: Sequence[RunRow]) -> str:
        clock = (
            "Wall clock of the training steps of one run, mean over seeds, without loading, evaluation and waiting; "
            "bars are one sample standard deviation of the score each way. "
        )
        lines = _machine_lines(rows)
        if len(lines) == 1:
            return f"{clock}Measured on {lines[0]}."
        return f"{clock}The clocks of {len(lines)} machines do not compare with each other: {'; '.join(lines)}."


def _point(cell: Cell, fingerprint: str, suffix: str) -> Point | None:
    """The cell's runs on one machine."""
    here = replace(cell, runs=tuple(run for run in cell.runs if run.environment.fingerprint == fingerprint))
    seconds = here.over(lambda run: run.cost.train_seconds)
    if seconds is None or here.score is None:
        return None
    spread = f" ± {seconds_text(seconds.std)}" if seconds.std is not None else ""
    return Point(here, seconds.mean, f"{seconds_text(seconds.mean)}{spread} s", suffix)


def _machine_lines(rows: Sequence[RunRow]) -> list[str]:
    first = {row.environment.fingerprint: row for row in reversed(rows)}
    names = {fingerprint: machine_text(row) for fingerprint, row in first.items()}
    return [f"{letter}: {names[key]}" if letter else names[key] for key, letter in machine_letters(rows).items()]


plugin = ScoreBySeconds()
