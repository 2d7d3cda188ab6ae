"""How far probabilities can be believed: a table of calibration beside the chart of reliability."""

from __future__ import annotations

from collections.abc import Sequence

from adaptlab.report._html import Html, element, join
from adaptlab.report.calibration import calibration, probabilities_of
from adaptlab.report.charts import groups, methods_of
from adaptlab.report.charts._base import cell_label
from adaptlab.report.page._parts import colours_of, group_names, keyed, notes, ranked, scrolling
from adaptlab.report.page.charts import Figures
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell, summarise
from adaptlab.report.tables import score_text


def calibration_section(rows: Sequence[RunRow], figures: Figures) -> Html | None:
    """For each task and model; ``None`` where no run kept probabilities of classes."""
    names, colours = group_names(rows), colours_of(methods_of(rows))
    parts: list[Html | None] = []
    for key, found in groups(rows).items():
        lines = [line for cell in ranked(found) if (line := _line(cell, colours)) is not None]
        if lines:
            title = element("h3", names[key]) if len(names) > 1 else None
            parts += [title, element("div", _table(names[key], lines), figures.get(key), class_="with-chart")]
    return join(parts) if parts else None


def _line(cell: Cell, colours: dict[str, str]) -> Html | None:
    known = [calibration(*found) for run in cell.finished if (found := probabilities_of(run)) is not None]
    ece, brier = summarise([one.ece for one in known]), summarise([one.brier for one in known])
    if ece is None or brier is None:
        return None
    return element(
        "tr",
        keyed(cell.method, colours, cell_label(cell)),
        element("td", score_text(ece), class_="number"),
        element("td", score_text(brier), class_="number"),
    )


def _table(name: str, lines: Sequence[Html]) -> Html:
    head = [element("th", "method", scope="col")]
    head += [element("th", title, scope="col", class_="number") for title in ("ECE", "Brier score")]
    caption = element("caption", "Mean over runs; 0 is perfect.")
    table = element("table", caption, element("thead", element("tr", head)), element("tbody", lines))
    said = (
        "ECE: mean distance between confidence and share of right answers, over 15 bins of equal width, for the class "
        "chosen. Brier score: mean squared distance of the probabilities from the right answer, summed over classes."
    )
    return element("div", scrolling(table, f"Calibration on {name}"), notes([said]))
