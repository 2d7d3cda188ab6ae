"""``adaptlab report``: draw the report of one or several studies again from their records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adaptlab.cli.output import Json, LogLevel, Output, Quiet

StudyDir = Annotated[Path, typer.Argument(metavar="STUDY_DIR", help="A study's folder.", show_default=False)]
Studies = Annotated[
    list[Path],
    typer.Argument(
        metavar="STUDY_DIR...",
        help="Folders of studies, or with results of other tools; several become one report.",
        show_default=False,
    ),
]
Figures = Annotated[
    str | None,
    typer.Option(
        "--figures", metavar="KINDS", help="Also write every chart as these: svg,pdf,png.", show_default=False
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="KEY=VALUE,...",
        help="Only runs that fit, e.g. method=lora,full,task=sst2 or status!=failed. Keys: task, model, method, seed, "
        "status, study, device, engine, and any configured value such as learning_rate; * stands for any text.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Where the report goes; by default into the study, for several ./combined-report, for results of other "
        "tools ./NAME-report.",
        show_default=False,
    ),
]


def report(
    study: Studies,
    figures: Figures = None,
    where: Where = None,
    out: Out = None,
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
) -> None:
    """Draw table, page and figures from the records of one or several studies; the page's path is the last line."""
    output = Output.start(json, quiet, log_level)
    import dataclasses

    from adaptlab.report import read_studies, terminal_report, write_selection
    from adaptlab.report.where import parse, select
    from adaptlab.runs.store import StudyFolder, safe_name

    kinds = [kind.strip() for kind in figures.split(",")] if figures else []
    conditions = parse(where or [])
    for folder in study:
        if StudyFolder(folder).study_path.exists():
            StudyFolder(folder).read_study()  # says what is wrong with it
    selection = select(read_studies(study), conditions)
    if out is None:
        name = f"report-{safe_name(selection.where)}" if selection.where else "report"
        ours = (study[0] / "runs").is_dir() or StudyFolder(study[0]).study_path.exists()
        alone = study[0] / name if ours else Path(f"{study[0].resolve().stem}-{name}")
        out = alone if len(study) == 1 else Path("combined-report")
    paths = write_selection(selection, out, figures=kinds)
    output.document({key: _text(value) for key, value in dataclasses.asdict(paths).items()})
    output.show(terminal_report(selection))
    output.line(str(paths.page))


def _text(value: Path | tuple[Path, ...]) -> str | list[str]:
    return [str(path) for path in value] if isinstance(value, tuple) else str(value)
