"""What a pruner saved of a search, and how far the short trainings by which it judged put trials in the right order."""

from __future__ import annotations

from collections.abc import Sequence

from adaptlab.report._html import Html, element, join
from adaptlab.report.charts import groups, methods_of
from adaptlab.report.page._parts import colours_of, group_names, keyed, notes, scrolling
from adaptlab.report.select import RunRow
from adaptlab.runs.record import TuningPart

_TITLES = ("method", "trials", "ended early", "steps not trained", "order kept")


def pruning(rows: Sequence[RunRow]) -> Html | None:
    """A table for each task and model; ``None`` where no search had a pruner."""
    pruned = [row for row in rows if row.tuning is not None and row.tuning.pruner is not None]
    if not pruned:
        return None
    colours, names, parts = colours_of(methods_of(rows)), group_names(rows), []
    for key, found in groups(pruned).items():
        searches = {row.method: row.tuning for row in found if row.tuning is not None}
        head = [element("th", title, scope="col") for title in _TITLES]
        lines = [element("tr", keyed(label, colours, label), _entries(one)) for label, one in searches.items()]
        table = element("table", element("thead", element("tr", head)), element("tbody", lines))
        title = element("h3", names[key]) if len(names) > 1 else None
        parts += [title, scrolling(table, f"Trials ended early on {names[key]}")]
    pruners = " and ".join(sorted({row.tuning.pruner for row in pruned if row.tuning and row.tuning.pruner}))
    return join([*parts, notes([_said(pruners)])])


def saving(search: TuningPart) -> float | None:
    """The share of the steps that the search would have trained without its pruner and did not; below 0: more."""
    if search.steps is None or not search.steps_unpruned:
        return None
    return 1 - search.steps / search.steps_unpruned


def _entries(search: TuningPart) -> list[Html]:
    saved, kept = saving(search), search.agreement
    words = (
        f"{search.trials}",
        f"{search.pruned}",
        "not known" if saved is None else f"{saved:.0%}",
        "not known" if kept is None else f"{kept:.0%}",
    )
    return [element("td", word, class_="number") for word in words]


def _said(pruners: str) -> str:
    return (
        f"Trials were ended early by {pruners}, judged after a ninth and a third of their steps, each on a schedule of "
        "that length. That favours what learns fast, high rates above all. 'Order kept' is the share of pairs of whole "
        "trials that the shortest training had put in the order of the whole one, 50 % being chance; of the trials "
        "that were ended nobody knows. 'Steps not trained' has what was trained anew taken off."
    )
