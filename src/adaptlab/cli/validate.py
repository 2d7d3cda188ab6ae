"""``adaptlab validate``: is a study file right?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adaptlab.cli.output import Json, LogLevel, Output, Quiet


def validate(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="A study in YAML.", show_default=False)],
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
) -> None:
    """Check a study file, every error at once with its line; nothing is loaded."""
    output = Output.start(json, quiet, log_level)
    from adaptlab.cli.progress import counted
    from adaptlab.study.document import read_study
    from adaptlab.study.expand import expand

    config = read_study(study)
    runs = expand(config)
    labels = list(dict.fromkeys(run.method.label for run in runs))
    output.document({"runs": len(runs), "methods": labels, "seeds": list(config.seeds)})
    parts = [
        counted(len(config.task), "task"),
        counted(len(labels), "method variant"),
        counted(len(config.seeds), "seed"),
    ]
    output.line(f"{study} is valid: {counted(len(runs), 'run')} ({', '.join(parts)}: {', '.join(labels)}).")
