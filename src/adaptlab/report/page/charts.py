"""The charts: one figure for each family of charts, which share a place and a list to choose from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from adaptlab.report._html import Html, element, join
from adaptlab.report.charts import Chart, NothingToDrawError, groups, in_order, methods_of
from adaptlab.report.page._parts import group_names
from adaptlab.report.select import RunRow

#: What altair writes, and so what must be inside the page.
VEGA_LITE = "6.4"


#: By task and model, the figures that stand beside a section's tables.
Figures = Mapping[tuple[str, str], Html]


def charts(rows: Sequence[RunRow]) -> tuple[dict[str, Any], Html | None, dict[str, Figures]]:
    """The specifications with their data, the places where the page draws them, and the figures of other sections."""
    drawing = _Drawing(rows)
    names = group_names(rows)
    found = groups(rows)
    places = [drawing.group(names[key], here) for key, here in found.items()]
    apart: dict[str, Figures] = {
        section: {key: figures for key, here in found.items() if (figures := drawing.apart(names[key], here, section))}
        for section in ("data", "tuning", "calibration")
    }
    data = {"specs": drawing.specs, "tables": drawing.tables}
    if not names:
        return data, None, apart
    options = [element("option", name, value=name) for name in names.values()]
    chooser = element("label", "Charts of ", element("select", options, id="group"), class_="chooser")
    silent = element("noscript", element("p", "The charts need JavaScript; the tables above have their numbers."))
    return data, join([chooser if len(names) > 1 else None, silent, places]), apart


class _Drawing:
    """Specifications as they are drawn; rows of data that several share are kept once, by columns."""

    def __init__(self, rows: Sequence[RunRow]) -> None:
        self.specs: list[dict[str, Any]] = []
        self.tables: list[dict[str, Any]] = []
        self._known: dict[str, int] = {}
        self._methods = methods_of(rows)

    def group(self, name: str, rows: Sequence[RunRow]) -> Html:
        figures: list[Html] = []
        lacking: list[str] = []
        for members in _families("charts"):
            figure = self._family(members, name, rows, lacking)
            if figure is not None:
                figures.append(figure)
        missing = element("div", [element("p", text) for text in lacking], class_="notes") if lacking else None
        return element("div", figures, missing, class_="charts odd" if len(figures) % 2 else "charts", data_group=name)

    def apart(self, name: str, rows: Sequence[RunRow], section: str) -> Html | None:
        """The figures of another section; ``None`` where there is nothing to draw."""
        drawn = [self._family(members, name, rows, []) for members in _families(section)]
        figures = [figure for figure in drawn if figure is not None]
        return element("div", figures, class_="charts") if figures else None

    def _family(self, members: Sequence[Chart], name: str, rows: Sequence[RunRow], lacking: list[str]) -> Html | None:
        drawn: list[tuple[Chart, Html]] = []
        for chart in members:
            try:
                spec = chart.draw(rows, methods=self._methods).to_dict(validate=False)  # the contract suite validates
            except NothingToDrawError as nothing:
                lacking.append(f"{chart.title}: {nothing}")
                continue
            self.specs.append(self._packed(spec))
            caption = chart.caption(rows)
            label = f"{chart.title}, {name}. {caption}"
            place = {"data_spec": str(len(self.specs) - 1), "data_name": f"{name}-{chart.name}"}
            body = element("div", class_="chart", role="figure", aria_label=label, **place)
            said = element("p", caption, class_="caption")
            drawn.append((chart, element("div", body, said, class_="choice", data_choice=chart.name)))
        if not drawn:
            return None
        heading = element("h3", drawn[0][0].title if len(members) == 1 else f"{members[0].family}")
        choices = [element("option", chart.choice, value=chart.name) for chart, _ in drawn]
        select = element(
            "select", choices, class_="choices", aria_label=f"{members[0].family}: choose the axis, {name}"
        )
        bar = element("div", heading, select if len(drawn) > 1 else None, class_="heading")
        return element("figure", bar, [body for _, body in drawn])

    def _packed(self, spec: Any) -> Any:
        """``spec`` with each list of rows replaced by its number in ``tables``."""
        if isinstance(spec, list):
            return [self._packed(part) for part in spec]
        if not isinstance(spec, dict):
            return spec
        values = spec.get("values")
        if isinstance(values, list) and values and all(isinstance(value, dict) for value in values):
            return {key: part for key, part in spec.items() if key != "values"} | {"table": self._table(values)}
        return {key: self._packed(part) for key, part in spec.items()}

    def _table(self, values: list[dict[str, Any]]) -> int:
        columns = list(dict.fromkeys(key for value in values for key in value))
        lines = [[_short(value.get(key)) for key in columns] for value in values]
        text = json.dumps([columns, lines])
        if text not in self._known:
            self._known[text] = len(self.tables)
            self.tables.append({"columns": columns, "rows": lines})
        return self._known[text]


def _families(section: str) -> list[list[Chart]]:
    """The charts of a section, those that share a place together."""
    found: dict[str, list[Chart]] = {}
    for chart in in_order():
        if chart.section == section:
            found.setdefault(chart.family or chart.name, []).append(chart)
    return list(found.values())


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
