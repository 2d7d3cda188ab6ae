"""The budget explorer: sliders for what may be spent, and the best method within; its script is assets/explorer.js."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adaptlab.report._html import Html, element, join
from adaptlab.report.baselines import Baseline, baselines
from adaptlab.report.budget import SPENT, main_machine, stairs_of
from adaptlab.report.charts import groups, methods_of
from adaptlab.report.charts._base import SHAPES, cell_label
from adaptlab.report.costs import costs_of
from adaptlab.report.page._parts import colours_of, group_names, ranked, scrolling
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell
from adaptlab.report.tables import machine_text


@dataclass(frozen=True, slots=True)
class Resource:
    """What can be limited. ``key`` is its name in record.json; ``spent`` its name in curve.jsonl, if it is there."""

    key: str
    title: str
    unit: str
    spent: str | None = None


RESOURCES = (
    Resource("trainable", "Trained parameters", "count"),
    Resource("peak_memory_bytes", "Memory while training", "bytes"),
    Resource("train_flops", "Training FLOPs", "flops", "flops"),
    Resource("train_seconds", "Training time", "seconds", "seconds"),
    Resource("adapter_bytes", "Disk", "bytes"),
)


def explorer(rows: Sequence[RunRow]) -> tuple[dict[str, Any], Html | None]:
    """The data of the script, and the places that it fills; nothing where no run has finished."""
    scored = {key: found for key, found in groups(rows).items() if any(row.score is not None for row in found)}
    if not scored:
        return {}, None
    names = group_names(rows)
    methods = methods_of(rows)
    data = [_group(names[key], found, methods) for key, found in scored.items()]
    resources = [{"key": r.key, "title": r.title, "unit": r.unit, "spent": r.spent} for r in RESOURCES]
    options = [element("option", group["name"], value=str(index)) for index, group in enumerate(data)]
    chooser = element("label", "Task ", element("select", options, id="budget-group"), class_="chooser")
    axes = [element("option", r.title[0].lower() + r.title[1:], value=r.key) for r in RESOURCES]
    head = [element("th", title, scope="col", class_=None if i == 0 else "number") for i, title in enumerate(_COLUMNS)]
    table = element(
        "table",
        element("caption", "Every method at this budget. “Front”: none scores better at its cost on the axis or less."),
        element("thead", element("tr", head)),
        element("tbody", id="budget-lines"),
    )
    body = element(
        "div",
        element("p", id="budget-answer", class_="verdict", role="status"),
        element(
            "div",
            element("div", id="budget-sliders", class_="sliders"),
            element(
                "div",
                element("label", "Score against ", element("select", axes, id="budget-axis"), class_="chooser"),
                element("div", id="budget-plot", class_="plot", role="img"),
                element("p", id="budget-baselines", class_="notes"),
                class_="beside",
            ),
            class_="explorer",
        ),
        scrolling(table, "Every method at this budget"),
        element("p", id="budget-note", class_="notes"),
        id="budget-explorer",
    )
    silent = element("noscript", element("p", "The budget explorer needs JavaScript."))
    lead = element(
        "p",
        "Move a slider to say what you can spend. Parameters, memory and disk rule methods out; FLOPs and time stop "
        "training early, and a method then has the best score that its runs had reached by then.",
        class_="lead",
    )
    return {"resources": resources, "groups": data}, join([lead, silent, chooser if len(data) > 1 else None, body])


_COLUMNS = ("method", "score", *(resource.title[0].lower() + resource.title[1:] for resource in RESOURCES))


def _group(name: str, rows: Sequence[RunRow], methods: Sequence[str]) -> dict[str, Any]:
    found = ranked(rows)
    machine = main_machine(found)
    runs = [run for cell in found for run in cell.finished]
    machines = {run.environment.fingerprint for run in runs}
    here = next((run for run in runs if run.environment.fingerprint == machine), None)
    primary = next(row.primary for row in rows if row.score is not None)
    assert primary is not None  # a score is a primary metric's value
    return {
        "name": name,
        "metric": primary.name,
        "set": primary.evaluation_set,
        "higher": primary.higher_is_better,
        "machine": machine_text(here) if here is not None else "",
        "machines": len(machines),
        "baselines": [_baseline(line) for line in baselines(rows)],
        "cells": [_cell(cell, machine, methods) for cell in found if cell.score is not None],
    }


def _baseline(line: Baseline) -> dict[str, Any]:
    return {"name": line.name, "value": line.value, "meaning": line.meaning}


def _cell(cell: Cell, machine: str | None, methods: Sequence[str]) -> dict[str, Any]:
    score = cell.score
    assert score is not None  # the caller chose them
    known: dict[str, float | None] = {resource.key: None for resource in RESOURCES}
    known["trainable"] = cell.trainable
    for figure in costs_of(cell.runs):
        if figure.name in known and figure.machine in (None, machine):
            known[figure.name] = figure.mean
    return {
        "label": cell_label(cell),
        "colour": colours_of(methods)[cell.method],
        "shape": SHAPES[methods.index(cell.method) % len(SHAPES)],
        "score": score.mean if math.isfinite(score.mean) else None,
        "std": score.std,
        "n": score.n,
        "costs": known,
        "stairs": {spent: _stairs(cell, spent, machine) for spent in SPENT},
    }


def _stairs(cell: Cell, spent: Any, machine: str | None) -> list[list[list[float]]]:
    found = stairs_of(cell, spent, machine if spent == "seconds" else None)
    return [[[_short(cost) for cost in one.costs], [_short(score) for score in one.scores]] for one in found]


def _short(value: float) -> float:
    """Six figures: more than a clock or a score is worth, and half the bytes."""
    return float(f"{value:.6g}")
