"""Score against a cost: one labelled point per cell, its error bar the standard deviation over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adaptlab.report.charts._base import (
    HEIGHT,
    NothingToDrawError,
    cell_label,
    colour,
    inline,
    padded,
    place_labels,
    score_title,
    shape,
)
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell
from adaptlab.report.tables import score_text

if TYPE_CHECKING:
    import altair as alt


@dataclass(frozen=True, slots=True)
class Point:
    """A cell at its cost. ``cost_text`` is the cost as the tooltip says it."""

    cell: Cell
    cost: float
    cost_text: str
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class CostAxis:
    """How a cost is laid out: ``place`` gives the plotted position of a cost, for an axis where 0 has its own place."""

    title: str
    scale: dict[str, Any]
    axis: dict[str, Any]
    place: Callable[[float], float]


def scatter(
    points: Sequence[Point], axis: CostAxis, rows: Sequence[RunRow], methods: Sequence[str], **title: Any
) -> alt.LayerChart:
    """The layered chart: error bars, points, labels."""
    import altair as alt

    values = [_value(point, axis) for point in points]
    bounds = [bound for value in values for bound in (value["low"], value["high"])]
    y_domain = padded(bounds, 0.12)
    height = y_domain[1] - y_domain[0]
    places = place_labels(
        [
            (_share(v["x"], axis.scale), (v["y"] - y_domain[0]) / height, (v["high"] - v["y"]) / height, v["label"])
            for v in values
        ]
    )
    for value, place in zip(values, places, strict=True):
        value["place"] = str(place)
    base = alt.Chart(inline(values)).encode(
        x=alt.X("x:Q", title=axis.title, scale=alt.Scale(**axis.scale), axis=alt.Axis(**axis.axis)),
    )
    y = alt.Y("y:Q", title=score_title(rows), scale=alt.Scale(domain=list(y_domain), nice=False, zero=False))
    bars = base.mark_rule(strokeWidth=1.5, opacity=0.7).encode(
        y=alt.Y("low:Q", title=score_title(rows)), y2="high:Q", color=colour(methods)
    )
    dots = base.mark_point(size=90, filled=True, opacity=1).encode(
        y=y,
        color=colour(methods),
        shape=shape(methods),
        tooltip=[
            alt.Tooltip("label:N", title="method"),
            alt.Tooltip("score:N", title="score"),
            alt.Tooltip("interval:N", title="95 % interval of the mean"),
            alt.Tooltip("cost:N", title=axis.title),
        ],
    )
    texts = [
        base.transform_filter(alt.FieldOneOfPredicate(field="place", oneOf=[str(place)]))
        .mark_text(dx=place.dx, dy=place.dy, align=place.align, baseline="middle")
        .encode(y=y, text="label:N")
        for place in dict.fromkeys(places)
    ]
    layers = [bars, dots, *texts]
    front = _front(values, points[0].cell.higher_is_better, axis)
    if front:
        line = alt.Chart(inline(front)).mark_line(interpolate="step-after", strokeWidth=1, color="#8a929b")
        layers.insert(0, line.encode(x=base.encoding.x, y=y))
    return alt.layer(*layers).properties(width="container", height=HEIGHT, **title)


def _front(values: Sequence[dict[str, Any]], higher: bool, axis: CostAxis) -> list[dict[str, Any]]:
    """The Pareto front as points of a line that goes on to the right edge: whom none beats at its cost or less."""
    front: list[dict[str, Any]] = []
    sign = 1 if higher else -1
    for value in sorted(values, key=lambda value: (value["x"], -sign * value["y"])):
        if not front or sign * value["y"] > sign * front[-1]["y"]:
            front.append({"x": value["x"], "y": value["y"]})
    return [*front, {"x": axis.scale["domain"][1], "y": front[-1]["y"]}] if front else []


def scored(cells: Sequence[Cell], cost: str) -> list[Cell]:
    """The cells that have a finite score.

    Raises:
        NothingToDrawError: there is none.
    """
    found = [cell for cell in cells if cell.score is not None and math.isfinite(cell.score.mean)]
    if not found:
        raise NothingToDrawError(f"No run has finished with a score yet, so there is nothing to set against {cost}.")
    return found


def _value(point: Point, axis: CostAxis) -> dict[str, Any]:
    score = point.cell.score
    assert score is not None  # `scored` chose the cells
    spread = score.std or 0.0
    interval = f"{score.interval[0]:.3f} to {score.interval[1]:.3f}" if score.interval else "unknown: one run"
    return {
        "method": point.cell.method,
        "label": cell_label(point.cell) + point.suffix,
        "x": axis.place(point.cost),
        "y": score.mean,
        "low": score.mean - spread,
        "high": score.mean + spread,
        "score": f"{score_text(score)}, n = {score.n}" if score.n > 1 else score_text(score),
        "interval": interval,
        "cost": point.cost_text,
    }


def _share(x: float, scale: dict[str, Any]) -> float:
    low, high = scale["domain"]
    if scale.get("type") == "log":
        return _share_of(math.log(x), (math.log(low), math.log(high)))
    return _share_of(x, (low, high))


def _share_of(value: float, domain: tuple[float, float]) -> float:
    return (value - domain[0]) / (domain[1] - domain[0])
