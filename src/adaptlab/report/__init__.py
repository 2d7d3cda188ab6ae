"""Tables, figures and a page, drawn from the records of studies alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adaptlab.errors import ConfigError
from adaptlab.report.markup import latex, markdown
from adaptlab.report.page import page
from adaptlab.report.select import RunRow, Selection, read_studies
from adaptlab.report.sheets import methods_sheet, pairs_sheet, runs_sheet
from adaptlab.report.summary import ReportSummary, as_json, summary
from adaptlab.report.terminal import terminal_report
from adaptlab.report.where import parse, select
from adaptlab.runs.files import cannot_write, write_atomically
from adaptlab.runs.store import safe_name

__all__ = [
    "ReportPaths",
    "ReportSummary",
    "RunRow",
    "Selection",
    "as_json",
    "read_studies",
    "summary",
    "terminal_report",
    "write_report",
    "write_selection",
]


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where a report's files are: the page, tables, and every number behind them.

    Attributes:
        csv: a line per run; ``methods`` a line per method and task, ``pairs`` a line per pair of methods.
        summary: what the page and the answer are made from, as JSON.
        figures: SVG, PNG and PDF; none unless they were asked for.
    """

    page: Path
    csv: Path
    methods: Path
    pairs: Path
    summary: Path
    markdown: Path
    latex: Path
    figures: tuple[Path, ...] = ()


def write_report(
    study_folders: Sequence[Path], *, out: Path | None = None, figures: Sequence[str] = (), where: Sequence[str] = ()
) -> ReportPaths:
    """Write the report of one or several studies, each file atomically.

    Args:
        out: the folder to write to; by default ``report`` inside the study (with ``where``, ``report-<conditions>``),
            and needed when there are several.
        figures: kinds of files (``svg``, ``pdf``, ``png``) to draw every chart as; a few seconds per task.
        where: conditions on the runs, see :mod:`adaptlab.report.where`.

    Raises:
        ConfigError: several studies and no ``out``, no study at all, or a condition that no run meets.
        StudyError: a folder is not a study, or the report cannot be written.
    """
    if not study_folders:
        raise ConfigError("No study was given: name at least one folder that `adaptlab compare --out` wrote.")
    if out is None and len(study_folders) > 1:
        raise ConfigError(f"{len(study_folders)} studies were given but no place for their report: say it with out.")
    selection = select(read_studies(study_folders), parse(where))
    if out is None:
        out = study_folders[0] / (f"report-{safe_name(selection.where)}" if selection.where else "report")
    return write_selection(selection, out, figures=figures)


def write_selection(selection: Selection, folder: Path, *, figures: Sequence[str] = ()) -> ReportPaths:
    """Write the report of ``selection`` into ``folder``; arguments and errors as for :func:`write_report`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    paths = ReportPaths(
        page=folder / "index.html",
        csv=folder / "results.csv",
        methods=folder / "methods.csv",
        pairs=folder / "pairs.csv",
        summary=folder / "summary.json",
        markdown=folder / "results.md",
        latex=folder / "results.tex",
        figures=_figures(selection, folder, figures) if figures else (),
    )
    found = summary(selection)
    for path, text in (
        (paths.csv, runs_sheet(selection.rows).csv()),
        (paths.methods, methods_sheet(found).csv()),
        (paths.pairs, pairs_sheet(found).csv()),
        (paths.summary, json.dumps(as_json(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n"),
        (paths.markdown, markdown(selection)),
        (paths.latex, latex(selection)),
        (paths.page, page(selection)),
    ):
        write_atomically(path, text.encode())
    return paths


def _figures(selection: Selection, folder: Path, kinds: Sequence[str]) -> tuple[Path, ...]:
    from adaptlab.report.figures import write_figures

    return write_figures(selection, folder / "figures", kinds)
