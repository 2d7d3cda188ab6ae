"""Reliability: how often a method is right, by how sure it says it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adaptlab.report.calibration import BINS, Bin, calibration, probabilities_of
from adaptlab.report.charts._base import HEIGHT, Chart, NothingToDrawError, cell_label, colour, dash, inline
from adaptlab.report.charts._curves import line_ends
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell, cells

if TYPE_CHECKING:
    import altair as alt

#: Fewer answers than this say nothing about their share of right ones.
FEWEST = 10


class Reliability(Chart):
    name = "reliability"
    title = "Reliability of the probabilities"
    order = 60
    section = "calibration"

    def drawn(self, rows: Sequence[RunRow], methods: Sequence[str]) -> alt.LayerChart:
        import altair as alt

        values = [self._value(cell, found) for cell in cells(rows) for found in _bins(cell)]
        if not values:
            raise NothingToDrawError("no run kept probabilities of classes.")
        scale = alt.Scale(domain=[0, 1], nice=False)
        x = alt.X("x:Q", title="probability of the answer given", scale=scale)
        y = alt.Y("y:Q", title="share of these answers that is right", scale=scale)
        perfect = alt.Chart(inline([{"x": 0, "y": 0}, {"x": 1, "y": 1}])).mark_line(strokeDash=[2, 4], strokeWidth=1)
        base = alt.Chart(inline(values)).encode(x=x, y=y, detail="label:N", color=colour(methods))
        tip = [
            alt.Tooltip("label:N", title="method"),
            alt.Tooltip("n:Q", title="answers", format=","),
            alt.Tooltip("x:Q", title="mean probability", format=".3f"),
            alt.Tooltip("y:Q", title="share right", format=".3f"),
        ]
        size = alt.Size("n:Q", scale=alt.Scale(range=[20, 260], domainMin=0), legend=None)
        lines = alt.layer(
            base.mark_line(strokeWidth=2).encode(strokeDash=dash(methods)),
            base.mark_point(filled=True, opacity=0.85).encode(size=size, tooltip=tip),
        )
        ends = line_ends(values, (0.0, 1.0), y, methods)
        grey = perfect.encode(x=x, y=y, color=alt.value("#8a929b"))
        return alt.layer(grey, lines, *ends).properties(width="container", height=HEIGHT)

    def _value(self, cell: Cell, found: Bin) -> dict[str, Any]:
        place = {"method": cell.method, "label": cell_label(cell), "n": found.n}
        return place | {"x": found.confidence, "y": found.accuracy}

    def caption(self, rows: Sequence[RunRow]) -> str:
        return (
            "On the dashed diagonal probabilities are what they say: of the answers given with 0.8, 80 % are right. "
            f"Below it a method is surer than it should be. Answers of all seeds in {BINS} bins of equal width; a "
            f"point's area is their number, and bins of fewer than {FEWEST} are left out."
        )


def _bins(cell: Cell) -> list[Bin]:
    """Of the answers of all finished runs to the primary set."""
    gold: list[NDArray[np.int64]] = []
    given: list[NDArray[np.floating]] = []
    for run in cell.finished:
        found = probabilities_of(run)
        if found is not None and (not given or found[1].shape[1] == given[0].shape[1]):
            gold.append(found[0])
            given.append(found[1])
    if not given:
        return []
    return [part for part in calibration(np.concatenate(gold), np.concatenate(given)).bins if part.n >= FEWEST]


plugin = Reliability()
