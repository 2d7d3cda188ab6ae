"""What tuning found, what it cost, and what a pruner saved of it: no part of any run's own cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adaptlab.report._html import Html, element, join
from adaptlab.report.charts import groups, methods_of
from adaptlab.report.charts._base import cell_label
from adaptlab.report.charts.tuning import signed
from adaptlab.report.page._parts import colours_of, group_names, keyed, notes, quantity, ranked, scrolling
from adaptlab.report.page.charts import Figures
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell
from adaptlab.report.tables import number_text
from adaptlab.runs.record import TuningPart

_TITLES = ("method", "trials", "without a score", "first trial", "best trial", "chosen")
#: Of searches that a pruner shortened.
_PRUNED_TITLES = ("ended early", "steps not trained", "order kept")
_COST_TITLES = ("training FLOPs", "training time")
NOT_MEASURED, NOT_KNOWN = "not measured", "not known"


def tuning(rows: Sequence[RunRow], figures: Figures) -> Html | None:
    """A chart and a table for each task and model whose methods were tuned; ``None`` where none were."""
    names, colours = group_names(rows), colours_of(methods_of(rows))
    parts: list[Html | None] = []
    pruners: set[str] = set()
    for key, found in groups(rows).items():
        searches = [(cell, part) for cell in ranked(found) if (part := _part(cell)) is not None]
        if not searches:
            continue
        here = {part.pruner for _, part in searches if part.pruner is not None}
        pruners |= here
        titles = (*_TITLES, *(_PRUNED_TITLES if here else ()), *_COST_TITLES)
        head = [
            element("th", title, scope="col", class_=None if title in ("method", "chosen") else "number")
            for title in titles
        ]
        caption = element(
            "caption",
            "All trials of a method together, beside the cost of its final runs. Scores are of the selection rows; "
            "the first trial has the method's default values.",
        )
        lines = [_line(cell, part, colours, pruned=bool(here)) for cell, part in searches]
        table = element("table", caption, element("thead", element("tr", head)), element("tbody", lines))
        title = element("h3", names[key]) if len(names) > 1 else None
        parts += [title, figures.get(key), scrolling(table, f"Tuning on {names[key]}")]
    if pruners:
        parts.append(notes([_what_pruning_is(" and ".join(sorted(pruners)))]))
    return join(parts) if parts else None


def saving(search: TuningPart) -> float | None:
    """The share of the steps that the search would have trained without its pruner and did not; below 0: more."""
    if search.steps is None or not search.steps_unpruned:
        return None
    return 1 - search.steps / search.steps_unpruned


def _part(cell: Cell) -> TuningPart | None:
    return next((run.tuning for run in cell.runs if run.tuning is not None), None)


def _line(cell: Cell, part: TuningPart, colours: dict[str, str], *, pruned: bool) -> Html:
    known = [score for score in part.scores if score is not None]
    first = part.scores[0] if part.scores else None
    return element(
        "tr",
        keyed(cell.method, colours, cell_label(cell)),
        _number(part.trials),
        _number(part.trials - len(known) - (part.pruned or 0)),
        _score(cell, first),
        _score(cell, max(known, default=None)),
        element("td", ", ".join(f"{name} {_value(value)}" for name, value in part.chosen.items()) or "nothing"),
        [_number(part.pruned or 0), _share(saving(part)), _share(part.agreement)] if pruned else None,
        _cost(part.train_flops, "flops"),
        _cost(part.train_seconds, "seconds"),
    )


def _share(value: float | None) -> Html:
    return element("td", NOT_KNOWN if value is None else f"{value:.0%}", class_="number")


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


def _what_pruning_is(pruners: str) -> str:
    return (
        f"Trials were ended early by {pruners}, judged after a ninth and a third of their steps, each on a schedule of "
        "that length. That favours what learns fast, high rates above all. 'Order kept' is the share of pairs of whole "
        "trials that the shortest training had put in the order of the whole one, 50 % being chance; of the trials "
        "that were ended nobody knows. 'Steps not trained' has what was trained anew taken off."
    )
