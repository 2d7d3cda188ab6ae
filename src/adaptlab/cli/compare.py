"""``adaptlab compare``: run what a study still lacks and show what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from adaptlab.cli import flags as f
from adaptlab.cli.output import Json, LogLevel, Output, Quiet
from adaptlab.cli.taking import COMPARE, takes
from adaptlab.config import StudyConfig

if TYPE_CHECKING:
    from adaptlab.api import StudyResult


@takes(COMPARE)
def compare(
    study: f.Study = None,
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
    **flags: Any,
) -> None:
    """Compare ways of adapting a model to a task: a grid of runs, a table, and a page.

    Runs that have finished are not run again, and interrupted ones go on: give the same command again.
    """
    output = Output.start(json, quiet, log_level)
    from adaptlab.study.document import read_study

    config = read_study(study, f.study_flags(flags))
    run_study(config, flags["out"] or f.default_out(study, config), output)


def run_study(study: StudyConfig, out: Path, output: Output) -> None:
    """Run ``study`` in ``out``, show its table, and end with the page's path; exit code 1 if some run failed."""
    from adaptlab import api
    from adaptlab.cli.progress import progress

    with progress(output) as listener:
        result = api.compare(study, out=out, listener=listener)
    show_result(result, output)
    if result.failed:
        raise typer.Exit(1)


def show_result(result: StudyResult, output: Output) -> None:
    """Notes on stderr; on stdout the table and, alone on the last line, the page's path."""
    from adaptlab.cli.progress import counted
    from adaptlab.report import read_studies, terminal_report

    for warning in result.warnings:
        output.note(f"Note: {warning}")
    if result.skipped:
        output.note(f"{counted(len(result.skipped), 'run')} had been done before and did not run again.")
    for sentence, names in _met(result).items():
        output.note(f"Note: {sentence} ({', '.join(names) if len(names) < 4 else counted(len(names), 'run')})")
    output.document(_document(result))
    output.show(terminal_report(read_studies([result.folder])))
    for reason, names in _failures(result).items():
        output.note(f"{counted(len(names), 'run')} {reason}: {', '.join(names)}")
    if result.page is not None:
        output.line(str(result.page))


def _met(result: StudyResult) -> dict[str, list[str]]:
    """What the runs met and went on with, and which did; runs that had been done before have said it then."""
    found: dict[str, list[str]] = {}
    for record in result.records:
        for sentence in record.warnings if record.name not in result.skipped else ():
            found.setdefault(sentence, []).append(record.name)
    return found


def _failures(result: StudyResult) -> dict[str, list[str]]:
    """Names of the runs that did not finish, by how they ended; one sentence for what befell all of them."""
    from adaptlab.cli.progress import outcome

    reasons: dict[str, list[str]] = {}
    for record in result.records:
        if record.name in result.failed:
            reasons.setdefault(outcome(record), []).append(record.name)
    return reasons


def _document(result: StudyResult) -> dict[str, Any]:
    import json

    return {
        "folder": str(result.folder),
        "page": None if result.page is None else str(result.page),
        "runs": [json.loads(record.model_dump_json(by_alias=True)) for record in result.records],
        "skipped": list(result.skipped),
        "failed": list(result.failed),
        "warnings": list(result.warnings),
    }
