"""index.html: one file that answers the question, offline, in any browser.

Vega and its kin stand inside the file; a content security policy allows the scripts of this page by their hashes and
no request to anywhere, so that even markup smuggled past the escaping would run nothing and reach nobody.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from adaptlab.report._html import Content, Html, element, join, json_script
from adaptlab.report.answer import answer
from adaptlab.report.charts import NothingToDrawError, groups, in_order, methods_of
from adaptlab.report.charts._base import COLOURS, config
from adaptlab.report.select import Problem, RunRow, Selection, curve_problems
from adaptlab.report.tables import Entry, Grid, machine_letters, machine_text, number_text, results_grid, seconds_text

#: What altair writes, and so what must be inside the page.
VEGA_LITE = "6.4"


def page(selection: Selection) -> str:
    """The whole page as text."""
    rows = selection.rows
    grid = results_grid(selection)
    specs, charts = _charts(rows)
    problems = [*selection.problems, *curve_problems(rows)]
    sections = [
        ("results", "Results", _results(grid, rows)),
        ("charts", "Charts", charts),
        ("unfinished", "Runs that did not finish", _unfinished(rows)),
        ("runs", "Every run", _runs(rows)),
        ("files", "Files left out", _problems(problems)),
        ("environment", "Where it ran", _environments(rows)),
        ("measured", "How each number was measured", _measured()),
    ]
    shown = [(identifier, title, body) for identifier, title, body in sections if body]
    body = element(
        "div",
        element("a", "Skip to the results", href="#results", class_="skip"),
        _header(selection),
        element("main", _answer(selection), _navigation(shown), [_section(*section) for section in shown]),
        class_="page",
    )
    data = json_script("charts-data", {"specs": specs, "config": {"light": config("light"), "dark": config("dark")}})
    scripts = [_libraries(), _asset("page.js")]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(scripts)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{' + '.join(selection.studies)}, adaptlab"),
        element("style", Html(_asset("page.css"))),
    )
    written = [element("script", Html(script)) for script in scripts]
    return f"<!doctype html>\n{element('html', head, element('body', body, data, written), lang='en')}\n"


def _policy(scripts: Sequence[str]) -> str:
    """Only these scripts run, and nothing is fetched. Vega compiles its expressions, hence ``unsafe-eval``."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes} 'unsafe-eval'; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


@cache
def _libraries() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
    return f"{{{bundle}}}".replace("</script", "<\\/script").replace("<!--", "<\\!--")


@cache
def _asset(name: str) -> str:
    return files("adaptlab.report").joinpath("assets", name).read_text(encoding="utf-8")


def _header(selection: Selection) -> Html:
    rows = selection.rows
    facts = [
        _counted(len(rows), "run"),
        _named([row.task for row in rows], "task"),
        _named([row.model for row in rows], "model"),
        _named([row.method for row in rows], "method"),
    ]
    ended = max((row.ended for row in rows if row.ended), default=None)
    if ended:
        facts.append(f"last run ended {ended[:16].replace('T', ' ')} UTC")
    return element(
        "header",
        element("h1", " + ".join(selection.studies)),
        element("p", " · ".join(fact for fact in facts if fact), class_="facts"),
    )


def _named(names: Sequence[str], kind: str) -> str:
    """The one name, or how many there are."""
    different = sorted(set(names))
    return "" if not different else f"{kind} {different[0]}" if len(different) == 1 else f"{len(different)} {kind}s"


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _answer(selection: Selection) -> Html:
    said = answer(selection)
    details = element("ul", [element("li", detail) for detail in said.details]) if said.details else None
    doubts = element("p", " ".join(said.doubts), class_="doubt") if said.doubts else None
    return element("div", element("p", said.lead), details, doubts, class_="answer")


def _navigation(sections: Sequence[tuple[str, str, Html | None]]) -> Html:
    links = [element("li", element("a", title, href=f"#{identifier}")) for identifier, title, _ in sections]
    return element("nav", element("ul", links), aria_label="Sections of this page")


def _section(identifier: str, title: str, body: Html | None) -> Html:
    heading = f"{identifier}-heading"
    return element("section", element("h2", title, id=heading), body, id=identifier, aria_labelledby=heading)


def _results(grid: Grid, rows: Sequence[RunRow]) -> Html:
    if not grid.lines:
        return _notes(grid.notes)
    titles = [column.title for column in grid.columns]
    colours = _colours(methods_of(rows))
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
    return join([_scrolling(table, "Table of results"), _notes(grid.notes)])


def _colours(methods: Sequence[str]) -> dict[str, str]:
    return {method: COLOURS[index % len(COLOURS)] for index, method in enumerate(methods)}


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


