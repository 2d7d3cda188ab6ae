"""Learning curves: score and loss on the selection rows against steps, examples, tokens, FLOPs and seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from adaptlab.report.baselines import baselines
from adaptlab.report.charts._base import Chart
from adaptlab.report.charts._curves import SPENT, Spent, baseline_caption, curve_caption, curves
from adaptlab.report.select import RunRow

if TYPE_CHECKING:
    import altair as alt

_CHOICES: dict[Spent, str] = {
    "step": "against steps",
    "examples": "against examples",
    "tokens": "against tokens",
    "flops": "against FLOPs",
    "seconds": "against seconds",
}


class Learning(Chart):
    """One chart for each pair of a value and what training spent."""

    def __init__(self, value: Literal["metric", "loss"], spent: Spent, order: int) -> None:
        words = {"metric": "score", "loss": "loss"}[value]
        self.value, self.spent, self.order = value, spent, order
        self.name = f"learning_{value}" if spent == "step" else f"learning_{value}_by_{spent}"
        self.family, self.choice = f"Learning curve: {words}", _CHOICES[spent]
        self.title = f"{self.family} {self.choice}"

    def drawn(self, rows: Sequence[RunRow], methods: Sequence[str]) -> alt.LayerChart:
        if self.value == "loss":
            return curves(rows, methods, lambda point: point.select_loss, "loss (selection rows)", self.spent)
        metric = _metric(rows)
        title, lines = f"{metric} (selection rows)", baselines(rows)
        return curves(rows, methods, lambda point: point.metrics.get(metric), title, self.spent, lines)

    def caption(self, rows: Sequence[RunRow]) -> str:
        if self.value == "loss":
            return curve_caption(rows, "Loss", self.spent)
        said = curve_caption(rows, _metric(rows).capitalize(), self.spent)
        return f"{said} {baseline_caption(baselines(rows))}".rstrip()


def _metric(rows: Sequence[RunRow]) -> str:
    """The primary metric; while no run has finished, the first one of the curves."""
    for row in rows:
        if row.primary is not None:
            return row.primary.name
    return next((name for row in rows for point in row.curve.points for name in point.metrics), "score")


plugins = (
    *(Learning("metric", spent, 40 + index) for index, spent in enumerate(SPENT)),
    *(Learning("loss", spent, 50 + index) for index, spent in enumerate(SPENT)),
)
