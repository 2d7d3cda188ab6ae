"""index.html: one file that answers the question, offline, in any browser.

Everything the page needs stands inside the file: Vega for the charts, a few small scripts of our own, one JSON block of
data. A content security policy allows these scripts by their hashes, no evaluation of text as code and no request to
anywhere, so that even markup smuggled past the escaping would run nothing and reach nobody.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from adaptlab.report._html import Html, element, json_script
from adaptlab.report.answer import answer
from adaptlab.report.charts._base import config
from adaptlab.report.page._parts import counted
from adaptlab.report.page.calibration import calibration_section
from adaptlab.report.page.charts import VEGA_LITE, charts
from adaptlab.report.page.costs import costs
from adaptlab.report.page.data import data_section
from adaptlab.report.page.explorer import explorer
from adaptlab.report.page.measured import measured
from adaptlab.report.page.results import results
from adaptlab.report.page.rows import rows_section
from adaptlab.report.page.runs import environments, problems_table, runs, unfinished
from adaptlab.report.page.tuning import tuning
from adaptlab.report.select import Selection, curve_problems
from adaptlab.report.tables import results_grid

__all__ = ["VEGA_LITE", "page"]

#: Our scripts, in the order in which they run; each is a function of its own and shares nothing but the JSON block.
SCRIPTS = ("page.js", "explorer.js", "rows.js")


def page(selection: Selection) -> str:
    """The whole page as text."""
    found = selection.rows
    specs, drawn, apart = charts(found)
    explored, budget = explorer(found)
    answered, by_row = rows_section(found)
    sections = [
        ("results", "Results", results(results_grid(selection), found)),
        ("budget", "What your budget buys", budget),
        ("costs", "What each method costs", costs(found)),
        ("tuning", "What tuning found and cost", tuning(found, apart["tuning"])),
        ("data", "Other amounts and other data", data_section(found, apart["data"])),
        ("charts", "Charts", drawn),
        ("calibration", "How far probabilities can be believed", calibration_section(found, apart["calibration"])),
        ("rows", "Row by row", by_row),
        ("unfinished", "Runs that did not finish", unfinished(found)),
        ("runs", "Every run", runs(found)),
        ("files", "Files left out", problems_table([*selection.problems, *curve_problems(found)])),
        ("environment", "Where it ran", environments(found)),
        ("measured", "How each number was measured", measured(found)),
    ]
    shown = [(identifier, title, body) for identifier, title, body in sections if body]
    body = element(
        "div",
        element("a", "Skip to the results", href="#results", class_="skip"),
        _header(selection),
        element("main", _answer(selection), _navigation(shown), [_section(*section) for section in shown]),
        class_="page",
    )
    themes = {"light": config("light"), "dark": config("dark")}
    data = json_script("page-data", {**specs, "config": themes, "budget": explored, "rows": answered})
    scripts = [_libraries(), *(_asset(name) for name in SCRIPTS)]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(scripts)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{' + '.join(selection.studies)}, adaptlab"),
        element("style", Html(_asset("page.css") + _asset("explorer.css"))),
    )
    written = [element("script", Html(script)) for script in scripts]
    return f"<!doctype html>\n{element('html', head, element('body', body, data, written), lang='en')}\n"


def _policy(scripts: Sequence[str]) -> str:
    """Only these scripts run, and nothing is fetched. Vega's expressions are interpreted, so no text becomes code."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
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
        counted(len(rows), "run"),
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
