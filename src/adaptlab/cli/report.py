"""``adaptlab report``: draw a study's report again from its records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adaptlab.cli.output import Json, LogLevel, Output, Quiet

StudyDir = Annotated[Path, typer.Argument(metavar="STUDY_DIR", help="A study's folder.", show_default=False)]


def report(study: StudyDir, json: Json = False, quiet: Quiet = False, log_level: LogLevel = "warning") -> None:
    """Draw a study's table and page from its records; the page's path is the last line."""
    output = Output.start(json, quiet, log_level)
    from adaptlab.report import read_studies, terminal_report, write_report
    from adaptlab.runs.store import StudyFolder

    StudyFolder(study).read_study()  # says what is wrong with a folder that is no study
    paths = write_report([study])
    output.document({"page": str(paths.page), "csv": str(paths.csv), "markdown": str(paths.markdown)})
    output.show(terminal_report(read_studies([study])))
    output.line(str(paths.page))
