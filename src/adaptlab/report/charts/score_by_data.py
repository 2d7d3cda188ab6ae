"""Score against how much a method saw: training examples, or demonstrations in the prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from adaptlab.report.baselines import baselines
from adaptlab.report.charts._base import (
    HEIGHT,
    Chart,
    NothingToDrawError,
    colour,
    dash,
    inline,
    padded,
    score_title,
    shape,
)
from adaptlab.report.charts._curves import baseline_caption, line_ends, reference_lines
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell, cells, label_of
from adaptlab.report.tables import score_text

if TYPE_CHECKING:
    import altair as alt

Amount = Literal["train_examples", "shots"]
_WORDS: dict[Amount, str] = {"train_examples": "training examples", "shots": "shots"}
_FLAGS: dict[Amount, str] = {"train_examples": "--train-examples 100,1000", "shots": "--shots 0,4,16"}


class ScoreByData(Chart):
    """A line for each method through its mean at each amount, with a band over seeds and draws of the rows."""

    section = "data"
    family = "Score against data"

    def __init__(self, amount: Amount, order: int) -> None:
        self.amount, self.order = amount, order
        self.name = f"score_by_{amount}"
        self.choice = _WORDS[amount]
        self.title = f"Score against {self.choice}"

    def drawn(self, rows: Sequence[RunRow], methods: Sequence[str]) -> alt.LayerChart:
        import altair as alt

        means = self._means(rows)
        amounts = sorted({value["x"] for value in means})
        if len(amounts) < 2:
            raise NothingToDrawError(f"all runs had the same number of {self.choice} (try `{_FLAGS[self.amount]}`).")
        to_beat = baselines(rows)
        domain = padded([v[key] for v in means for key in ("low", "high")] + [line.value for line in to_beat], 0.05)
        y = alt.Y("y:Q", title=score_title(rows), scale=alt.Scale(domain=list(domain), nice=False, zero=False))
        # Shots begin at none, which a logarithm does not know: symlog is linear up to 1.
        kind: Literal["log", "symlog"] = "log" if amounts[0] > 0 else "symlog"
        across = alt.Scale(type=kind, domain=[amounts[0], amounts[-1]], nice=False)
        ticks = alt.Axis(values=amounts, format=",d" if amounts[-1] < 10_000 else "~s")
        x = alt.X("x:Q", title=f"{self.choice} (log scale)", scale=across, axis=ticks)
        base = alt.Chart(inline(means)).encode(x=x, detail="label:N", color=colour(methods))
        tip = [
            alt.Tooltip("label:N", title="method"),
            alt.Tooltip("x:Q", title=self.choice, format=","),
            alt.Tooltip("text:N", title="score"),
        ]
        lines = alt.layer(
            base.mark_area(opacity=0.16).encode(y=alt.Y("low:Q", title=score_title(rows)), y2="high:Q"),
            base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash(methods)),
            base.mark_point(size=60, filled=True, opacity=1).encode(y=y, shape=shape(methods), tooltip=tip),
        )
        layers = [*reference_lines(to_beat, domain, y), lines, *line_ends(means, domain, y, methods)]
        return alt.layer(*layers).properties(width="container", height=HEIGHT)

    def _means(self, rows: Sequence[RunRow]) -> list[dict[str, Any]]:
        """A value for each cell with a score; those of a line in the order of their amounts."""
        found = []
        for cell in cells(rows):
            amount = self._amount(cell)
            if amount is None or cell.score is None or not math.isfinite(cell.score.mean):
                continue
            label = label_of(cell.method, [part for part in cell.setting if part[0] != self.amount])
            wide = cell.score.std or 0.0
            text = score_text(cell.score) + (f", n = {cell.score.n}" if cell.score.n > 1 else "")
            place = {"method": cell.method, "label": label, "x": amount, "y": cell.score.mean, "text": text}
            found.append(place | {"low": cell.score.mean - wide, "high": cell.score.mean + wide})
        return sorted(found, key=lambda value: (value["label"], value["x"]))

    def _amount(self, cell: Cell) -> int | None:
        """How much the cell's runs saw; ``None`` where that does not vary, and so is no axis."""
        said = dict(cell.setting).get(self.amount)
        if said is None or said.isdecimal():
            return None if said is None else int(said)
        data = next((run.data for run in cell.finished if run.data is not None), None)
        return data.sizes.get("train") if data is not None and self.amount == "train_examples" else None

    def caption(self, rows: Sequence[RunRow]) -> str:
        said = (
            f"Mean over runs with so many {self.choice}, the band one sample standard deviation each way; the runs "
            "differ in their seeds, and in the draw of their training rows where there are several."
        )
        return f"{said} {baseline_caption(baselines(rows))}".rstrip()


plugins = (ScoreByData("train_examples", 30), ScoreByData("shots", 31))
