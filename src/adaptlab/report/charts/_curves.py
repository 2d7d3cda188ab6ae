"""A value against training steps: mean over seeds with a band; runs that stopped early as thin lines of their own."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from adaptlab.report.charts._base import HEIGHT, NothingToDrawError, cell_label, colour, dash, padded, spread
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell, cells, summarise
from adaptlab.report.tables import score_text
from adaptlab.runs.record import CurvePoint

if TYPE_CHECKING:
    import altair as alt

#: More points than this in a line cannot be told apart, and would make the page heavy.
MOST_POINTS = 150

ValueOf = Callable[[CurvePoint], float | None]


def curves(rows: Sequence[RunRow], methods: Sequence[str], value_of: ValueOf, title: str) -> alt.LayerChart:
    """The chart of ``value_of`` against steps.

    Raises:
        NothingToDrawError: no run has a curve with the value.
    """
    import altair as alt

    found = cells(rows)
    means = [value for cell in found for value in _means(cell, value_of)]
    broken = [value for cell in found for run in cell.runs for value in _broken(run, value_of)]
    if not means and not broken:
        raise NothingToDrawError("No run has a learning curve with this value: `--eval-every N` draws one.")
    everything = means + broken
    domain = padded([v[key] for v in everything for key in ("low", "high")], 0.05)
    scale = alt.Scale(domain=list(domain), nice=False, zero=False)
    y = alt.Y("y:Q", title=title, scale=scale)
    steps = alt.Scale(domain=[0, max(value["step"] for value in everything) or 1], nice=False)
    x = alt.X("step:Q", title="optimiser steps", scale=steps)
    bounds = alt.Y("low:Q", title=title, scale=scale)
    base = alt.Chart(alt.Data(values=means)).encode(x=x, detail="label:N")
    tip = [
        alt.Tooltip("label:N", title="method"),
        alt.Tooltip("step:Q", title="step"),
        alt.Tooltip("text:N", title=title),
    ]
    lines = alt.layer(  # layered by themselves, so that the chart holds their data once
        base.mark_area(opacity=0.16).encode(y=bounds, y2="high:Q", color=colour(methods)),
        base.mark_line(strokeWidth=2).encode(y=y, color=colour(methods), strokeDash=dash(methods)),
        base.mark_point(size=60, filled=True, opacity=0).encode(y=y, color=colour(methods), tooltip=tip),
    )
    layers = [lines, alt.layer(*_line_ends(means, domain, y, methods))]
    if broken:
        lost = alt.Chart(alt.Data(values=broken)).encode(x=x, y=y, detail="run:N", color=colour(methods))
        ends = lost.transform_filter("datum.last").mark_point(shape="cross", angle=45, size=70, filled=True, opacity=1)
        told = ends.encode(tooltip=[*tip, alt.Tooltip("run:N"), alt.Tooltip("status:N")])
        layers.append(alt.layer(lost.mark_line(strokeWidth=1, opacity=0.8), told))
    return alt.layer(*layers).properties(width="container", height=HEIGHT)


def _means(cell: Cell, value_of: ValueOf) -> list[dict[str, Any]]:
    """A line: per step the mean of the finished runs that were evaluated at it, with its spread."""
    at_step: dict[int, list[float]] = defaultdict(list)
    for run in cell.finished:
        for point in run.curve.points:
            value = value_of(point)
            if value is not None and math.isfinite(value):
                at_step[point.step].append(value)
    line = []
    for step in _thinned(sorted(at_step)):
        summary = summarise(at_step[step])
        assert summary is not None  # each step has a value
        wide = summary.std or 0.0
        text = score_text(summary) + (f", n = {summary.n}" if summary.n > 1 else "")
        place = {"method": cell.method, "label": cell_label(cell), "step": step, "y": summary.mean}
        line.append(place | {"low": summary.mean - wide, "high": summary.mean + wide, "text": text})
    return line


def _broken(run: RunRow, value_of: ValueOf) -> list[dict[str, Any]]:
    """The line of a run that did not finish, up to where it got; ``last`` marks its end."""
    if run.status == "finished":
        return []
    values = [(point.step, value_of(point)) for point in run.curve.points]
    known = {step: value for step, value in values if value is not None and math.isfinite(value)}
    place = {"method": run.method, "run": run.name, "status": run.status, "label": run.method}
    return [
        place | {"step": step, "y": known[step], "low": known[step], "high": known[step], "text": f"{known[step]:.3f}",
                 "last": step == max(known)}
        for step in _thinned(sorted(known))
    ]  # fmt: skip


def _thinned(steps: Sequence[int]) -> list[int]:
    """At most ``MOST_POINTS`` of ``steps``, evenly taken, the first and last among them."""
    if len(steps) <= MOST_POINTS:
        return list(steps)
    last = len(steps) - 1
    return [steps[round(index * last / (MOST_POINTS - 1))] for index in range(MOST_POINTS)]


def _line_ends(
    means: Sequence[dict[str, Any]], domain: tuple[float, float], y: alt.Y, methods: Sequence[str]
) -> list[alt.Chart]:
    """The names of the lines at their right ends, moved apart so that each can be read."""
    import altair as alt

    ends = {value["label"]: value for value in means}  # the last step of each
    per_pixel = (domain[1] - domain[0]) / HEIGHT
    moved = spread([value["y"] for value in ends.values()], 15 * per_pixel)
    # Pushed past the lower or upper edge the whole column moves back inside.
    over = max(0.0, max(moved, default=0) - domain[1]) - max(0.0, domain[0] - min(moved, default=domain[0]))
    texts = [
        {"method": value["method"], "label": label, "y": at - over}
        for (label, value), at in zip(ends.items(), moved, strict=True)
    ]
    ends_of_lines = alt.Chart(alt.Data(values=texts)).encode(x=alt.value("width"), y=y)
    return [
        ends_of_lines.mark_point(shape="stroke", xOffset=12, size=120, strokeWidth=3).encode(color=colour(methods)),
        ends_of_lines.mark_text(align="left", dx=21, baseline="middle").encode(text="label:N"),
    ]


def curve_caption(rows: Sequence[RunRow], what: str) -> str:
    """What a reader needs below a learning curve."""
    curved = [row for row in rows if row.curve.points]
    without = sum(row.status == "finished" and not row.curve.points for row in rows)
    parts = [
        f"{what}, mean over seeds; the band is one sample standard deviation each way (no band: a single run).",
        "It is measured on the selection rows, which choose the checkpoint; the scores above are of other rows.",
    ]
    if any(row.status != "finished" for row in curved):
        parts.append("Thin lines that end in a cross are runs that did not finish.")
    if without:
        parts.append(f"{without} finished run{'s have' if without > 1 else ' has'} no curve.")
    return " ".join(parts)
