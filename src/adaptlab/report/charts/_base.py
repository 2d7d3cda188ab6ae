"""What a chart is, and the look that all charts share.

A chart plugin is one file in this folder with ``plugin = <Chart>()``; altair is imported inside the functions that
draw. Colours of text, axes and background are not in the chart: :func:`themed` or the page adds them, light or dark.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell, label_of

if TYPE_CHECKING:
    import altair as alt

Theme = Literal["light", "dark"]

#: Found by a search for the colours furthest apart as they look normally and with protanopia or deuteranopia (in OKLab,
#: simulated after Machado et al. 2009), each with a contrast of 3:1 against the page in light and in dark.
COLOURS = ("#0173B5", "#A6921E", "#9B5046", "#1FA1AA", "#997BFD", "#8027FF", "#BE1489", "#F25183")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 3], [4, 4], [1, 3], [10, 2, 2, 2, 2, 2])

#: Height of a plot in pixels; its width follows the page and is ``WIDTH`` in figures. Labels are placed for a phone's.
HEIGHT, WIDTH, LABEL_WIDTH = 320, 520, 290
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


class Chart(ABC):
    """Base of every chart.

    Attributes:
        name: the plugin's, and the stem of its figures' files.
        title: what the reader sees above it.
        order: charts stand on the page in ascending order.
        section: where it stands on the page: ``charts``, or beside the tables of ``data``, ``tuning``, ``calibration``.
        family: charts of one family share a place on the page, and ``choice`` is how its list calls this one; empty for
            a chart with a place of its own.
    """

    name: str
    title: str
    order: int = 100
    section: Literal["charts", "data", "tuning", "calibration"] = "charts"
    family: str = ""
    choice: str = ""

    def draw(self, rows: Sequence[RunRow], *, methods: Sequence[str] | None = None) -> alt.LayerChart:
        """The chart of the runs of one task and model, with its data inside, in no theme.

        Args:
            rows: runs of any status; what cannot be drawn is left out, and ``caption`` says so.
            methods: every method label of the report, so that colours are the same in all charts; by default
                those of ``rows``.

        Raises:
            NothingToDrawError: no run has what the chart shows; the message says what is missing.
            ValueError: the rows are of several tasks or models, whose scores share no axis (see :func:`groups`).
        """
        if len(groups(rows)) > 1:
            raise ValueError(f"chart '{self.name}' was given runs of several tasks or models: draw one group at a time")
        from altair.utils.schemapi import debug_mode

        with debug_mode(False):  # the contract suite validates; at every step of drawing it is most of the time
            return self.drawn(rows, methods_of(rows) if methods is None else methods)

    @abstractmethod
    def drawn(self, rows: Sequence[RunRow], methods: Sequence[str]) -> alt.LayerChart:
        """What :meth:`draw` gives, for rows of one task and model."""

    @abstractmethod
    def caption(self, rows: Sequence[RunRow]) -> str:
        """Sentences below the chart: what a point is, how it was measured, what was left out."""


class NothingToDrawError(Exception):
    """The rows have nothing that a chart could show; the message is a sentence for the reader."""


def groups(rows: Iterable[RunRow]) -> dict[tuple[str, str], list[RunRow]]:
    """``rows`` by task and model: what one chart can show."""
    found: dict[tuple[str, str], list[RunRow]] = defaultdict(list)
    for row in rows:
        found[row.task, row.model].append(row)
    return {key: found[key] for key in sorted(found)}


def methods_of(rows: Iterable[RunRow]) -> list[str]:
    """The method labels of ``rows`` in the order of their colours."""
    return sorted({row.method for row in rows})


def inline(values: Iterable[Mapping[str, Any]]) -> alt.Data:
    """Rows of data inside the chart."""
    import altair as alt

    return alt.Data(values=_Rows(values))


class _Rows:
    """Rows as altair takes a schema's value: it would copy a list, row by row, with every step of drawing."""

    _schema: ClassVar[dict[str, Any]] = {"type": "array"}

    def __init__(self, values: Iterable[Mapping[str, Any]]) -> None:
        self._values = [dict(value) for value in values]

    def to_dict(self) -> list[dict[str, Any]]:
        return self._values


def colour(methods: Sequence[str], **options: Any) -> alt.Color:
    """Colour by the field ``method``: the same for a method in every chart that is given the same ``methods``."""
    import altair as alt

    scale = alt.Scale(domain=list(methods), range=[COLOURS[i % len(COLOURS)] for i in range(len(methods))])
    return alt.Color("method:N", scale=scale, legend=None, **options)


def shape(methods: Sequence[str]) -> alt.Shape:
    """Shape by the field ``method``, so that colour is never the only sign."""
    import altair as alt

    scale = alt.Scale(domain=list(methods), range=[SHAPES[i % len(SHAPES)] for i in range(len(methods))])
    return alt.Shape("method:N", scale=scale, legend=None)


def dash(methods: Sequence[str]) -> alt.StrokeDash:
    """Dash pattern by the field ``method``."""
    import altair as alt

    scale = alt.Scale(domain=list(methods), range=[DASHES[i % len(DASHES)] for i in range(len(methods))])
    return alt.StrokeDash("method:N", scale=scale, legend=None)


