"""What tuning found and what it cost: no part of any run's own cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adaptlab.report._html import Html, element, join
from adaptlab.report.charts import groups, methods_of
from adaptlab.report.charts._base import cell_label
from adaptlab.report.charts.tuning import signed
from adaptlab.report.page._parts import colours_of, group_names, keyed, quantity, ranked, scrolling
from adaptlab.report.page.charts import Figures
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell
from adaptlab.report.tables import number_text
from adaptlab.runs.record import TuningPart

_TITLES = (
    "method",
    "trials",
    "without a score",
    "first trial",
    "best trial",
    "chosen",
    "training FLOPs",
    "training time",
)
NOT_MEASURED = "not measured"


def tuning(rows: Sequence[RunRow], figures: Figures) -> Html | None:
    """A chart and a table for each task and model whose methods were tuned; ``None`` where none were."""
    names, colours = group_names(rows), colours_of(methods_of(rows))
    parts: list[Html | None] = []
    for key, found in groups(rows).items():
        lines = [_line(cell, part, colours) for cell in ranked(found) if (part := _part(cell)) is not None]
        if lines:
            head = [
                element("th", title, scope="col", class_=None if title in ("method", "chosen") else "number")
                for title in _TITLES
            ]
            caption = element(
                "caption",
                "All trials of a method together, beside the cost of its final runs. Scores are of the selection rows; "
                "the first trial has the method's default values.",
            )
            table = element("table", caption, element("thead", element("tr", head)), element("tbody", lines))
            title = element("h3", names[key]) if len(names) > 1 else None
            parts += [title, figures.get(key), scrolling(table, f"Tuning on {names[key]}")]
    return join(parts) if parts else None


def _part(cell: Cell) -> TuningPart | None:
    return next((run.tuning for run in cell.runs if run.tuning is not None), None)


def _line(cell: Cell, part: TuningPart, colours: dict[str, str]) -> Html:
    known = [score for score in part.scores if score is not None]
    first = part.scores[0] if part.scores else None
    return element(
        "tr",
        keyed(cell.method, colours, cell_label(cell)),
        _number(part.trials),
        _number(part.trials - len(known)),
        _score(cell, first),
        _score(cell, max(known, default=None)),
        element("td", ", ".join(f"{name} {_value(value)}" for name, value in part.chosen.items()) or "nothing"),
        _cost(part.train_flops, "flops"),
        _cost(part.train_seconds, "seconds"),
    )


def _number(value: int) -> Html:
    return element("td", f"{value:,}", class_="number")


def _score(cell: Cell, score: float | None) -> Html:
    return element("td", "none" if score is None else number_text(signed(cell, score)), class_="number")


def _cost(value: float | None, unit: str) -> Html:
    if value is None:
        return element("td", element("span", NOT_MEASURED, class_="aside"), class_="number")
    return element("td", quantity(value, unit), class_="number")


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
