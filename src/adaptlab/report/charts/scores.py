"""Every method's score: one dot per run, the mean and its spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adaptlab.report.charts._base import Chart, cell_label, colour, inline, padded, score_title
from adaptlab.report.charts._scatter import scored
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import cells
from adaptlab.report.tables import number_text, score_text

if TYPE_CHECKING:
    import altair as alt

ROW_HEIGHT = 34


class Scores(Chart):
    name = "scores"
    title = "Score of every run"
    order = 10

    def drawn(self, rows: Sequence[RunRow], methods: Sequence[str]) -> alt.LayerChart:
        import altair as alt

        found = scored(cells(rows), "anything")
        found.sort(key=lambda cell: cell.score.mean if cell.score else 0.0, reverse=found[0].higher_is_better)
        means, runs = [], []
        for cell in found:
            score = cell.score
            assert score is not None  # `scored` chose the cells
            spread = score.std or 0.0
            place: dict[str, Any] = {"method": cell.method, "label": cell_label(cell)}
            low, high = score.mean - spread, score.mean + spread
            means.append(place | {"mean": score.mean, "low": low, "high": high, "text": score_text(score)})
            for run in cell.finished:
                if run.score is not None and math.isfinite(run.score):
                    runs.append(place | {"score": run.score, "seed": run.seed, "text": number_text(run.score)})
        domain = padded([value for mean in means for value in (mean["low"], mean["high"])] + [r["score"] for r in runs])
        scale = alt.Scale(domain=list(domain), nice=False, zero=False)
        order = [mean["label"] for mean in means]
        y = alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=220, ticks=False, domain=False))
        x = alt.X("mean:Q", title=score_title(rows), scale=scale, axis=alt.Axis(grid=True))
        base = alt.Chart(inline(means)).encode(y=y, color=colour(methods))
        tip = [alt.Tooltip("label:N", title="method"), alt.Tooltip("text:N", title="score")]
        low_end = alt.X("low:Q", title=score_title(rows))
        bars = base.mark_rule(strokeWidth=5, opacity=0.28).encode(x=low_end, x2="high:Q")
        ticks = base.mark_tick(thickness=3, size=20).encode(x=x, tooltip=tip)
        dots = (
            alt.Chart(inline(runs))
            .mark_point(size=38, filled=True, opacity=0.9)
            .encode(y=y, x="score:Q", color=colour(methods), tooltip=[*tip, alt.Tooltip("seed:N", title="seed")])
        )
        return alt.layer(bars, dots, ticks).properties(width="container", height=ROW_HEIGHT * len(means))

    def caption(self, rows: Sequence[RunRow]) -> str:
        lost = [row for row in rows if row.status not in ("finished", "running")]
        left_out = f" {len(lost)} of {len(rows)} runs have no score and are missing here." if lost else ""
        return (
            "Dots are runs (seeds), the upright stroke their mean, the pale bar one sample standard deviation each "
            "way. "
            f"The axis does not start at 0.{left_out}"
        )


plugin = Scores()
