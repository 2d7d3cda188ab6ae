"""``adaptlab train``: one run."""

from __future__ import annotations

from typing import Any

import typer

from adaptlab.cli import flags as f
from adaptlab.cli.output import Json, LogLevel, Output, Quiet
from adaptlab.cli.taking import TRAIN, takes


@takes(TRAIN)
def train(
    study: f.Study = None,
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
    **flags: Any,
) -> None:
    """Adapt a model to a task in one way: one run of a study.

    The run's folder is the last line: `adaptlab predict` and `adaptlab evaluate` take it.
    """
    output = Output.start(json, quiet, log_level)
    from adaptlab import api
    from adaptlab.cli.progress import outcome, progress
    from adaptlab.study.document import Flags, read_study

    given = f.study_flags(flags)
    if study is None and "seeds" not in given.study:
        given = Flags({**given.study, "seeds": [0]}, given.task, given.model, given.methods, given.spelt)
    config = read_study(study, given)
    folder = flags["out"] or f.default_out(study, config)
    with progress(output) as listener:
        record = api.train(config, out=folder, listener=listener)
    if json:
        print(record.model_dump_json(by_alias=True, indent=1))
    output.show(f"{record.name}: {outcome(record)}")
    output.line(str(folder / "runs" / record.name))
    if record.status != "finished":
        raise typer.Exit(1)
