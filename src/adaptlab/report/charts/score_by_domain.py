"""In domain against out of domain: the primary metric on every evaluation set that has it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adaptlab.report.calibration import domains
from adaptlab.report.charts._base import SHAPES, Chart, NothingToDrawError, cell_label, colour, inline, padded
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import cells
from adaptlab.report.tables import score_text

if TYPE_CHECKING:
    import altair as alt

ROW_HEIGHT = 34


class ScoreByDomain(Chart):
    name = "score_by_domain"
    title = "In domain and out of domain"
    order = 35
    section = "data"

    def drawn(self, rows: Sequence[RunRow], methods: Sequence[str]) -> alt.LayerChart:
        import altair as alt

        values = _values(rows)
        sets = list(dict.fromkeys(value["set"] for value in values))
        if len(sets) < 2:
            raise NothingToDrawError("the runs were looked at on one set of rows (try `--also-evaluate`).")
        home = {value["label"]: value["x"] for value in values if value["home"]}
        order = sorted(home, key=lambda label: -home[label])
        domain = padded([value[key] for value in values for key in ("low", "high")], 0.06)
        scale = alt.Scale(domain=list(domain), nice=False, zero=False)
        title = next(row.primary.name for row in rows if row.primary is not None)
        y = alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=220, ticks=False, domain=False))
        x = alt.X("x:Q", title=title, scale=scale, axis=alt.Axis(grid=True))
        base = alt.Chart(inline(values)).encode(y=y, color=colour(methods))
        legend = alt.Legend(title=None, orient="top", symbolFillColor="#8a929b", symbolStrokeWidth=0, labelLimit=260)
        kinds = alt.Shape("set:N", scale=alt.Scale(domain=sets, range=_shapes(len(sets))), legend=legend)
        tip = [
            alt.Tooltip("label:N", title="method"),
            alt.Tooltip("set:N", title="rows"),
            alt.Tooltip("text:N", title=title),
        ]
        spans = [
            {"method": v["method"], "label": v["label"], "x": v["x"], "to": home[v["label"]]}
            for v in values
            if not v["home"] and v["label"] in home
        ]
        between = alt.Chart(inline(spans)).mark_rule(strokeWidth=1, opacity=0.6).encode(y=y, x=x, x2="to:Q")
        bars = base.mark_rule(strokeWidth=5, opacity=0.28).encode(x=alt.X("low:Q", title=title), x2="high:Q")
        points = base.mark_point(size=90, filled=True, opacity=1).encode(x=x, shape=kinds, tooltip=tip)
        height = ROW_HEIGHT * len({value["label"] for value in values})
        return alt.layer(between, alt.layer(bars, points)).properties(width="container", height=height)

    def caption(self, rows: Sequence[RunRow]) -> str:
        primary = next((row.primary for row in rows if row.primary is not None), None)
        home = f", of which {primary.evaluation_set} is the task's own" if primary is not None else ""
        return (
            f"Mean over seeds on each set of rows{home}; pale bars are one sample standard deviation each way. "
            "Nothing is trained or chosen on the others. The axis does not start at 0."
        )


def _shapes(count: int) -> list[str]:
    return [SHAPES[index % len(SHAPES)] for index in range(count)]


def _values(rows: Sequence[RunRow]) -> list[dict[str, Any]]:
    """A value for each cell and set, the task's own set first."""
    values = []
    for cell in cells(rows):
        for found in domains(cell.runs):
            if not math.isfinite(found.score.mean):
                continue
            wide = found.score.std or 0.0
            text = score_text(found.score) + ("" if found.in_domain else f" ({-found.drop:+.3f})")
            place = {"method": cell.method, "label": cell_label(cell), "set": found.evaluation_set, "text": text}
            bounds = {"low": found.score.mean - wide, "high": found.score.mean + wide}
            values.append(place | bounds | {"x": found.score.mean, "home": found.in_domain})
    return values


plugin = ScoreByDomain()
