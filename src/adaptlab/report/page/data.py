"""What data does to a score: fewer training examples or shots, and rows of another domain."""

from __future__ import annotations

from collections.abc import Sequence

from adaptlab.report._html import Html, element, join
from adaptlab.report.budget import main_machine
from adaptlab.report.calibration import Domain, domains
from adaptlab.report.charts import groups, methods_of
from adaptlab.report.charts._base import cell_label
from adaptlab.report.page._parts import colours_of, group_names, keyed, notes, quantity, ranked, scrolling
from adaptlab.report.page.charts import Figures
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell, Setting, label_of, summarise
from adaptlab.report.tables import number_text, score_text

#: Settings that say how many examples a method sees, and the heading of their table.
AMOUNTS = {"train_examples": "training examples", "shots": "shots"}
MISSING = "no run"


def data_section(rows: Sequence[RunRow], figures: Figures) -> Html | None:
    """For each task and model the figures and tables that its runs have data for; ``None`` where there are none."""
    names, colours = group_names(rows), colours_of(methods_of(rows))
    parts: list[Html | None] = []
    for key, found in groups(rows).items():
        finished = [cell for cell in ranked(found) if cell.finished]
        tables = [_by_amount(finished, axis, colours, names[key]) for axis in AMOUNTS]
        tables.append(_by_domain(finished, colours, names[key]))
        if any(tables):
            parts += [element("h3", names[key]) if len(names) > 1 else None, figures.get(key), *tables]
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
    machine = main_machine(found)
    lines = []
    for cell, known in measured:
        entries = [_of_set(cell, which, known.get(which), machine) for which in sets]
        lines.append(element("tr", keyed(cell.method, colours, cell_label(cell)), entries))
    metric = (found[0].metric or "score").capitalize()
    caption = f"{metric} on each set of rows; below it the change from the first, the loss, and what answering took."
    said = [
        "A change is the mean over the runs that have both sets. Nothing is trained or chosen on these rows.",
        "Time is the clock of runs that had it to themselves, divided by the rows, which differ in length between "
        "sets. Memory is told for each set on CUDA only: a CPU's process cannot tell it apart.",
    ]
    return join([_table(caption, sets, lines, f"Score by evaluation set, {name}"), notes(said)])


def _of_set(cell: Cell, which: str, domain: Domain | None, machine: str | None) -> Html:
    if domain is None:
        return element("td", MISSING, class_="number")
    said = [] if domain.in_domain else [f"{-domain.drop:+.3f}"]
    here = [run for run in cell.finished if which in run.metrics]
    loss = summarise([run.metrics[which]["loss"] for run in here if "loss" in run.metrics[which]])
    said += [f"loss {number_text(loss.mean)}"] if loss is not None else []
    timed = [run for run in here if run.environment.fingerprint == machine]
    clocks = [(run.cost.set_seconds.get(which), run.metrics[which].get("n")) for run in timed]
    seconds = summarise([took / rows for took, rows in clocks if took is not None and rows])
    said += [f"{1000 * seconds.mean:.3g} ms a row"] if seconds is not None else []
    held = [bytes_ for run in timed if (bytes_ := run.cost.set_memory_bytes.get(which)) is not None]
    said += [quantity(sum(held) / len(held), "bytes")] if held else []
    return element(
        "td", score_text(domain.score), [element("div", text, class_="aside") for text in said], class_="number"
    )


def _table(caption: str, titles: Sequence[str], lines: Sequence[Html], label: str) -> Html:
    head = [element("th", "method", scope="col")]
    head += [element("th", title, scope="col", class_="number") for title in titles]
    body = [element("thead", element("tr", head)), element("tbody", lines)]
    return scrolling(element("table", element("caption", caption), body, class_="costs"), label)
