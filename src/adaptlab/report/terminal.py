"""The report in a terminal: the answer, then the table."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from adaptlab.report.answer import answer
from adaptlab.report.select import Selection
from adaptlab.report.tables import Entry, results_grid


def terminal_report(selection: Selection) -> RenderableType:
    """The answer in sentences, the table of results, and the notes on both."""
    said, grid = answer(selection), results_grid(selection)
    notes = Text("\n".join((*said.doubts, *grid.notes, *grid.left_out)), style="dim")
    title = Text(" + ".join(selection.studies), style="italic")
    if not grid.lines:
        return Group(title, notes)
    table = Table(box=box.SIMPLE_HEAD)
    for column in grid.columns:
        table.add_column(Text(column.title), justify="right" if column.number else "left", overflow="fold")
    for line in grid.lines:
        table.add_row(*(Text(entry.text, style=_style(entry)) for entry in line))
    details = [Text("\n".join(f"- {detail}" for detail in said.details))] if said.details else []
    return Group(title, Text(""), Text(said.lead, style="bold"), *details, table, notes)


def _style(entry: Entry) -> str:
    return "bold" if entry.best else "red" if entry.problem else ""
