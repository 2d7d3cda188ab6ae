"""A value against what training spent: mean over seeds with a band; runs that did not finish as thin lines.

Seeds are averaged step by step, at the mean of what they had spent by that step.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from adaptlab.report.baselines import Baseline
from adaptlab.report.charts._base import HEIGHT, NothingToDrawError, cell_label, colour, dash, inline, padded, spread
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell, cells, summarise
from adaptlab.report.tables import machine_letters, number_text, score_text
from adaptlab.runs.record import CurvePoint

if TYPE_CHECKING:
    import altair as alt

#: More points than this in a line cannot be told apart; a chart of many lines has fewer on each, for the page's size.
MOST_POINTS = 150
MOST_POINTS_OF_CHART = 2_500

ValueOf = Callable[[CurvePoint], float | None]
Spent = Literal["step", "examples", "tokens", "flops", "seconds"]
#: What training spends, as in curve.jsonl, and the title of its axis.
SPENT: dict[Spent, str] = {
    "step": "optimiser steps",
    "examples": "training examples seen",
    "tokens": "tokens seen, without padding",
    "flops": "training FLOPs",
    "seconds": "training time, seconds",
}


def curves(
    rows: Sequence[RunRow],
    methods: Sequence[str],
    value_of: ValueOf,
    title: str,
    spent: Spent,
    to_beat: Sequence[Baseline] = (),
) -> alt.LayerChart:
    """The chart of ``value_of`` against ``spent``, with a horizontal line for each of ``to_beat``.

    Raises:
        NothingToDrawError: no run has a curve with both.
    """
    import altair as alt

    found = _on_one_clock(rows) if spent == "seconds" else [(cell, "") for cell in cells(rows)]
    most = max(20, min(MOST_POINTS, MOST_POINTS_OF_CHART // max(1, len(found))))
    means = [value for cell, suffix in found for value in _means(cell, suffix, value_of, most)]
    broken = [value for cell, _ in found for run in cell.runs for value in _broken(run, value_of, most)]
    if not means and not broken:
        raise NothingToDrawError("no run has a learning curve with this value (`--eval-every N` draws one).")
    everything = [value for value in means + broken if value[spent] is not None]
    if not everything:
        raise NothingToDrawError(f"not measured ({SPENT[spent]} are in no learning curve of these runs).")
    heights = [v[key] for v in everything for key in ("low", "high")] + [line.value for line in to_beat]
    domain = padded(heights, 0.05)
    scale = alt.Scale(domain=list(domain), nice=False, zero=False)
    y = alt.Y("y:Q", title=title, scale=scale)
    across = alt.Scale(domain=[0, max(value[spent] for value in everything) or 1], nice=False)
    x = alt.X(
        f"{spent}:Q", title=SPENT[spent], scale=across, axis=alt.Axis(format="~s") if spent != "seconds" else alt.Axis()
    )
    bounds = alt.Y("low:Q", title=title, scale=scale)
    base = alt.Chart(inline(means)).encode(x=x, detail="label:N", color=colour(methods))
    tip = [
        alt.Tooltip("label:N", title="method"),
        alt.Tooltip(f"{spent}:Q", title=SPENT[spent], format=".4~s"),
        alt.Tooltip("text:N", title=title),
    ]
    lines = alt.layer(  # layered by themselves, so that the chart holds their data once
        base.mark_area(opacity=0.16).encode(y=bounds, y2="high:Q"),
        base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash(methods)),
        base.mark_point(size=60, filled=True, opacity=0).encode(y=y, tooltip=tip),
    )
    layers = [*reference_lines(to_beat, domain, y), lines, *line_ends(means, domain, y, methods)]
    if broken:
        lost = alt.Chart(inline(broken)).encode(x=x, y=y, detail="run:N", color=colour(methods))
        ends = lost.transform_filter("datum.last").mark_point(shape="cross", angle=45, size=70, filled=True, opacity=1)
        told = ends.encode(tooltip=[*tip, alt.Tooltip("run:N"), alt.Tooltip("status:N")])
        layers.append(alt.layer(lost.mark_line(strokeWidth=1, opacity=0.8), told))
    return alt.layer(*layers).properties(width="container", height=HEIGHT)


def _on_one_clock(rows: Sequence[RunRow]) -> list[tuple[Cell, str]]:
    """Cells with their runs apart by machine, and its letter: seconds of several machines have no mean."""
    letters = machine_letters(rows)
    found = []
    for fingerprint, letter in letters.items():
        here = [row for row in rows if row.environment.fingerprint == fingerprint]
        found += [(cell, f" [{letter}]" if letter else "") for cell in cells(here)]
    return found


def _means(cell: Cell, suffix: str, value_of: ValueOf, most: int) -> list[dict[str, Any]]:
    """A line: per step the mean of the finished runs that were evaluated at it, with its spread."""
    at_step: dict[int, list[tuple[float, CurvePoint]]] = defaultdict(list)
    for run in cell.finished:
        for point in run.curve.points:
            value = value_of(point)
            if value is not None and math.isfinite(value):
                at_step[point.step].append((value, point))
    line = []
    for step in _thinned(sorted(at_step), most):
        summary = summarise([value for value, _ in at_step[step]])
        assert summary is not None  # each step has a value
        wide = summary.std or 0.0
        text = score_text(summary) + (f", n = {summary.n}" if summary.n > 1 else "")
        place = {"method": cell.method, "label": cell_label(cell) + suffix, "y": summary.mean, "text": text}
        bounds = {"low": summary.mean - wide, "high": summary.mean + wide}
        line.append(place | bounds | _spent([point for _, point in at_step[step]]))
    return line


def _spent(points: Sequence[CurvePoint]) -> dict[str, float | None]:
    """Mean of what ``points`` had spent; ``None`` where one of them does not tell."""
    known: dict[str, float | None] = {}
    for name in SPENT:
        values = [getattr(point, name) for point in points]
        known[name] = None if None in values else math.fsum(values) / len(values)
    return known


def _broken(run: RunRow, value_of: ValueOf, most: int) -> list[dict[str, Any]]:
    """The line of a run that did not finish, up to where it got; ``last`` marks its end."""
    if run.status == "finished":
        return []
    known = {point.step: (value, point) for point in run.curve.points if (value := value_of(point)) is not None}
    known = {step: pair for step, pair in known.items() if math.isfinite(pair[0])}
    place = {"method": run.method, "run": run.name, "status": run.status, "label": run.method}
    line = []
    for step in _thinned(sorted(known), most):
        value, point = known[step]
        told = {"y": value, "low": value, "high": value, "text": f"{value:.3f}", "last": step == max(known)}
        line.append(place | told | _spent([point]))
    return line


def _thinned(steps: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of ``steps``, evenly taken, the first and last among them."""
    if len(steps) <= most:
        return list(steps)
    last = len(steps) - 1
    return [steps[round(index * last / (most - 1))] for index in range(most)]


