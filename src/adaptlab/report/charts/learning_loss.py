"""The loss on the selection rows against training steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adaptlab.report.charts._base import Chart
from adaptlab.report.charts._curves import curve_caption, curves
from adaptlab.report.select import RunRow

if TYPE_CHECKING:
    import altair as alt


class LearningLoss(Chart):
    name = "learning_loss"
    title = "Learning curve: loss"
    order = 50

    def drawn(self, rows: Sequence[RunRow], methods: Sequence[str]) -> alt.LayerChart:
        return curves(rows, methods, lambda point: point.select_loss, "loss (selection rows)")

    def caption(self, rows: Sequence[RunRow]) -> str:
        return curve_caption(rows, "The loss during training")


plugin = LearningLoss()
