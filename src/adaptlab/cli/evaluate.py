"""``adaptlab evaluate``: score a finished run on a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adaptlab.cli import flags as f
from adaptlab.cli.output import Json, LogLevel, Output, Quiet

RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run's folder: STUDY/runs/NAME.", show_default=False)]
BaseModel = Annotated[
    str | None,
    typer.Option("--model", metavar="M", help="Where the base lies now, if it has moved.", show_default=False),
]


def evaluate(
    run: RunDir,
    task: Annotated[
        str, typer.Option("--task", metavar="T", help="A task's name, or a file or folder with your rows.")
    ],
    model: BaseModel = None,
    eval_examples: f.EvalExamples = None,
    data_root: f.DataRoot = None,
    text_columns: f.TextColumns = None,
    label_column: f.LabelColumn = None,
    delimiter: f.Delimiter = None,
    device: f.Device = None,
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
) -> None:
    """Score a finished run on a task; the result goes into the run's evaluations folder, never over its record."""
    output = Output.start(json, quiet, log_level)
    from pydantic import ValidationError
    from rich.table import Table

    from adaptlab import api
    from adaptlab.config import TaskConfig
    from adaptlab.errors import ConfigError
    from adaptlab.study.wording import problems_of

    settings = {
        "name": task,
        "eval_examples": eval_examples or "all",
        "text_columns": None if text_columns is None else text_columns.split(","),
        "label_column": label_column,
        "delimiter": delimiter,
    }
    try:
        config = TaskConfig.model_validate(settings)
    except ValidationError as error:
        problems = problems_of(error, settings)
        raise ConfigError(
            one.message.replace(f"'{one.where[0]}'", f.flag(one.where[0]), 1) for one in problems
        ) from error
    result = api.evaluate(run, config, data_root=data_root, device=device or "auto", model=model)
    output.document({"path": str(result.path), "metrics": result.metrics})
    table = Table(title=f"{run.name} on {task}")
    table.add_column("metric")
    for name in result.metrics:
        table.add_column(name, justify="right")
    for metric in dict.fromkeys(metric for values in result.metrics.values() for metric in values):
        shown = [values.get(metric) for values in result.metrics.values()]
        table.add_row(metric, *("-" if v is None else f"{v:.0f}" if metric == "n" else f"{v:.4f}" for v in shown))
    output.show(table)
    output.line(str(result.path))
