"""A study in a notebook: data frames, tables and charts that display by themselves.

>>> study = adaptlab.Study.load("sst2-study")
>>> study                                # the answer and the table
>>> study.runs.groupby("method")["primary.value"].mean()
>>> study.charts["score_by_parameters"]
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptlab.errors import ConfigError
from adaptlab.runs.store import RunFolder, StudyFolder

if TYPE_CHECKING:
    import altair
    import pandas as pd

    from adaptlab.report.answer import Answer
    from adaptlab.report.charts import Chart
    from adaptlab.report.select import RunRow, Selection
    from adaptlab.report.sheets import Sheet

#: What names a run in every frame.
_NAMES = ("study", "run", "task", "model", "method", "seed")


@dataclass(frozen=True)
class Study:
    """The records of one or several studies (or of results of other tools), read once.

    Attributes:
        selection: the runs, and the files that could not be used (``selection.problems``).
    """

    selection: Selection

    @classmethod
    def load(cls, *folders: str | Path, where: str | Sequence[str] = ()) -> Study:
        """Read the studies in ``folders``.

        Args:
            where: conditions on the runs, e.g. ``"method=lora,task=sst2"`` (docs/reports.md).

        Raises:
            StudyError: a folder is not there, or is no study.
            ConfigError: no folder was given, or no run fits.
        """
        from adaptlab.report import read_studies
        from adaptlab.report.where import parse, select

        if not folders:
            raise ConfigError("No study was given: name the folder that `adaptlab compare --out` wrote.")
        conditions = parse([where] if isinstance(where, str) else where)
        return cls(select(read_studies([Path(folder).expanduser() for folder in folders]), conditions))

    @property
    def answer(self) -> Sentences:
        """Who is best, who is tied with it for less, and what limits that."""
        return Sentences(self.selection)

    @property
    def table(self) -> Table:
        """The table of results; the best and what is tied with it in bold."""
        return Table(self.selection)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One line per run with every figure; columns are the paths of record.json (``primary.value``)."""
        from adaptlab.report.sheets import runs_sheet

        return _frame(runs_sheet(self.selection.rows))

    @cached_property
    def methods(self) -> pd.DataFrame:
        """One line per method and task: mean, spread, intervals, standing, costs."""
        from adaptlab.report import summary
        from adaptlab.report.sheets import methods_sheet

        return _frame(methods_sheet(summary(self.selection)))

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """One line per pair of methods: the claims about the methods and about the trained models."""
        from adaptlab.report import summary
        from adaptlab.report.sheets import pairs_sheet

        return _frame(pairs_sheet(summary(self.selection)))

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One line per evaluation during training; a metric on the selection rows is a column of its name."""
        import pandas as pd

        lines = [
            _names(row) | point.model_dump(exclude={"metrics"}) | dict(point.metrics)
            for row in self.selection.rows
            for point in row.curve.points
        ]
        return pd.DataFrame(lines, columns=None if lines else [*_NAMES, "step"])

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One line per answer to a report row: ``id``, ``text`` (where the study kept it), ``gold``, ``prediction``,
        ``right`` and ``scores``. The frame of a large study is large: load it with ``where``.

        Raises:
            RecordError: a file of answers is damaged.
        """
        import pandas as pd

        frames = [_answers(row) for row in self.selection.rows if row.folder is not None]
        whole = [frame for frame in frames if len(frame)]
        columns = [*_NAMES, "evaluation_set", "id", "text", "gold", "prediction", "right", "scores"]
        return pd.concat(whole, ignore_index=True)[columns] if whole else pd.DataFrame(columns=columns)

    @cached_property
    def charts(self) -> Charts:
        """Every chart by its name; of several tasks or models, by ``study.charts[name, task]``."""
        return Charts(self.selection)

    def __repr__(self) -> str:
        names, rows = " + ".join(self.selection.studies), len(self.selection.rows)
        return f"Study({names}: {rows} run{'' if rows == 1 else 's'}). {self.answer.lead}"

    def _repr_html_(self) -> str:
        return self.answer._repr_html_() + self.table._repr_html_()


class Sentences:
    """The answer; ``lead``, ``details`` and ``doubts`` are its sentences."""

    def __init__(self, selection: Selection) -> None:
        from adaptlab.report.answer import answer

        self._selection = selection
        self._said: Answer = answer(selection)

    @property
    def lead(self) -> str:
        return self._said.lead

    @property
    def details(self) -> tuple[str, ...]:
        return self._said.details

    @property
    def doubts(self) -> tuple[str, ...]:
        return self._said.doubts

    def __repr__(self) -> str:
        return "\n".join((self.lead, *self.details, *self.doubts))

    def _repr_html_(self) -> str:
        from adaptlab.report.markup import html_answer

        return html_answer(self._selection)


class Table:
    """The table of results as HTML, Markdown and LaTeX."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection

    @property
    def frame(self) -> pd.DataFrame:
        """The table's texts as a data frame."""
        import pandas as pd

        from adaptlab.report.tables import results_grid

        grid = results_grid(self._selection)
        lines = [[entry.text for entry in line] for line in grid.lines]
        return pd.DataFrame(lines, columns=[column.title for column in grid.columns])

    @property
    def markdown(self) -> str:
        from adaptlab.report.markup import markdown

        return markdown(self._selection)

    @property
    def latex(self) -> str:
        from adaptlab.report.markup import latex

        return latex(self._selection)

    def __repr__(self) -> str:
        return self.markdown

    def _repr_html_(self) -> str:
        from adaptlab.report.markup import html_table

        return html_table(self._selection)

    def _repr_latex_(self) -> str:
        return self.latex