def cell_label(cell: Cell) -> str:
    """:func:`label_of` of a cell."""
    return label_of(cell.method, cell.setting)


def score_title(rows: Sequence[RunRow]) -> str:
    """E.g. ``accuracy (validation)``."""
    primary = next((row.primary for row in rows if row.primary is not None), None)
    return "score" if primary is None else f"{primary.name} ({primary.evaluation_set})"


def padded(values: Sequence[float], share: float = 0.08) -> tuple[float, float]:
    """A domain around finite ``values`` with ``share`` of their span to spare on either side."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) * 0.1 or 1.0
    return (low - share * span, high + share * span)


@dataclass(frozen=True, slots=True)
class Label:
    """Where a point's text goes, relative to the point, in pixels."""

    dx: int
    dy: int
    align: Literal["left", "right", "center"]


#: In order of preference.
_PLACES = (
    Label(9, 0, "left"), Label(-9, 0, "right"), Label(0, -13, "center"), Label(0, 15, "center"),
    Label(9, -13, "left"), Label(9, 14, "left"), Label(-9, -13, "right"), Label(-9, 14, "right"),
)  # fmt: skip


def place_labels(
    points: Sequence[tuple[float, float, float, str]], width: float = LABEL_WIDTH, height: float = HEIGHT
) -> list[Label]:
    """A place for each text so that texts cover neither each other nor a point or bar, as far as that can be had.

    Args:
        points: (x, y, half the length of the error bar, text) in 0..1 of the plot's width and height, y upwards.
    """
    boxes = [_point_box(x * width, (1 - y) * height, bar * height) for x, y, bar, _ in points]
    chosen = []
    for own, (x, y, _, text) in enumerate(points):
        costs = []
        for place in _PLACES:
            box = _text_box(x * width + place.dx, (1 - y) * height + place.dy, text, place)
            covered = sum(_overlap(box, other) for index, other in enumerate(boxes) if index != own)
            outside = max(0.0, -box[0]) + max(0.0, box[2] - width) + max(0.0, -box[1]) + max(0.0, box[3] - height)
            costs.append(covered + 20 * outside)
        best = min(range(len(_PLACES)), key=lambda index: (costs[index], index))
        place = _PLACES[best]
        chosen.append(place)
        boxes.append(_text_box(x * width + place.dx, (1 - y) * height + place.dy, text, place))
    return chosen


_Box = tuple[float, float, float, float]


def _point_box(x: float, y: float, bar: float) -> _Box:
    high = max(6.0, bar)
    return (x - 6, y - high, x + 6, y + high)


def _text_box(x: float, y: float, text: str, place: Label) -> _Box:
    wide = 6.6 * len(text)
    left = {"left": x, "right": x - wide, "center": x - wide / 2}[place.align]
    return (left, y - 7, left + wide, y + 7)


def _overlap(a: _Box, b: _Box) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """``positions`` moved apart to at least ``gap``, in their order and as little as possible (pool adjacent)."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    blocks: list[tuple[float, list[int]]] = []  # (start of the block, indices in it)
    for index in order:
        start, members = positions[index], [index]
        while blocks and blocks[-1][0] + gap * len(blocks[-1][1]) > start:
            before = blocks.pop()
            members = before[1] + members
            start = math.fsum(positions[m] - gap * rank for rank, m in enumerate(members)) / len(members)
        blocks.append((start, members))
    moved = [0.0] * len(positions)
    for start, members in blocks:
        for rank, index in enumerate(members):
            moved[index] = start + gap * rank
    return moved


def config(theme: Theme) -> dict[str, Any]:
    """Vega-Lite's config: quiet axes, and the colours of ``theme``."""
    text, muted, line = ("#1c2127", "#5c6570", "#e3e6ea") if theme == "light" else ("#e8eaed", "#a3abb5", "#30363d")
    return {
        "background": "#ffffff" if theme == "light" else "#14171b",
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            "gridColor": line, "domainColor": line, "tickColor": line, "labelColor": muted, "titleColor": muted,
            "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "tickCount": 6, "labelPadding": 6,
            "titlePadding": 10, "labelOverlap": "greedy",
        },
        "axisX": {"grid": False},
        "text": {"color": text, "fontSize": 12},
        "rule": {"color": muted},
        "title": {"color": text, "subtitleColor": muted, "fontSize": 14, "subtitleFontSize": 12, "anchor": "start"},
        "header": {"labelColor": text, "titleColor": muted},
    }  # fmt: skip


def themed(chart: alt.LayerChart, theme: Theme = "light") -> dict[str, Any]:
    """The chart's Vega-Lite specification in a theme, of fixed width, as figures need it."""
    spec: dict[str, Any] = chart.to_dict()
    spec["config"] = config(theme)
    return _fixed_width(spec)


def _fixed_width(spec: dict[str, Any]) -> dict[str, Any]:
    if spec.get("width") == "container":
        spec["width"] = WIDTH
    return spec
