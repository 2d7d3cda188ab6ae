"""The primary metric on the selection rows against training steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adaptlab.report.charts._base import Chart
from adaptlab.report.charts._curves import curve_caption, curves
from adaptlab.report.select import RunRow

if TYPE_CHECKING:
    import altair as alt


class LearningMetric(Chart):
    name = "learning_metric"
    title = "Learning curve: score"
    order = 40

    def drawn(self, rows: Sequence[RunRow], methods: Sequence[str]) -> alt.LayerChart:
        metric = _metric(rows)
        return curves(rows, methods, lambda point: point.metrics.get(metric), f"{metric} (selection rows)")

    def caption(self, rows: Sequence[RunRow]) -> str:
        return curve_caption(rows, f"The {_metric(rows)} during training")


def _metric(rows: Sequence[RunRow]) -> str:
    """The primary metric; while no run has finished, the first one of the curves."""
    for row in rows:
        if row.primary is not None:
            return row.primary.name
    return next((name for row in rows for point in row.curve.points for name in point.metrics), "score")


plugin = LearningMetric()