def line_ends(
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
    ends_of_lines = alt.Chart(inline(texts)).encode(x=alt.value("width"), y=y)
    return [
        ends_of_lines.mark_point(shape="stroke", xOffset=12, size=120, strokeWidth=3).encode(color=colour(methods)),
        ends_of_lines.mark_text(align="left", dx=21, baseline="middle").encode(text="label:N"),
    ]


def reference_lines(lines: Sequence[Baseline], domain: tuple[float, float], y: alt.Y) -> list[alt.Chart]:
    """A dashed line for each of ``lines`` across the plot, its name and value at the right end."""
    import altair as alt

    if not lines:
        return []
    per_pixel = (domain[1] - domain[0]) / HEIGHT
    texts = spread([line.value + 7 * per_pixel for line in lines], 13 * per_pixel)
    tip = [alt.Tooltip("text:N", title="to beat"), alt.Tooltip("meaning:N")]
    values = [
        {"y": line.value, "text": f"{line.name} {number_text(line.value)}", "meaning": line.meaning} for line in lines
    ]
    named = alt.Chart(inline(value | {"y": at} for value, at in zip(values, texts, strict=True)))
    return [
        alt.Chart(inline(values)).mark_rule(strokeDash=[2, 4]).encode(y=y, tooltip=tip),
        named.mark_text(align="right", dx=-3, baseline="middle", fontSize=11, opacity=0.75).encode(
            x=alt.value("width"), y=y, text="text:N"
        ),
    ]


def baseline_caption(lines: Sequence[Baseline]) -> str:
    """What the horizontal lines are."""
    said = "; ".join(f"{line.name}: {line.meaning}" for line in lines)
    return f"Dashed lines are what there is to beat, as scored on the report rows ({said})." if lines else ""


def curve_caption(rows: Sequence[RunRow], what: str, spent: Spent) -> str:
    """What a reader needs below a learning curve."""
    curved = [row for row in rows if row.curve.points]
    without = sum(row.status == "finished" and not row.curve.points for row in rows)
    parts = [
        f"{what}, mean over seeds; the band is one sample standard deviation each way (no band: a single run).",
        "It is measured on the selection rows, which choose the checkpoint; the scores above are of other rows.",
    ]
    if spent == "seconds" and len({row.environment.fingerprint for row in curved}) > 1:
        parts.append("The clocks of several machines are on this axis, each with its letter: compare within one only.")
    if any(row.status != "finished" for row in curved):
        parts.append("Thin lines that end in a cross are runs that did not finish.")
    if without:
        parts.append(f"{without} finished run{'s have' if without > 1 else ' has'} no curve.")
    return " ".join(parts)
