"""What data does to a score: fewer training examples or shots, and rows of another domain."""

from __future__ import annotations

from collections.abc import Sequence

from adaptlab.report._html import Html, element, join
from adaptlab.report.calibration import domains
from adaptlab.report.charts import groups, methods_of
from adaptlab.report.charts._base import cell_label
from adaptlab.report.page._parts import colours_of, group_names, keyed, notes, ranked, scrolling
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell, Setting, label_of
from adaptlab.report.tables import score_text

#: Settings that say how many examples a method sees, and the heading of their table.
AMOUNTS = {"train_examples": "training examples", "shots": "shots"}
MISSING = "no run"


def data_section(rows: Sequence[RunRow]) -> Html | None:
    """For each task and model the tables that its runs have data for; ``None`` where there are none."""
    names, colours = group_names(rows), colours_of(methods_of(rows))
    parts: list[Html | None] = []
    for key, found in groups(rows).items():
        finished = [cell for cell in ranked(found) if cell.finished]
        tables = [_by_amount(finished, axis, colours, names[key]) for axis in AMOUNTS]
        tables.append(_by_domain(finished, colours, names[key]))
        if any(tables):
            parts += [element("h3", names[key]) if len(names) > 1 else None, *tables]
    return join(parts) if parts else None


def _by_amount(found: Sequence[Cell], axis: str, colours: dict[str, str], name: str) -> Html | None:
    """A column for each amount; ``None`` while every run has the same."""
    by_amount: dict[tuple[str, Setting], dict[str, Cell]] = {}
    for cell in found:
        amount = dict(cell.setting).get(axis)
        if amount is not None:
            rest = tuple((key, value) for key, value in cell.setting if key != axis)
            by_amount.setdefault((cell.method, rest), {})[amount] = cell
    amounts = sorted({amount for line in by_amount.values() for amount in line}, key=_in_order)
    if len(amounts) < 2:
        return None
    lines = [
        element("tr", keyed(method, colours, label_of(method, rest)), [_score(line.get(amount)) for amount in amounts])
        for (method, rest), line in sorted(by_amount.items())
    ]
    draws = {run.data_seed for cell in found for run in cell.finished}
    drawn = f"{len(draws)} draws of the training rows" if len(draws) > 1 else "one draw of the training rows"
    said = f"Mean ± sample standard deviation over runs: their seeds, and {drawn}."
    caption = f"Score by {AMOUNTS[axis]}, on the report rows."
    return join([_table(caption, amounts, lines, f"Score by {AMOUNTS[axis]}, {name}"), notes([said])])


def _in_order(amount: str) -> tuple[bool, float, str]:
    """Numbers in their order, then words such as ``all``."""
    return (False, float(amount), "") if amount.isdecimal() else (True, 0.0, amount)


def _score(cell: Cell | None) -> Html:
    known = cell is not None and cell.score is not None
    return element("td", score_text(cell.score) if known and cell and cell.score else MISSING, class_="number")


def _by_domain(found: Sequence[Cell], colours: dict[str, str], name: str) -> Html | None:
    """A column for each evaluation set with the primary metric; ``None`` while there is only its own."""
    measured = [(cell, {domain.evaluation_set: domain for domain in domains(cell.runs)}) for cell in found]
    sets = list(dict.fromkeys(which for _, known in measured for which in known))
    if len(sets) < 2:
        return None
    lines = []
    for cell, known in measured:
        entries = []
        for which in sets:
            domain = known.get(which)
            drop = element("div", f"{-domain.drop:+.3f}", class_="aside") if domain and not domain.in_domain else None
            text = MISSING if domain is None else score_text(domain.score)
            entries.append(element("td", text, drop, class_="number"))
        lines.append(element("tr", keyed(cell.method, colours, cell_label(cell)), entries))
    caption = f"{(found[0].metric or 'score').capitalize()} on each set of rows; below it the change from the first."
    said = "A change is the mean over the runs that have both sets. Nothing is trained or chosen on these rows."
    return join([_table(caption, sets, lines, f"Score by evaluation set, {name}"), notes([said])])


def _table(caption: str, titles: Sequence[str], lines: Sequence[Html], label: str) -> Html:
    head = [element("th", "method", scope="col")]
    head += [element("th", title, scope="col", class_="number") for title in titles]
    body = [element("thead", element("tr", head)), element("tbody", lines)]
    return scrolling(element("table", element("caption", caption), body, class_="costs"), label)
