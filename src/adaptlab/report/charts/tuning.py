"""Score against trials spent: what more tuning bought each method, on the selection rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from adaptlab.report.charts._base import HEIGHT, Chart, NothingToDrawError, cell_label, colour, dash, inline, padded
from adaptlab.report.charts._curves import line_ends
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell, cells
from adaptlab.report.tables import number_text

if TYPE_CHECKING:
    import altair as alt


class Tuning(Chart):
    """The best trial so far, a line for each method."""

    name = "tuning"
    title = "Best score against trials spent"
    order = 60
    section = "tuning"

    def drawn(self, rows: Sequence[RunRow], methods: Sequence[str]) -> alt.LayerChart:
        import altair as alt

        best = [value for cell in cells(rows) for value in _best_so_far(cell)]
        if not best:
            raise NothingToDrawError("no method was tuned (`--tune N` gives each N trials).")
        domain = padded([value["y"] for value in best], 0.05)
        y = alt.Y(
            "y:Q", title=_title(rows), scale=alt.Scale(domain=list(domain), nice=False, zero=False)
        )  # ends of lines share it
        most = max(value["trial"] for value in best)
        x = alt.X(
            "trial:Q", title="trials spent", scale=alt.Scale(domain=[1, max(2, most)]), axis=alt.Axis(tickMinStep=1)
        )
        base = alt.Chart(inline(best)).encode(x=x, y=y, detail="label:N", color=colour(methods))
        tip = [
            alt.Tooltip("label:N", title="method"),
            alt.Tooltip("trial:Q", title="trials spent"),
            alt.Tooltip("text:N", title="best so far"),
        ]
        lines = alt.layer(
            base.mark_line(strokeWidth=2, interpolate="step-after").encode(strokeDash=dash(methods)),
            base.mark_point(size=30, filled=True, opacity=1).encode(tooltip=tip),
        )
        return alt.layer(lines, *line_ends(best, domain, y, methods)).properties(width="container", height=HEIGHT)

    def caption(self, rows: Sequence[RunRow]) -> str:
        tuned = [row for row in rows if row.tuning is not None]
        said = "Every method had equally many trials, the first with its default values; a dot is the best one so far."
        rest = (
            " It is measured on the selection rows, which choose; the report rows are looked at by the final runs only."
        )
        without = len({row.method for row in rows} - {row.method for row in tuned})
        left = f" {without} of the methods {'was' if without == 1 else 'were'} not tuned." if tuned and without else ""
        return said + rest + left


def signed(cell: Cell, score: float) -> float:
    """A trial's score as the metric has it: a search maximises, so it knows an error with its sign turned."""
    return score if cell.higher_is_better else -score


def _best_so_far(cell: Cell) -> list[dict[str, Any]]:
    """A point for each trial; none before the first that finished."""
    part = next((run.tuning for run in cell.runs if run.tuning is not None), None)
    if part is None:
        return []
    scores = [-math.inf if score is None else score for score in part.scores]
    place = {"method": cell.method, "label": cell_label(cell)}
    return [
        place | {"trial": number, "y": signed(cell, best), "text": number_text(signed(cell, best))}
        for number, best in enumerate(accumulate(scores, max), start=1)
        if math.isfinite(best)
    ]


def _title(rows: Sequence[RunRow]) -> str:
    primary = next((row.primary for row in rows if row.primary is not None), None)
    return f"{'score' if primary is None else primary.name} (selection rows)"


plugin = Tuning()