def _notes(notes: Sequence[str]) -> Html:
    return element("div", [element("p", note) for note in notes], class_="notes")


def _scrolling(table: Html, label: str) -> Html:
    return element("div", table, class_="scroll", role="region", aria_label=label, tabindex="0")


def _charts(rows: Sequence[RunRow]) -> tuple[list[dict[str, Any]], Html | None]:
    """The specifications of all charts, and the places where the page draws them: one group per task and model."""
    specs: list[dict[str, Any]] = []
    grouped = groups(rows)
    if not grouped:
        return specs, None
    methods = methods_of(rows)
    several_models = len({row.model for row in rows}) > 1
    names = [f"{task} · {model}" if several_models else task for task, model in grouped]
    places = []
    for name, group in zip(names, grouped.values(), strict=True):
        figures: list[Html] = []
        for chart in in_order():
            try:
                specs.append(chart.draw(group, methods=methods).to_dict())
            except NothingToDrawError as nothing:
                place = element("p", str(nothing), class_="chart empty")
            else:
                label = f"{chart.title}, {name}. {chart.caption(group)}"
                drawn = {"data_spec": str(len(specs) - 1), "data_name": f"{name}-{chart.name}"}
                place = element("div", class_="chart", role="figure", aria_label=label, **drawn)
            caption = element("figcaption", chart.caption(group))
            first = None if figures else "first"
            figures.append(element("figure", element("h3", chart.title), place, caption, class_=first))
        places.append(element("div", figures, class_="charts", data_group=name))
    options = [element("option", name, value=name) for name in names]
    chooser = element("label", "Charts of", element("select", options, id="group"), class_="chooser")
    silent = element("noscript", element("p", "The charts need JavaScript; the table above has their numbers."))
    return specs, join([chooser if len(names) > 1 else None, silent, places])


def _unfinished(rows: Sequence[RunRow]) -> Html | None:
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
    return _scrolling(table, "Runs that did not finish")


def _runs(rows: Sequence[RunRow]) -> Html | None:
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
    return _scrolling(table, f"Scores of {row.name}")


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


def _problems(problems: Sequence[Problem]) -> Html | None:
    if not problems:
        return None
    lines = [
        element("tr", element("th", p.file, scope="row", class_="wide-text"), element("td", p.reason)) for p in problems
    ]
    head = [element("th", title, scope="col") for title in ("file", "why")]
    caption = element("caption", "Nothing of them is in any number above. Running the study again repairs what it can.")
    table = element("table", caption, element("thead", element("tr", head)), element("tbody", lines))
    return _scrolling(table, "Files left out")


def _environments(rows: Sequence[RunRow]) -> Html | None:
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
            _counted(len(here), "run"),
            ", ".join(text for text in (python, packages) if text),
            f"commit {', '.join(commits)}" if commits else "",
            "with uncommitted changes" if any(row.environment.dirty for row in here) else "",
        ]
        name = f"{letter}: {machine_text(here[0])}" if letter else machine_text(here[0])
        parts += [element("dt", name), element("dd", "; ".join(fact for fact in facts if fact))]
    return element("dl", parts)


#: What stands on the page and how it came about; docs/records.md has the same for every field of a record.
MEASURED = (
    (
        "Score",
        "The task's primary metric on the report rows, which are looked at once, at the end. The learning rate and the "
        "checkpoint are chosen on other rows. Mean and sample standard deviation (divisor n - 1) are over seeds; a "
        "seed decides data order, initial values and dropout.",
    ),
    (
        "Interval",
        "Student's t interval of the mean over seeds, 95 %. It says where the mean of many more seeds would lie, and "
        "nothing about other data.",
    ),
    (
        "Trained parameters",
        "Counted on the model that was trained, without the task's head, which is counted apart and which every method "
        "trains unless its configuration says otherwise.",
    ),
    (
        "Training time",
        "Wall clock of the optimiser's steps of one run, without loading, evaluation and writing. Clocks compare only "
        "between runs with the same device, number of threads and torch version. Fewer trained parameters save "
        "optimiser work and the gradients of frozen weights, but the forward pass stays whole: so a small method need "
        "not be faster.",
    ),
    (
        "Learning curves",
        "From the evaluations during training, on the selection rows. The loss is the mean over all of them.",
    ),
    (
        "Runs that did not finish",
        "They stay in every count of runs and are in no mean. A diverged run met a loss that was not finite.",
    ),
)


def _measured() -> Html:
    return element("dl", [[element("dt", term), element("dd", text)] for term, text in MEASURED])
