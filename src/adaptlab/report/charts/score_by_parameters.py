"""Score against the number of trained parameters, on a logarithmic axis where zero has a place of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adaptlab.report.charts._base import Chart, NothingToDrawError
from adaptlab.report.charts._scatter import CostAxis, Point, scatter, scored
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import cells

if TYPE_CHECKING:
    import altair as alt


class ScoreByParameters(Chart):
    name = "score_by_parameters"
    title = "Score against trained parameters"
    order = 20

    def drawn(self, rows: Sequence[RunRow], methods: Sequence[str]) -> alt.LayerChart:
        points = []
        for cell in scored(cells(rows), "trained parameters"):
            if cell.trainable is not None:
                text = f"{cell.trainable:,} + {cell.head or 0:,} of the head"
                if cell.total:
                    text += f" ({100 * cell.trainable / cell.total:.3g} % of the model without the head)"
                points.append(Point(cell, cell.trainable, text))
        if not points:
            raise NothingToDrawError("No run's record counts its parameters.")
        return scatter(points, _log_axis([point.cost for point in points]), rows, methods)

    def caption(self, rows: Sequence[RunRow]) -> str:
        return (
            "Each point is the mean over seeds, its bar one sample standard deviation each way (no bar: a single run). "
            "Counted are the numbers that training changes, without the task's head, which every method trains; "
            "0 means that nothing but the head is trained."
        )


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


plugin = ScoreByParameters()
