"""The table of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adaptlab.report._html import Content, Html, element, join
from adaptlab.report.charts import methods_of
from adaptlab.report.page._parts import colours_of, notes, scrolling
from adaptlab.report.select import RunRow
from adaptlab.report.tables import Entry, Grid


def results(grid: Grid, rows: Sequence[RunRow]) -> Html:
    if not grid.lines:
        return notes(grid.notes)
    titles = [column.title for column in grid.columns]
    colours = colours_of(methods_of(rows))
    head = [
        element("th", element("button", column.title, type="button"), scope="col", class_=column.number and "number")
        for column in grid.columns
    ]
    lines = [
        element("tr", [_entry(title, entry, colours) for title, entry in zip(titles, line, strict=True)])
        for line in grid.lines
    ]
    table = element(
        "table",
        element("caption", "Best first; choose a heading to sort by it."),
        element("thead", element("tr", head)),
        element("tbody", lines),
    )
    return join([scrolling(table, "Table of results"), notes(grid.notes)])


def _entry(title: str, entry: Entry, colours: Mapping[str, str]) -> Html:
    if title == "method":
        key = element("span", class_="key", style=f"--key: {colours[entry.text]}", aria_hidden="true")
        return element("th", key, entry.text, scope="row")
    text, bracket, aside = entry.text.partition(" (n=")
    content: Content = [text, element("span", f" (n={aside}", class_="aside")] if bracket else text
    if title == "runs finished":
        return element("td", content, class_="problem" if entry.problem else None, data_value=_sortable(entry))
    classes = ["number", *(["best"] if entry.best else []), *(["problem"] if entry.problem else [])]
    return element("td", content, class_=" ".join(classes), data_value=_sortable(entry))


def _sortable(entry: Entry) -> str | None:
    return None if entry.value is None else repr(float(entry.value))
