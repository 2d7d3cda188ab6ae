"""Every run with its status, configuration and error; files left out; machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from adaptlab.report._html import Html, element, join
from adaptlab.report.page._parts import counted, scrolling
from adaptlab.report.select import Problem, RunRow
from adaptlab.report.tables import machine_letters, machine_text, number_text, seconds_text


def unfinished(rows: Sequence[RunRow]) -> Html | None:
    lost = [row for row in rows if row.status not in ("finished", "running")]
    if not lost:
        return None
    lines = [
        element(
            "tr",
            element("th", row.name, scope="row", class_="wide-text"),
            element("td", row.status.replace("-", " "), class_="problem"),
            element("td", f"{row.error.type}: {row.error.message}" if row.error else "no error was recorded"),
        )
        for row in lost
    ]
    head = [element("th", title, scope="col") for title in ("run", "status", "why")]
    table = element(
        "table",
        element("caption", "They are in no mean. What else is known of each stands under Every run."),
        element("thead", element("tr", head)),
        element("tbody", lines),
    )
    return scrolling(table, "Runs that did not finish")


def runs(rows: Sequence[RunRow]) -> Html | None:
    if not rows:
        return None
    statuses = sorted({row.status for row in rows})
    options = [element("option", status.replace("-", " "), value=status) for status in statuses]
    filters = element(
        "div",
        element("label", "Find ", element("input", type="search", id="run-words", placeholder="method, task, seed …")),
        element(
            "label",
            "Status ",
            element("select", element("option", "any", value=""), options, id="run-status"),
        ),
        element("span", f"{len(rows)} of {len(rows)} runs", id="runs-shown", role="status"),
        class_="filter",
    )
    return join([filters, [_run(row) for row in rows]])


def _run(row: RunRow) -> Html:
    score = f"{row.primary.name} {number_text(row.primary.value)}" if row.primary is not None else "no score"
    seconds = row.cost.train_seconds
    summary = element(
        "summary",
        element("span", row.name, class_="name"),
        element("span", row.status.replace("-", " "), class_=f"status-{row.status}"),
        element("span", score, class_="figure"),
        element("span", f"{seconds_text(seconds)} s" if seconds is not None else "", class_="figure muted"),
    )
    warnings = element("ul", [element("li", warning) for warning in row.warnings])
    parts = [
        _error(row),
        _part("Warnings", warnings) if row.warnings else None,
        _part("Scores", _metrics(row)) if row.metrics else None,
        _part("Parameters and cost", element("pre", _lines(_figures(row)))),
        _part("Configuration", element("pre", _lines(row.resolved))),
    ]
    return element("details", summary, element("div", parts, class_="body"), class_="run", data_status=row.status)


def _part(title: str, body: Html) -> Html:
    return element("div", element("h4", title), body)


def _error(row: RunRow) -> Html | None:
    if row.error is None:
        return None
    traceback = element("pre", row.error.traceback) if row.error.traceback else None
    return element("div", element("strong", row.error.type), ": ", row.error.message, traceback, class_="error")


def _metrics(row: RunRow) -> Html:
    names = list(dict.fromkeys(name for metrics in row.metrics.values() for name in metrics if name != "n"))
    head = [element("th", "rows", scope="col"), element("th", "n", scope="col", class_="number")]
    head += [element("th", name, scope="col", class_="number") for name in names]
    lines = []
    for name, metrics in row.metrics.items():
        size = element("td", f"{metrics['n']:,.0f}" if "n" in metrics else "", class_="number")
        figures = [
            element("td", number_text(metrics[metric]) if metric in metrics else "", class_="number")
            for metric in names
        ]
        lines.append(element("tr", element("th", name, scope="row"), size, figures))
    table = element("table", element("thead", element("tr", head)), element("tbody", lines))
    return scrolling(table, f"Scores of {row.name}")


def _figures(row: RunRow) -> dict[str, Any]:
    """What was counted and measured; what was not is left out."""
    cost = {key: value for key, value in row.cost.model_dump().items() if value is not None}
    return {
        "parameters": row.parameters.model_dump() if row.parameters else {},
        "cost": cost,
        "data": row.data.model_dump(exclude={"labels", "warnings"}, exclude_none=True) if row.data else {},
        "training": row.training,
        "engine": row.engine,
        "id": row.id,
    }


def _lines(nested: Mapping[str, Any], indent: str = "") -> str:
    """Nested values as indented lines."""
    lines = []
    for key, value in nested.items():
        if isinstance(value, Mapping):
            if value:
                lines.append(f"{indent}{key}:\n{_lines(value, indent + '  ')}")
        else:
            lines.append(f"{indent}{key}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines)


def problems_table(problems: Sequence[Problem]) -> Html | None:
    if not problems:
        return None
    lines = [
        element("tr", element("th", p.file, scope="row", class_="wide-text"), element("td", p.reason)) for p in problems
    ]
    head = [element("th", title, scope="col") for title in ("file", "why")]
    caption = element("caption", "Nothing of them is in any number above. Running the study again repairs what it can.")
    table = element("table", caption, element("thead", element("tr", head)), element("tbody", lines))
    return scrolling(table, "Files left out")


def environments(rows: Sequence[RunRow]) -> Html | None:
    if not rows:
        return None
    letters = machine_letters(rows)
    parts: list[Html] = []
    for fingerprint, letter in letters.items():
        here = [row for row in rows if row.environment.fingerprint == fingerprint]
        environment = here[0].environment
        packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))
        commits = sorted({row.environment.commit or "" for row in here} - {""})
        python = f"Python {environment.python}" if environment.python else ""
        facts = [
            counted(len(here), "run"),
            ", ".join(text for text in (python, packages) if text),
            f"commit {', '.join(commits)}" if commits else "",
            "with uncommitted changes" if any(row.environment.dirty for row in here) else "",
        ]
        name = f"{letter}: {machine_text(here[0])}" if letter else machine_text(here[0])
        parts += [element("dt", name), element("dd", "; ".join(fact for fact in facts if fact))]
    return element("dl", parts)
