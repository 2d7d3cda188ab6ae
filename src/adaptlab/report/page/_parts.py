"""Pieces that several sections of the page are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adaptlab.report._html import Html, element
from adaptlab.report.charts import groups
from adaptlab.report.charts._base import COLOURS
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell, cells


def notes(sentences: Sequence[str]) -> Html:
    """Small print below a table."""
    return element("div", [element("p", sentence) for sentence in sentences], class_="notes")


def scrolling(table: Html, label: str) -> Html:
    """``table`` in a frame that scrolls sideways where it is too wide, with keys too."""
    return element("div", table, class_="scroll", role="region", aria_label=label, tabindex="0")


def counted(count: int, word: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def colours_of(methods: Sequence[str]) -> dict[str, str]:
    """Each method's colour, the same in every part of the page."""
    return {method: COLOURS[index % len(COLOURS)] for index, method in enumerate(methods)}


def keyed(method: str, colours: dict[str, str], text: str) -> Html:
    """A line's heading: ``text`` behind the dot of its method's colour."""
    key = element("span", class_="key", style=f"--key: {colours[method]}", aria_hidden="true")
    return element("th", key, text, scope="row")


def ranked(rows: Sequence[RunRow]) -> list[Cell]:
    """The cells of one task and model, best first; those without a score last."""

    def rank(cell: Cell) -> tuple[bool, float]:
        known = cell.score is not None and math.isfinite(cell.score.mean)
        return (not known, (-1 if cell.higher_is_better else 1) * cell.score.mean if known and cell.score else 0.0)

    return sorted(cells(rows), key=rank)


def group_names(rows: Sequence[RunRow]) -> dict[tuple[str, str], str]:
    """What to call each task and model: the task alone while there is one model."""
    several_models = len({row.model for row in rows}) > 1
    return {(task, model): f"{task} · {model}" if several_models else task for task, model in groups(rows)}


def quantity(value: float, unit: str) -> str:
    """A cost as a person says it: ``73,728``, ``1.4 GB``, ``12.1 TFLOP``, ``3.2 ms``; as assets/explorer.js does."""
    if unit == "count":
        return f"{value:,.0f}"
    if unit == "seconds" and 0 < abs(value) < 0.1:
        return f"{1000 * value:.3g} ms"
    if unit == "seconds":
        return f"{value / 60:.3g} min" if value >= 120 else f"{value:.3g} s"
    names = ("B", "kB", "MB", "GB", "TB") if unit == "bytes" else _FLOPS
    power = 0
    while abs(value) >= 999.5 and power < len(names) - 1:
        value /= 1000
        power += 1
    return f"{value:.3g} {names[power]}"


_FLOPS = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP")