class Charts(Mapping[str, "Figure"]):
    """Charts by name. Iterating gives those that have something to show for the first task and model."""

    def __init__(self, selection: Selection) -> None:
        from adaptlab.report.charts import groups, in_order, methods_of

        self._plugins: dict[str, Chart] = {chart.name: chart for chart in in_order()}
        self._methods = methods_of(selection.rows)
        self._groups = groups(selection.rows)

    def __getitem__(self, key: str | tuple[str, ...]) -> Figure:
        """``charts[name]``, ``charts[name, task]`` or ``charts[name, task, model]``.

        Raises:
            KeyError: there is no such chart, task or model; the message says what there is.
        """
        name, *wanted = (key,) if isinstance(key, str) else key
        if name not in self._plugins:
            raise KeyError(f"There is no chart '{name}': there are {', '.join(self._plugins)}.")
        fitting = [group for group in self._groups if all(part in group for part in wanted)]
        if not fitting:
            there = ", ".join(" with ".join(group) for group in self._groups) or "no runs"
            raise KeyError(f"No runs of {' and '.join(wanted) or 'any task'}: there are {there}.")
        return Figure(self._plugins[name], self._groups[fitting[0]], self._methods)

    def __iter__(self) -> Iterator[str]:
        return iter([name for name in self._plugins if self._groups and self[name].shows])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _repr_html_(self) -> str:
        return "".join(self[name]._repr_html_() for name in self)


class Figure:
    """A chart that displays by itself, drawn offline; ``altair`` is the chart to be changed or combined."""

    def __init__(self, chart: Chart, rows: Sequence[RunRow], methods: Sequence[str]) -> None:
        self._chart, self._rows, self._methods = chart, rows, methods

    @property
    def title(self) -> str:
        return self._chart.title

    @property
    def caption(self) -> str:
        """What a point is, how it was measured, what was left out."""
        return self._chart.caption(self._rows)

    @property
    def altair(self) -> altair.LayerChart:
        """The altair chart.

        Raises:
            NothingToDrawError: no run has what it shows.
        """
        return self._chart.draw(self._rows, methods=self._methods)

    @property
    def shows(self) -> bool:
        """Whether there is anything to show."""
        from adaptlab.report.charts import NothingToDrawError

        try:
            self.altair  # noqa: B018
        except NothingToDrawError:
            return False
        return True

    def save(self, path: str | Path) -> Path:
        """Write the chart as SVG, PNG or PDF, by the ending of ``path``.

        Raises:
            ConfigError: the ending is none of these.
        """
        from adaptlab.report.charts import themed
        from adaptlab.report.figures import KINDS, rendered
        from adaptlab.runs.files import write_atomically

        target = Path(path).expanduser()
        if target.suffix[1:] not in KINDS:
            raise ConfigError(f"A chart cannot be written to {target.name}: its name must end in .{', .'.join(KINDS)}.")
        write_atomically(target, rendered(themed(self.altair), target.suffix[1:]))
        return target

    def __repr__(self) -> str:
        return f"{self.title}. {self.caption}"

    def _repr_html_(self) -> str:
        from adaptlab.report._html import Html, element
        from adaptlab.report.charts import NothingToDrawError, themed
        from adaptlab.report.figures import rendered

        try:
            drawn = base64.b64encode(rendered(themed(self.altair), "svg")).decode()
        except NothingToDrawError as nothing:
            picture = element("p", str(nothing))
        else:  # an image, so that the parts of one drawing do not answer to the names of another's
            picture = Html(f'<img alt="{html.escape(repr(self))}" src="data:image/svg+xml;base64,{drawn}">')
        caption = element("figcaption", element("small", self.caption))
        return element("figure", element("strong", self.title), picture, caption)


def _names(row: RunRow) -> dict[str, Any]:
    values = (row.study, row.name, row.task, row.model, row.method, row.seed)
    return dict(zip(_NAMES, values, strict=True)) | dict(row.setting)


def _frame(sheet: Sheet) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(sheet.lines), columns=list(sheet.columns))


def _answers(row: RunRow) -> pd.DataFrame:
    """The answers of one run."""
    import pandas as pd

    assert row.folder is not None  # the caller chose those that have one
    frames = []
    for name, found in RunFolder(row.folder).read_predictions().items():
        columns = {"id": found.ids, "gold": found.gold, "prediction": found.predicted}
        frame = pd.DataFrame(
            columns | {"scores": found.scores if found.scores is not None else [None] * len(found.ids)}
        )
        frame["right"] = frame["gold"] == frame["prediction"]
        texts = _texts(row, name)
        frame["text"] = [texts.get(item) for item in found.ids]
        frames.append(frame.assign(evaluation_set=name, **{key: _names(row)[key] for key in _NAMES}))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _texts(row: RunRow, evaluation_set: str) -> dict[str, str]:
    """Texts of a set's rows by their ids; empty where the study kept none."""
    import pyarrow.parquet as pq

    assert row.folder is not None
    path = StudyFolder(row.folder.parent.parent).items_path(row.task, evaluation_set)
    if not path.is_file():
        return {}
    table = pq.read_table(path, columns=["id", "text"])
    return dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
