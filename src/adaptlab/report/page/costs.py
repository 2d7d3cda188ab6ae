"""What each method costs, beside full fine-tuning, and what it spends to come near the best score."""

from __future__ import annotations

from collections.abc import Sequence

from adaptlab.report._html import Html, element, join
from adaptlab.report.answer import ratio_text
from adaptlab.report.budget import SHARES, SPENT, Spent, cost_to_reach, final, main_machine, stairs_of, target_of
from adaptlab.report.charts import groups, methods_of
from adaptlab.report.charts._base import cell_label
from adaptlab.report.costs import costs_of
from adaptlab.report.page._parts import colours_of, group_names, keyed, notes, quantity, ranked, scrolling
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell
from adaptlab.report.tables import number_text

#: Costs in the order of the table: name in record.json, title, unit.
COLUMNS = (
    ("trainable", "trained parameters", "count"),
    ("peak_memory_bytes", "memory while training", "bytes"),
    ("eval_memory_bytes", "memory while answering", "bytes"),
    ("train_flops", "training FLOPs", "flops"),
    ("train_seconds", "training time", "seconds"),
    ("step_seconds", "time per step", "seconds"),
    ("step_joules", "energy per step, J", "count"),
    ("eval_seconds", "time of evaluations", "seconds"),
    ("answer_seconds", "answering one row", "seconds"),
    ("merged_answer_seconds", "the same, merged", "seconds"),
    ("adapter_bytes", "disk", "bytes"),
)
#: Always shown, so that a cost that was not measured is seen not to be.
_ALWAYS = {"trainable", "peak_memory_bytes", "train_flops", "train_seconds", "adapter_bytes"}
NOT_MEASURED = "not measured"


def costs(rows: Sequence[RunRow]) -> Html | None:
    """Two tables for each task and model; ``None`` where no run has finished."""
    names, colours = group_names(rows), colours_of(methods_of(rows))
    parts = []
    for key, found in groups(rows).items():
        finished = [cell for cell in ranked(found) if cell.finished]
        if finished:
            title = element("h3", names[key]) if len(names) > 1 else None
            parts += [title, _relative(finished, colours, names[key]), _reach(finished, colours, names[key])]
    return join(parts) if parts else None


def _figures(cell: Cell, machine: str | None) -> dict[str, float]:
    known = {f.name: f.mean for f in costs_of(cell.runs) if f.machine in (None, machine)}
    return known if cell.trainable is None else known | {"trainable": float(cell.trainable)}


def _relative(found: Sequence[Cell], colours: dict[str, str], name: str) -> Html:
    machine = main_machine(found)
    figures = [_figures(cell, machine) for cell in found]
    shown = [c for c in COLUMNS if c[0] in _ALWAYS or any(c[0] in known for known in figures)]
    full = next((known for cell, known in zip(found, figures, strict=True) if _is_full(cell)), None)
    head = [element("th", "method", scope="col")]
    head += [element("th", title, scope="col", class_="number") for _, title, _ in shown]
    lines = []
    for cell, known in zip(found, figures, strict=True):
        entries = [
            _cost(known.get(key), unit, None if _is_full(cell) else (full or {}).get(key)) for key, _, unit in shown
        ]
        lines.append(element("tr", keyed(cell.method, colours, cell_label(cell)), entries))
    against = "; below each, relative to full fine-tuning" if full is not None else ""
    caption = element("caption", f"One run, mean over seeds{against}.")
    table = element("table", caption, element("thead", element("tr", head)), element("tbody", lines), class_="costs")
    machines = {run.environment.fingerprint for cell in found for run in cell.finished}
    said = [
        f"Clocks and memory are of the machine with the most runs, of {len(machines)}: others do not compare with it."
    ] * (len(machines) > 1)
    if full is None:
        said.append("With the method full in the study, each cost would also be told relative to full fine-tuning.")
    return join([scrolling(table, f"Costs on {name}"), notes(said) if said else None])


def _is_full(cell: Cell) -> bool:
    return all(run.method_name == "full" for run in cell.runs)


def _cost(value: float | None, unit: str, reference: float | None) -> Html:
    if value is None:
        return element("td", element("span", NOT_MEASURED, class_="aside"), class_="number")
    share = element("span", ratio_text(value / reference).removesuffix(" of"), class_="share") if reference else None
    return element("td", quantity(value, unit), share, class_="number", data_value=repr(float(value)))


def _reach(found: Sequence[Cell], colours: dict[str, str], name: str) -> Html | None:
    """FLOPs and seconds until the mean selection score is at a share of the best one of all methods."""
    machine = main_machine(found)
    primary = next((run.primary for cell in found for run in cell.finished if run.primary), None)
    if primary is None:
        return None
    higher = primary.higher_is_better
    columns: list[tuple[str, list[Html]]] = []
    targets: list[str] = []
    for spent in SPENT:
        read = [stairs_of(cell, spent, machine if spent == "seconds" else None) for cell in found]
        ends = [end for stairs in read if (end := final(stairs)) is not None]
        if not ends:
            continue
        best = max(ends) if higher else min(ends)
        for share in SHARES:
            target = target_of(best, share, higher_is_better=higher)
            if target is None:
                continue
            title = f"{_NAMES[spent]} to {100 * share:.0f} %"
            if len(columns) < len(SHARES):
                targets.append(f"{100 * share:.0f} % is {number_text(target)}")
            columns.append(
                (title, [_spent(cost_to_reach(s, target, higher_is_better=higher), bool(s), spent) for s in read])
            )
    if not columns:
        return None
    head = [element("th", "method", scope="col")]
    head += [element("th", title, scope="col", class_="number") for title, _ in columns]
    lines = [
        element("tr", keyed(cell.method, colours, cell_label(cell)), [entries[index] for _, entries in columns])
        for index, cell in enumerate(found)
    ]
    caption = element(
        "caption",
        f"What it takes to reach 95 %, 99 % and all of the best {primary.name} that any method reached on the "
        f"selection rows ({', '.join(targets)}).",
    )
    table = element("table", caption, element("thead", element("tr", head)), element("tbody", lines), class_="reach")
    said = "The mean over seeds of the best score so far; it is known at the evaluations only (--eval-every)."
    return join([scrolling(table, f"Cost to reach a score on {name}"), notes([said])])


_NAMES: dict[Spent, str] = {"flops": "FLOPs", "seconds": "time"}


def _spent(cost: float | None, known: bool, spent: Spent) -> Html:
    if not known:
        return element("td", element("span", NOT_MEASURED, class_="aside"), class_="number")
    if cost is None:
        return element("td", element("span", "not reached", class_="aside"), class_="number")
    return element("td", quantity(cost, spent), class_="number", data_value=repr(cost))
